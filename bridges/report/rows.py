"""The behaviours as compact rows, each of which opens into everything that is known of it."""

from __future__ import annotations

import re
from typing import Any

from bridges.report.charts import Figures
from bridges.report.circuits import graph_holder, without
from bridges.report.claims import claim_strip, claims_table
from bridges.report.depth import depth_figure, spark
from bridges.report.markup import Raw, html, join, note, section, tag
from bridges.report.measurements import measurements
from bridges.report.prompts import compact_pair, full_pair, has_example
from bridges.report.source import Source
from bridges.report.text import DASH, SPACE, brief, count, escape, known
from bridges.report.verdicts import JUDGED, badge, verdict_rows, weaker_way
from bridges.storage.tables.verdicts import VERDICTS

# What rows can be sorted by: key, heading, and whether large values come first.
COLUMNS = (
    ("behaviour", "behaviour and example", False),
    ("verdict", "verdict, claims 1–5", False),
    ("reason", "why", False),
    ("size", "nodes, edges", False),
    ("share", "moved of ceiling", True),
    ("spark", "over depth", False),
)
SORTABLE = ("behaviour", "verdict", "size", "share")


def behaviour_section(source: Source, figures: Figures, anchors: dict[str, str], graphs: dict[str, int | None]) -> Raw:
    """Filter, headings and one row for each behaviour.

    Args:
        anchors: the behaviours in order, with the id of each row. graphs: the number of each one's circuit, if any.
    """
    if not anchors:
        return section("behaviours", "Behaviours", [note(source.missing("suite"))])
    verdicts = verdict_rows(source)
    suite = {row["behaviour"]: row for row in source.rows("suite")}
    rows = [
        _row(name, anchor, place, source, figures, graphs[name], suite.get(name), verdicts.get(name))
        for place, (name, anchor) in enumerate(anchors.items())
    ]
    head = "".join(
        f'<button type="button" class="head head-{key}" data-sort="{key}" data-down="{int(down)}">{title}</button>'
        if key in SORTABLE
        else f'<span class="head head-{key}">{title}</span>'
        for key, title, down in COLUMNS
    )
    tools = (
        '<div class="list-tools"><label class="find"><span>Find</span><input type="search" data-find '
        'placeholder="behaviour, prompt or reason" autocomplete="off"></label><p class="found note" role="status"></p>'
        '<button type="button" data-fold="open">Open all</button><button type="button" data-fold="close">Close all'
        "</button></div>"
    )
    listed = f'<div class="list" id="list"><div class="heads">{head}</div>\n{join(rows)}</div>'
    return section("behaviours", "Behaviours", [tools, listed])


def _row(
    name: str,
    anchor: str,
    place: int,
    source: Source,
    figures: Figures,
    graph: int | None,
    suite: dict[str, Any] | None,
    verdict: dict[str, Any] | None,
) -> Raw:
    claims = source.of("claims", name)
    parts = [f'<span class="behaviour-cell"><b class="title">{html(name)}</b>{_example(suite)}</span>']
    if verdict is None:
        parts.append(f'<span class="verdict-cell">{html("no verdict yet")}</span>')
    else:
        shown = join([badge(verdict["verdict"], verdict.get("robust")), claim_strip(claims) if claims else Raw("")])
        parts += [
            f'<span class="verdict-cell">{shown}</span>',
            f'<span class="reason-cell">{html(verdict["reason"])}</span>',
            f'<span class="size-cell">{sizes(verdict)}</span>',
            f'<span class="share-cell">{ways(verdict)}</span>',
        ]
    parts.append(f'<span class="spark-cell">{spark(source.of("transfer", name))}</span>')
    body = join(
        [
            _description(suite, source),
            full_pair(suite) if suite is not None and has_example(suite) else Raw(""),
            _judgement(name, source, figures, claims) if claims or _asked(verdict) else Raw(""),
            _circuit(name, source, graph, _asked(verdict)),
            measurements(name, source, figures),
        ]
    )
    size = verdict["edges"] if verdict is not None and known(verdict.get("edges")) else float("inf")
    values = {
        "place": place,
        "verdict": VERDICTS.index(verdict["verdict"]) if verdict is not None else len(VERDICTS),
        "size": int(size) if size != float("inf") else "",
        "share": f"{weaker_way(verdict):.4f}" if verdict is not None else "",
    }
    data = "".join(f' data-{key}="{value}"' for key, value in values.items())
    kind = escape(verdict["verdict"]) if verdict is not None else "none"
    return Raw(
        f'<details class="behaviour" id="{anchor}" data-kind="{kind}" data-behaviour="{escape(name)}"{data}>'
        f'<summary>{"".join(parts)}</summary>\n<div class="opened">{body}</div>\n</details>'
    )


def _judgement(name: str, source: Source, figures: Figures, claims: list[dict[str, Any]]) -> Raw:
    """What is claimed, beside where along depth the information is moved."""
    left = join([Raw("<h4>What the verdict claims</h4>"), claims_table(claims, source)])
    return Raw(f'<div class="judgement"><div>{left}</div><div>{depth_figure(name, source, figures)}</div></div>')


def _asked(verdict: dict[str, Any] | None) -> bool:
    """Whether a circuit was looked for."""
    return verdict is not None and verdict["verdict"] in JUDGED


def _example(suite: dict[str, Any] | None) -> Raw:
    return compact_pair(suite) if suite is not None and has_example(suite) else Raw("")


def _circuit(name: str, source: Source, graph: int | None, asked: bool) -> Raw:
    if graph is not None:
        return join([Raw("<h4>The circuit</h4>"), graph_holder(graph, name)])
    rows = source.of("circuits", name)
    return join([Raw("<h4>The circuit</h4>"), without(name, source)]) if asked or rows else Raw("")


def _description(suite: dict[str, Any] | None, source: Source) -> Raw:
    if suite is None:
        return note(source.missing("suite"))
    said = Raw(re.sub("`([^`]+)`", r"<code>\1</code>", html(suite["description"])))
    parts = [tag("p", said, class_="lead")]
    if known(suite.get("reason")) or not suite["expressible"]:
        parts.append(note(suite["reason"] if known(suite.get("reason")) else "The tokenizer cannot express it."))
    parts.append(note(f"{count(suite['train_pairs'])} pairs to search on, {count(suite['heldout_pairs'])} held out."))
    return join(parts)


def sizes(verdict: dict[str, Any]) -> Raw:
    """Nodes and edges of the circuit, and edges of the dense model's own."""
    if not known(verdict.get("nodes")):
        return Raw(f'<span class="none">{DASH}</span>')
    dense = f"<small>dense{SPACE}{count(verdict['dense_edges'])}</small>" if known(verdict.get("dense_edges")) else ""
    nodes, edges = count(verdict["nodes"]), count(verdict.get("edges"))
    return Raw(f"<b>{nodes}</b><i> nodes</i>, <b>{edges}</b><i> edges</i> {dense}")


def ways(verdict: dict[str, Any]) -> Raw:
    """The share moved of its ceiling, both ways."""
    lines = [
        f'<span><span class="way">{arrow}</span> <b>{brief(verdict[moved])}</b> of {brief(verdict[ceiling])}'
        f'<span class="spoken"> {said}</span></span>'
        for moved, ceiling, arrow, said in (
            ("share_moved", "ceiling", "s→d", "sparse to dense"),
            ("share_back", "ceiling_back", "d→s", "dense to sparse"),
        )
        if known(verdict.get(moved))
    ]
    return Raw("".join(lines) or f'<span class="none">{DASH}</span>')
