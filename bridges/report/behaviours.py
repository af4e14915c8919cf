"""One section for each behaviour: an example, who can do it, its circuit, and what the circuit was put to."""

from __future__ import annotations

import re
from typing import Any

from bridges.report.charts import Chart, Figures, Series
from bridges.report.circuits import circuit_graphs, circuit_tables
from bridges.report.evidence import controls, evidence
from bridges.report.markup import Num, Raw, details, html, join, note, section, table, tag
from bridges.report.source import Source
from bridges.report.text import count, escape, known, measured, visible, words
from bridges.report.verdicts import badge

MODELS = {
    "dense": "dense model",
    "sparse": "sparse model",
    "hybrid_d2s": "dense → sparse",
    "hybrid_s2d": "sparse → dense",
    "bigram": "bigram table",
}
DIRECTION_LOOKS = {
    "circuit": ("the circuit’s own", "first"),
    "random_directions": ("random directions", "second"),
    "random_nodes": ("random nodes", "third"),
    "shuffled_bridge": ("shuffled bridge", "fourth"),
    "tokens": ("the tokens alone", "plain"),
    "empty_circuit": ("no circuit", "plain"),
    "ridge_bridge": ("ridge bridge", "fifth"),
    "difference_of_means": ("difference of means", "sixth"),
    "probe": ("linear probe", "plain"),
    "pca": ("first principal component", "faint"),
    "none": ("nothing added", "rule"),
}
PANELS = 9  # site pairs that are drawn


def behaviour_sections(source: Source, figures: Figures, anchors: dict[str, str]) -> Raw:
    """Every behaviour folded, the first one open."""
    if not anchors:
        return section("behaviours", "Behaviours", [note(source.missing("suite"))])
    suite = {row["behaviour"]: row for row in source.rows("suite")}
    verdicts = {row["behaviour"]: row["verdict"] for row in source.rows("verdicts")}
    parts = []
    for i, (name, anchor) in enumerate(anchors.items()):
        head = join([Raw(f"<h3>{html(name)}</h3>"), badge(verdicts[name]) if name in verdicts else Raw("")])
        body = join(
            [
                _example(suite.get(name), source),
                _accuracies(name, source, figures),
                circuit_graphs(name, source, figures),
                circuit_tables(name, source, figures),
                _transfer(name, source, figures),
                controls(name, source),
                evidence(name, source),
            ]
        )
        opened = " open" if i == 0 else ""
        parts.append(f'<details class="behaviour" id="{anchor}"{opened}><summary>{head}</summary>\n{body}\n</details>')
    buttons = (
        '<p class="tools"><button type="button" data-fold="open">Open all</button> '
        '<button type="button" data-fold="close">Close all</button></p>'
    )
    return section("behaviours", "Behaviours", [buttons, *parts])


def _example(row: dict[str, Any] | None, source: Source) -> Raw:
    if row is None:
        return note(source.missing("suite"))
    said = Raw(re.sub("`([^`]+)`", r"<code>\1</code>", html(row["description"])))
    parts = [tag("p", said, class_="lead")]
    if not row["expressible"] or known(row.get("reason")):
        parts.append(note(row["reason"] if known(row.get("reason")) else "The tokenizer cannot express it."))
    if known(row.get("clean")):
        prompts = (("clean", "answer", "Clean prompt"), ("counterfactual", "other", "Counterfactual prompt"))
        parts.append(
            tag(
                "div",
                join(
                    Raw(
                        f'<figure class="prompt"><figcaption>{title}</figcaption>'
                        f'<pre tabindex="0" aria-label="{title}">'
                        f'<code>{_code(row[prompt])}<span class="answer" title="the token that is right here">'
                        f"{html(row[token]) if known(row.get(token)) else ''}</span></code></pre></figure>"
                    )
                    for prompt, token, title in prompts
                    if known(row.get(prompt))
                ),
                class_="pair",
            )
        )
    pairs = f"{count(row['train_pairs'])} pairs to search on, {count(row['heldout_pairs'])} held out."
    return join([*parts, note(pairs)])


def _code(text: str) -> str:
    shown = escape_lines(text)
    return shown.replace("⏎", '<span class="break" aria-hidden="true">⏎</span>')


def escape_lines(text: str) -> str:
    """Escaped, with line breaks both shown and made."""
    return "".join(escape(part) if part != "\n" else "⏎\n" for part in _split(text))


def _split(text: str) -> list[str]:
    parts: list[str] = []
    for i, line in enumerate(text.split("\n")):
        parts += ["\n", line] if i else [line]
    return parts


def _accuracies(name: str, source: Source, figures: Figures) -> Raw:
    rows = [r for r in source.rows("behaviours") if r["behaviour"] == name]
    if not rows:
        return note(source.missing("behaviours"))
    held = [r for r in rows if r["split"] == "heldout"] or rows
    whole = [r for r in held if not r["model"].startswith("hybrid")]
    circuits = [
        {
            "name": "circuit alone" if r["reached"] else "circuit, target missed",
            "accuracy": r["heldout_accuracy"],
            "ablation": r["ablation"],
        }
        for r in source.rows("circuits")
        if r["behaviour"] == name and r["method"] == "learned" and r["model"] == "sparse"
    ][:1]
    names = [MODELS[r["model"]] for r in whole] + [r["name"] for r in circuits]
    dots = Series("accuracy", "first", line=False)
    for i, row in enumerate([*whole, *circuits]):
        dots.add(i, row["accuracy"], row.get("accuracy_low"), row.get("accuracy_high"))
    panels = [Chart("dots", "Whole models", "", "share decided rightly", [dots], ticks=names, share=True)]
    crossed = sorted({int(r["pair"]) for r in held if known(r["pair"]) and r["model"].startswith("hybrid")})
    lines = [Series(MODELS[model], look) for model, look in (("hybrid_d2s", "second"), ("hybrid_s2d", "third"))]
    for row in sorted((r for r in held if known(r["pair"])), key=lambda r: r["pair"]):
        line = lines[0 if row["model"] == "hybrid_d2s" else 1]
        line.add(crossed.index(row["pair"]), row["accuracy"], row["accuracy_low"], row["accuracy_high"])
    ticks = [str(pair) for pair in crossed]
    panels.append(Chart("lines", "Hybrids", "site pair", "share decided rightly", lines, ticks=ticks, share=True))
    for panel in panels:
        panel.rules = [("chance", 0.5)]
    data = table(
        "Two-way decisions with 95 % intervals; losses in nats, chance is 0.693",
        ["model", "site pair", "split", "accuracy", "loss", "logit difference", "pairs"],
        [
            [
                MODELS[r["model"]],
                Num(count(r["pair"])),
                r["split"],
                Num(measured(r, "accuracy", share=True)),
                Num(measured(r, "loss")),
                Num(measured(r, "logit_difference")),
                Num(count(r["n_pairs"])),
            ]
            for r in rows
        ],
    )
    caption = "Right means that the right token of the two has the larger logit; chance is 50 %. Bars: 95 % intervals."
    if circuits and circuits[0]["ablation"] != "mean":
        caption += (
            f" Here what is outside the circuit is replaced as in its search ({circuits[0]['ablation']}); the verdict "
            "has it at its means."
        )
    return figures.figure("Who can do it", panels, caption, data)


def _transfer(name: str, source: Source, figures: Figures) -> Raw:
    rows = [r for r in source.rows("transfer") if r["behaviour"] == name]
    if not rows:
        return Raw("") if source.rows("transfer") else note(source.missing("transfer"))
    steering = [r for r in rows if r["measurement"] == "steering" and r["quantity"] == "p_counterfactual"]
    data = table(
        "Interventions carried through the bridges, with 95 % intervals",
        ["measurement", "site pair", "direction", "carried", "strength", "quantity", "value", "pairs"],
        [
            [
                words(r["measurement"]),
                f"{r['dense_site']}·{r['sparse_site']}",
                DIRECTION_LOOKS[r["direction"]][0],
                "best channel" if r.get("nodes") == "best" else "all channels",
                Num(number_of(r["strength"])),
                words(r["quantity"]),
                Num(measured(r, "value")),
                Num(count(r["n_pairs"])),
            ]
            for r in rows
        ],
    )
    if not steering:
        return join([tag("h4", "Carried into the dense model"), details("The numbers as a table", data)])
    # One panel for what was carried (the whole circuit, its best channel) and where; a run without the column has one.
    panels_of: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for row in steering:
        nodes = row.get("nodes")
        panels_of.setdefault((int(row["pair"]), str(nodes) if known(nodes) else "all"), []).append(row)
    keys = sorted(panels_of)
    drawn_keys = min(PANELS, len(keys))
    shown = [keys[round(i * (len(keys) - 1) / max(1, drawn_keys - 1))] for i in range(drawn_keys)]
    panels = []
    for key in shown:
        mine = panels_of[key]
        drawn = []
        for direction, (label, look) in DIRECTION_LOOKS.items():
            line = Series(label, look)
            for row in sorted((r for r in mine if r["direction"] == direction), key=lambda r: r["strength"]):
                line.add(row["strength"], row["value"], row["value_low"], row["value_high"])
            if line.points:
                drawn.append(line)
        what = "best channel" if key[1] == "best" else "circuit"
        title = f"{what}, site pair {mine[0]['dense_site']}·{mine[0]['sparse_site']}"
        panels.append(Chart("lines", title, "strength", "P(counterfactual token)", drawn, unit=True))
    caption = (
        "The circuit’s change from clean to counterfactual prompt, carried by the decoder into the dense stream and "
        "added with growing strength; the other lines are directions of equal norm."
    )
    if len(shown) < len(keys):
        caption += f" {len(shown)} of {len(keys)} curves are drawn; the table holds all."
    return figures.figure("Steering the dense model", panels, caption, data, columns=3)


def number_of(value: float) -> str:
    """A strength, without needless zeros."""
    return visible(f"{value:g}").replace("-", "−")
