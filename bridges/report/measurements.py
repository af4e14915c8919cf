"""What else was measured of one behaviour: who can do it, what else crosses the bridges, controls, every circuit."""

from __future__ import annotations

from typing import Any

from bridges.report.charts import Chart, Figures, Series
from bridges.report.markup import Num, Raw, details, join, table
from bridges.report.source import Source
from bridges.report.text import DASH, brief, count, known, measured, number, percent, words

MODELS = {
    "dense": "dense model",
    "sparse": "sparse model",
    "hybrid_d2s": "dense → sparse",
    "hybrid_s2d": "sparse → dense",
    "bigram": "bigram table",
}
STEERING = {
    "circuit": ("the circuit’s change", "first"),
    "random_directions": ("random directions", "second"),
    "none": ("nothing added", "rule"),
}

Row = dict[str, Any]


def measurements(name: str, source: Source, figures: Figures) -> Raw:
    """Every further measurement, each folded; what the run has not measured is left out."""
    return join(
        [
            _fold("Who can do it: accuracy of models and hybrids", _accuracies(name, source, figures)),
            _fold("Necessity in the dense model, and steering it", _beside(name, source, figures)),
            _fold("Every control", _controls(name, source)),
            _fold("Every circuit that was searched for", _circuits(name, source, figures)),
            _fold("Agreement of the models", _agreement(name, source)),
        ]
    )


def _fold(title: str, content: Raw) -> Raw:
    return details(title, content, "more") if content else Raw("")


def _accuracies(name: str, source: Source, figures: Figures) -> Raw:
    rows = source.of("behaviours", name)
    if not rows:
        return Raw("")
    held = [r for r in rows if r["split"] == "heldout"] or rows
    whole = [r for r in held if not known(r["bridge"])]
    crossed = sorted((r for r in held if known(r["bridge"])), key=lambda r: r["bridge"])
    dots = Series("accuracy", "first", line=False)
    for i, row in enumerate(whole):
        dots.add(i, row["accuracy"], row["accuracy_low"], row["accuracy_high"])
    names = [MODELS[r["model"]] for r in whole]
    panels = [Chart("dots", "Whole models", "", "share answered rightly", [dots], ticks=names, share=True)]
    bridges = sorted({int(r["bridge"]) for r in crossed})
    lines = [Series(MODELS[model], look) for model, look in (("hybrid_d2s", "second"), ("hybrid_s2d", "third"))]
    for row in crossed:
        line = lines[0 if row["model"] == "hybrid_d2s" else 1]
        line.add(bridges.index(row["bridge"]), row["accuracy"], row["accuracy_low"], row["accuracy_high"])
    ticks = [str(bridge) for bridge in bridges]
    panels.append(Chart("lines", "Hybrids", "bridge", "share answered rightly", lines, ticks=ticks, share=True))
    for panel in panels:
        panel.rules = [("chance", 0.5)]
    data = table(
        "Two-way decisions with 95 % intervals; losses in nats, chance is 0.693",
        ["model", "bridge", "split", "accuracy", "loss", "logit difference", "pairs"],
        [
            [
                MODELS[r["model"]],
                Num(count(r["bridge"])),
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
    return figures.figure("Who can do it", panels, caption, data)


def _beside(name: str, source: Source, figures: Figures) -> Raw:
    rows = [r for r in source.of("transfer", name) if r["measurement"] in ("necessity", "steering")]
    if not rows:
        return Raw("")
    data = table(
        "Necessity and steering at the selected bridge, with 95 % intervals",
        ["measurement", "bridge", "direction", "strength", "quantity", "value", "pairs"],
        [
            [
                words(r["measurement"]),
                Num(count(r["bridge"])),
                words(r["direction"]),
                Num(f"{r['strength']:g}"),
                words(r["quantity"]),
                Num(measured(r, "value")),
                Num(count(r["n_pairs"])),
            ]
            for r in rows
        ],
    )
    drawn = []
    for direction, (label, look) in STEERING.items():
        line = Series(label, look)
        for row in sorted((r for r in rows if r["direction"] == direction), key=lambda r: r["strength"]):
            if row["measurement"] == "steering":
                line.add(row["strength"], row["value"], row["value_low"], row["value_high"])
        drawn.append(line)
    chart = Chart("lines", "", "strength", "P(the other prompt’s token)", drawn, unit=True)
    caption = "The circuit’s change from one prompt to the other, decoded and added at shared positions."
    return data if chart.empty else figures.figure("Steering the dense model", [chart], caption, data)


def _controls(name: str, source: Source) -> Raw:
    """Every measurement, averaged over its draws."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in source.of("controls", name):
        key = tuple(
            row[c] for c in ("model", "method", "seed", "control", "quantity", "split", "ablation", "size", "decides")
        )
        groups.setdefault(key, []).append(row)
    if not groups:
        return Raw("")
    circuits = {key[:3] for key in groups}
    return table(
        "Controls, averaged over draws; with 95 % intervals where there is one draw",
        ["control", "measured", "split", "ablation", "nodes", "value", "compared with", "draws", "decides"],
        [
            [
                words(key[3]) + (f" ({key[0]}, {words(key[1])}, seed {key[2]})" if len(circuits) > 1 else ""),
                words(key[4]),
                key[5],
                key[6],
                Num(count(key[7])),
                Num(measured(group[0], "value") if len(group) == 1 else _spread([r["value"] for r in group])),
                Num(number(_mean([r["reference"] for r in group]))),
                Num(count(len(group))),
                "decides" if key[8] else "",
            ]
            for key, group in groups.items()
        ],
    )


def _mean(values: list[float]) -> float | None:
    given = [v for v in values if known(v)]
    return sum(given) / len(given) if given else None


def _spread(values: list[float]) -> str:
    given = [v for v in values if known(v)]
    return f"{number(_mean(given))} ({number(min(given))} to {number(max(given))})" if given else DASH


def _circuits(name: str, source: Source, figures: Figures) -> Raw:
    rows = source.of("circuits", name)
    if not rows:
        return Raw("")
    data = table(
        "Circuits: FVU is the variance of the model’s logit difference left unexplained; losses are two-way, in nats",
        [
            "model",
            "method",
            "seed",
            "objective",
            "ablation",
            "nodes",
            "protected",
            "edges",
            "share of edges",
            "target",
            "reached",
            "on training pairs",
            "held-out FVU",
            "held-out accuracy",
            "held-out loss",
            "whole model’s loss",
        ],
        [
            [
                r["model"],
                words(r["method"]),
                Num(count(r["seed"])),
                words(r["objective"]),
                r["ablation"],
                Num(count(r["nodes"])),
                Num(count(r["protected"])),
                Num(count(r["edges"])),
                Num(percent(r["edges"] / r["total_edges"] if r["total_edges"] else None, 2)),
                Num(brief(r["target"])),
                "yes" if r["reached"] else "no",
                Num(number(r["train_loss"])),
                Num(number(r["heldout_fvu"])),
                Num(percent(r["heldout_accuracy"])),
                Num(number(r["heldout_loss"])),
                Num(number(r["full_loss"])),
            ]
            for r in rows
        ],
    )
    return join([data, _faithfulness(name, source, figures)])


def _faithfulness(name: str, source: Source, figures: Figures) -> Raw:
    rows = [r for r in source.of("faithfulness", name) if r["fraction"] > 0 and r["split"] == "heldout"]
    if not rows:
        return Raw("")
    looks = ("first", "second", "third", "fourth", "fifth", "sixth")
    panels = []
    for model in ("sparse", "dense"):
        lines: dict[tuple[str, str, int], Series] = {}
        for r in sorted((r for r in rows if r["model"] == model), key=lambda r: r["fraction"]):
            key = (r["method"], r["level"], int(r["seed"]))
            label = f"{words(r['method'])}, {r['level']}s" + (f", seed {r['seed']}" if r["seed"] else "")
            lines.setdefault(key, Series(label, looks[len(lines) % len(looks)])).add(100 * r["fraction"], r["f"])
        axes = ("share kept (%)", "faithfulness f")
        panels.append(Chart("lines", f"{model} model", *axes, list(lines.values()), log_x=True))
        panels[-1].rules = [("whole model", 1.0)] if lines else []
    data = table(
        "Faithfulness by share kept, with the area under its curve (CPR) and under its distance from one (CMD)",
        ["model", "method", "nodes or edges", "seed", "ablation", "share kept", "f", "CPR", "CMD", "pairs"],
        [
            [
                r["model"],
                words(r["method"]),
                r["level"],
                Num(count(r["seed"])),
                r["ablation"],
                Num(percent(r["fraction"])),
                *(Num(number(r[c])) for c in ("f", "cpr", "cmd")),
                Num(count(r["n_pairs"])),
            ]
            for r in rows
        ],
    )
    caption = "f is 0 with every node at its mean and 1 for the whole model."
    return figures.figure("Faithfulness as the circuit grows", panels, caption, data)


def _agreement(name: str, source: Source) -> Raw:
    rows = source.of("agreement", name)
    if not rows:
        return Raw("")
    return table(
        "How far two models agree, with 95 % intervals",
        ["models", "quantity", "value", "prompts"],
        [
            [f"{r['first']} and {r['second']}", words(r["quantity"]), Num(measured(r, "value")), Num(count(r["n"]))]
            for r in rows
        ],
    )
