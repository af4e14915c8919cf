"""Training curves, and what the run was made with."""

from __future__ import annotations

from typing import Any

import numpy as np

from bridges.report.charts import Chart, Figures, Series
from bridges.report.markup import Num, Raw, details, facts, html, join, note, section, table, tag
from bridges.report.source import Source
from bridges.report.text import DASH, count, number, percent
from bridges.storage.tables import schema

POINTS = 240  # of a curve; a longer one is drawn as the means of equal stretches
ROWS = 24  # of the table below the curves
# panel title -> axis label, columns with their legend and look, logarithmic
PANELS: tuple[tuple[str, str, tuple[tuple[str, str, str], ...], bool], ...] = (
    ("Total loss", "loss", (("total", "total", "first"),), False),
    ("Next token", "nats per token", (("ce", "cross-entropy", "first"), ("kl", "KL(dense ‖ sparse)", "second")), True),
    (
        "Crossings, summed over bridges",
        "nats per token",
        (("kl_d2s", "KL dense → sparse", "first"), ("kl_s2d", "KL sparse → dense", "second")),
        True,
    ),
    (
        "Bridges, summed over bridges",
        "NMSE",
        (("nmse_encoder", "encoders", "first"), ("nmse_decoder", "decoders", "second")),
        True,
    ),
    (
        "Share of weights that are nonzero",
        "share",
        (("l0_actual", "nonzero", "first"), ("l0_target", "allowed", "faint")),
        True,
    ),
    ("Learning rate", "learning rate", (("lr", "learning rate", "first"),), False),
    ("Gradient before clipping", "RMS", (("grad_rms", "gradient RMS", "first"),), True),
    ("Dead MLP neurons", "neurons", (("dead_neurons", "dead neurons", "first"),), False),
)


def training_section(source: Source, figures: Figures) -> Raw:
    """Small panels over training tokens."""
    frame = source.table("training")
    if frame is None:
        return section("training", "Training", [note(source.missing("training"))])
    parts = np.array_split(np.arange(len(frame)), min(POINTS, len(frame)))
    tokens = frame["tokens"].to_numpy(float) / 1e6
    panels = []
    for title, axis, columns, log in PANELS:
        drawn = []
        for column, name, look in columns:
            if column not in frame or not frame[column].notna().any():
                continue
            values = frame[column].to_numpy(float)
            line = Series(name, look)
            for part in parts:
                present = part[np.isfinite(values[part])]
                if len(present):
                    line.add(tokens[present].mean(), values[present].mean())
            drawn.append(line)
        chart = Chart("lines", title, "training tokens (millions)", axis, drawn, log_y=log, share=axis == "share")
        if not chart.empty:
            panels.append(chart)
    kept = [c.name for c in schema("training").columns if c.name in frame and not c.name.endswith("_weighted")]
    chosen = np.unique(np.linspace(0, len(frame) - 1, min(ROWS, len(frame))).round().astype(int))
    data = table(
        f"Training: {count(len(chosen))} of {count(len(frame))} logged steps",
        kept,
        [
            [count(row[c]) if c == "step" else Num(_cell(c, row[c])) for c in kept]
            for row in frame.iloc[chosen].to_dict("records")
        ],
    )
    caption = "Loss terms are raw, before their coefficients; long curves are means over equal stretches."
    return section("training", "Training", [figures.figure("Training curves", panels, caption, data, columns=3)])


def _cell(column: str, value: Any) -> str:
    if column in ("tokens", "dead_neurons"):
        return count(value)
    return percent(value, 2) if column.startswith("l0") else number(value)


def settings_section(source: Source) -> Raw:
    """Every setting, versions and machine, and how far the run came."""
    groups = {key: value for key, value in source.config.items() if isinstance(value, dict)}
    single = {key: value for key, value in source.config.items() if not isinstance(value, dict)}
    parts = [_group("general", single), *(_group(name, values) for name, values in groups.items())]
    stages = [[name, state] for name, state in source.stages.items()]
    return section(
        "settings",
        "Settings and environment",
        [
            tag("p", "Enough to run it again: the same settings and versions give the same tables."),
            tag("div", join(parts), class_="folds"),
            tag("h3", "Environment"),
            _environment(source.environment),
            tag("h3", "Stages"),
            table("How far the run came", ["stage", "status"], stages) if stages else note("No stage is recorded."),
        ],
    )


def _group(name: str, values: dict[str, Any]) -> Raw:
    return details(name, facts((key, _value(value)) for key, value in _flat(values).items()), "fold")


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return out


def _value(value: Any) -> Raw:
    if isinstance(value, list):
        value = ", ".join(map(str, value)) or "none"
    elif isinstance(value, bool):
        value = "yes" if value else "no"
    return Raw(f"<code>{html(DASH if value in (None, '') else value)}</code>")


def _environment(values: dict[str, Any]) -> Raw:
    if not values:
        return note("The run has no environment.json.")
    return facts((key, _value(value)) for key, value in _flat(values).items())
