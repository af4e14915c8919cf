"""The sparsity-fidelity frontier: distance from the dense model against the number of weights left."""

from __future__ import annotations

from typing import Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.load import Runs
from analysis.overview import overview
from analysis.style import BLACK, BLUE, GREY, VERMILION, log_scale, new_figure
from bridges.errors import BridgesError

Line = Literal["-", "--", ":"]

# column of the overview -> (label, colour, line style, marker; None where it is not drawn as points)
MEASURES: dict[str, tuple[str, str, Line, str | None]] = {
    "kl_bigram": ("bigram table", GREY, "--", None),
    "kl_sparse": ("sparse model", BLACK, "-", "o"),
    "kl_d2s": ("dense → sparse,\nmean of single crossings", BLUE, "-", "s"),
    "kl_s2d": ("sparse → dense,\nmean of single crossings", VERMILION, "-", "^"),
    "kl_d2s_untrained": ("dense → sparse,\nuntrained bridges", BLUE, ":", None),
    "kl_s2d_untrained": ("sparse → dense,\nuntrained bridges", VERMILION, ":", None),
}
TABLE_ONLY = ("kl_d2s_ridge", "kl_s2d_ridge")
COLUMNS = ["model", "settings", "sparsity", "seed", "run", "fraction", "measure", "kl"]


def frontier(runs: Runs) -> pd.DataFrame:
    """KL to the dense model by nonzero fraction: one row per finished run and measure.

    Columns: model, settings (what else differs between runs of the same model and sparsity, empty where only
    the seed does), sparsity, seed, run, fraction (nonzero weights), measure (see `MEASURES`), kl (nats).

    Raises:
        BridgesError: no finished run has been evaluated.
    """
    frame = overview(runs)
    measured = frame["fraction"].notna() & frame["kl_sparse"].notna()
    frame = frame[(frame["status"] == "finished") & measured].copy()
    if frame.empty:
        raise BridgesError("No finished run has been evaluated yet, so there is no frontier to draw.")
    frame["settings"] = _settings_label(frame, _splitting(frame, runs.varying))
    measures = [*MEASURES, *TABLE_ONLY]
    keep = [column for column in COLUMNS if column not in ("measure", "kl")]
    long = frame.melt(id_vars=keep, value_vars=measures, var_name="measure", value_name="kl")
    long = long.dropna(subset="kl")
    order = ["model", "settings", "measure", "fraction", "seed", "run"]
    return long[COLUMNS].sort_values(order, kind="stable", ignore_index=True)


def frontier_figure(frame: pd.DataFrame) -> Figure:
    """Draw `frontier`: seeds as points, their mean as a line, one panel per model and settings."""
    panels = list(frame.groupby(["model", "settings"], sort=True, dropna=False))
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = new_figure(4.3, 3.7, rows, columns, right=2.6)
    for axis, ((model, settings), part) in zip(axes, panels, strict=False):
        _panel(axis, part)
        axis.set_title("\n".join(filter(None, [str(model), str(settings)])), loc="left", fontsize=10)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    for i, axis in enumerate(axes):
        if i % columns == 0:
            axis.set_ylabel("KL to the dense model (nats per token)")
        axis.set_xlabel("nonzero weights")
    # From the worst to the best, as the lines lie in the figure.
    drawn = frame.groupby("measure")["kl"].mean().sort_values(ascending=False)
    handles = [
        Line2D([], [], color=colour, linestyle=line, marker=marker, markersize=5, label=label)
        for label, colour, line, marker in (MEASURES[name] for name in drawn.index if name in MEASURES)
    ]
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=9, labelspacing=1.2)
    return figure


def _panel(axis: Axes, part: pd.DataFrame) -> None:
    for name, (_, colour, line, marker) in MEASURES.items():
        rows = part[part["measure"] == name]
        if rows.empty:
            continue
        if name == "kl_bigram":
            axis.axhline(rows["kl"].mean(), color=colour, linestyle=line, linewidth=1.2)
            continue
        # By the promised sparsity: the fraction reached may differ in the last digit between seeds.
        mean = rows.groupby("sparsity")[["fraction", "kl"]].mean().sort_values("fraction")
        x, y = mean["fraction"].tolist(), mean["kl"].tolist()
        if marker is None:
            if len(mean) == 1:  # a line of one point would not show
                x, y = [x[0] / 1.3, x[0] * 1.3], y * 2
            axis.plot(x, y, color=colour, linestyle=line, linewidth=1.2)
        else:
            axis.plot(x, y, color=colour, linestyle=line, linewidth=1.8)
            axis.plot(
                rows["fraction"],
                rows["kl"],
                linestyle="none",
                marker=marker,
                color=colour,
                markersize=5,
                markeredgecolor="white",
                markeredgewidth=0.6,
            )
    axis.margins(x=0.08)
    log_scale(axis, "x", percent=True)
    if bool((part["kl"] > 0).all()):
        log_scale(axis, "y")


def _splitting(frame: pd.DataFrame, varying: list[str]) -> list[str]:
    """Settings besides the seed that differ between runs of one model and sparsity: those are no repeats."""
    groups = frame.groupby(["model", "sparsity"], dropna=False)
    candidates = [c for c in varying if c in frame.columns and c not in ("model", "sparsity", "seed")]
    return [c for c in candidates if bool((groups[c].nunique(dropna=False) > 1).any())]


def _settings_label(frame: pd.DataFrame, keys: list[str]) -> list[str]:
    return [", ".join(f"{key}={row[key]}" for key in keys) for _, row in frame.iterrows()]
