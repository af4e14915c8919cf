"""The top of the page: the answer, how many behaviours there are of each verdict, and the clearest one's circuit."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from bridges.report.charts import Figures
from bridges.report.circuits import graph_holder
from bridges.report.depth import depth_chart
from bridges.report.markup import Raw, facts, html, join, note, tag
from bridges.report.prompts import compact_pair, has_example
from bridges.report.scope import scope_text
from bridges.report.source import Source
from bridges.report.text import brief, count, counted, escape, known, percent
from bridges.report.verdicts import MEANINGS, SIGNS, badge, label, model_name, verdict_rows
from bridges.storage.tables.verdicts import VERDICTS


def between(source: Source) -> str:
    """The two models that stand beside each other."""
    weights = source.rows("sparsity")
    kept, numel = (sum(int(r[c]) for r in weights) for c in ("nonzeros", "numel"))
    share = f", {percent(kept / numel, 1)} of its weights nonzero" if numel else ""
    return f"{model_name(source)} and a weight-sparse model{share}"


def tally(source: Source) -> Raw:
    """One button for each verdict that occurs, which shows only its behaviours."""
    counts = Counter(row["verdict"] for row in source.rows("verdicts"))
    buttons = join(
        f'<button type="button" class="tally-item {SIGNS[verdict][1]}" data-kind="{escape(verdict)}" '
        'aria-pressed="false" '
        f'title="{escape(MEANINGS[verdict])}"><span aria-hidden="true">{SIGNS[verdict][0]}</span> '
        f"<b>{count(counts[verdict])}</b> {html(label(verdict))}</button>"
        for verdict in VERDICTS
        if counts[verdict]
    )
    if not buttons:
        return note(source.missing("verdicts"))
    return Raw(f'<div class="tally" role="group" aria-label="Show behaviours by verdict">{buttons}</div>')


def alarm(source: Source) -> Raw:
    """What a reader of a narrow run has to know before anything else: what its models know, and what they do not."""
    rows = source.rows("scope")
    return Raw(f'<p class="alarm" role="note">{html(scope_text(rows))}</p>') if rows else Raw("")


def hero(source: Source, figures: Figures, anchors: dict[str, str], graphs: dict[str, int | None]) -> Raw:
    """The first behaviour in order that has a circuit: what it is, where it moves the answer, and the core."""
    name = next((n for n in anchors if graphs.get(n) is not None), None)
    if name is None:
        return Raw("")
    verdict = verdict_rows(source).get(name)
    suite = next((row for row in source.of("suite", name)), None)
    number = graphs[name]
    assert number is not None
    chart = depth_chart(source.of("transfer", name), "interchange")
    shown = badge(verdict["verdict"], verdict.get("robust")) if verdict is not None else Raw("")
    parts = [
        Raw('<p class="eyebrow">The clearest behaviour</p>'),
        Raw(f'<h2><a href="#{anchors[name]}">{html(name)}</a> {shown}</h2>'),
    ]
    if suite is not None:
        said = Raw(re.sub("`([^`]+)`", r"<code>\1</code>", html(suite["description"])))
        parts.append(tag("p", said))
        if has_example(suite):
            parts.append(compact_pair(suite))
    # Beside the circuit on a wide screen, below it on a narrow one.
    more = [facts(_figures(verdict))] if verdict is not None else []
    if chart is not None:
        chart.title = "Share of the dense logit difference moved"
        chart.series = [series for series in chart.series if series.line]
        more.append(figures.panels([chart], "Share moved over depth"))
    return Raw(
        f'<div class="hero"><div class="hero-text">{join(parts)}</div>'
        f'<div class="hero-graph">{graph_holder(number, name)}</div><div class="hero-more">{join(more)}</div></div>'
    )


def _figures(verdict: dict[str, Any]) -> list[tuple[str, str]]:
    found = []
    if known(verdict.get("nodes")):
        size = f"{counted(verdict['nodes'], 'node')}, {counted(verdict.get('edges'), 'edge')}"
        found.append(("circuit", size))
    if known(verdict.get("dense_edges")):
        found.append(("dense model’s own", counted(verdict["dense_edges"], "edge")))
    if known(verdict.get("fvu")):
        found.append(("unexplained", brief(verdict["fvu"])))
    if known(verdict.get("accuracy_without")):
        found.append(("accuracy without", percent(verdict["accuracy_without"], 0)))
    return found


def meanings() -> Raw:
    """What each verdict means."""
    items = join(f"<div><dt>{badge(verdict)}</dt><dd>{html(MEANINGS[verdict])}</dd></div>" for verdict in VERDICTS)
    return Raw(
        f'<details class="more" id="meanings"><summary>What the seven verdicts mean</summary>'
        f'<dl class="meanings">{items}</dl></details>'
    )
