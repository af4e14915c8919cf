"""The sparsity-fidelity frontier: distance from the dense model against the number of weights left.

``python -m analysis.frontier runs/`` adds what else sparsity and width buy: smaller circuits, behaviours reproduced.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from bridges.errors import BridgesError

from .advice import repeat_command
from .circuits import geometric_mean
from .command import Result, run_command, table_text, unfinished_text
from .load import Runs
from .overview import VERDICT_FIGURES, overview
from .settings import arranged, settings_label, splitting
from .sizes import COUNTED, coverage, sizes
from .style import BLACK, BLUE, GREY, PALETTE, VERMILION, log_scale, new_figure

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

# panel of `costs_figure` -> the columns of `costs` it shows, with their line styles and labels
COSTS: dict[str, tuple[tuple[str, Line, str], ...]] = {
    "KL to the dense model (nats per token)": (
        ("kl_sparse", "-", "sparse model"),
        ("kl_d2s", "--", "dense → sparse"),
        ("kl_s2d", ":", "sparse → dense"),
    ),
    "edges, geometric mean": (("edges_sparse", "-", "sparse circuits"), ("edges_dense", "--", "dense circuits")),
    "behaviours reproduced": (("reproduced", "-", "reproduced"), ("judged", ":", "the dense model can")),
}
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # of widths, so that grey print tells them apart too


def frontier(runs: Runs) -> pd.DataFrame:
    """KL to the dense model by nonzero fraction: one row per finished run and measure.

    Columns: model, settings (what else differs between runs of the same model and sparsity, empty where only
    the seed does), sparsity, seed, run, fraction (nonzero weights), measure (see `MEASURES`), kl (nats).

    Raises:
        BridgesError: no finished run has been evaluated.
    """
    frame = _evaluated(runs)
    frame["settings"] = settings_label(frame, splitting(frame, runs.varying, ("model", "sparsity")))
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


def _evaluated(runs: Runs) -> pd.DataFrame:
    """The overview of finished runs that were evaluated."""
    frame = overview(runs)
    measured = frame["fraction"].notna() & frame["kl_sparse"].notna()
    frame = frame[(frame["status"] == "finished") & measured].copy()
    if frame.empty:
        raise BridgesError(
            "No finished run has been evaluated yet, so there is no frontier to draw. `python -m bridges.run` makes "
            "one; `python -m bridges.run resume=<folder>` goes on with one that stopped."
        )
    return frame


def costs(runs: Runs) -> pd.DataFrame:
    """What sparsity and width cost and what they buy: one row per finished run.

    Columns: model, settings (what else differs), sparsity, width (d_model of the sparse model), seed, run, fraction
    and nonzeros (weights left), ``kl_sparse``, ``kl_d2s``, ``kl_s2d`` (nats per token; see `overview`),
    ``edges_sparse`` and ``edges_dense`` (geometric means over the ``behaviours`` whose two circuits have edges and
    reached the same target; where no dense one was searched for, over those of the sparse one), ``reproduced``,
    ``partial``, ``undecided`` and ``judged`` (behaviours with that verdict, and with any about the circuit). NaN where
    a run has no circuits or no verdicts.

    Raises:
        BridgesError: no finished run has been evaluated.
    """
    frame = _evaluated(runs).drop(columns=["model", "sparsity", "seed"])
    frame = frame.merge(arranged(runs, frame["run"].tolist()), on="run")
    kept = runs["sparsity"].groupby("run")["nonzeros"].sum()
    frame["nonzeros"] = frame["run"].map(kept)
    found = pd.DataFrame(index=pd.Index(frame["run"]))
    with suppress(BridgesError):  # without circuits, their columns stay empty
        pairs, searched = sizes(runs), coverage(runs)
        both = pairs["run"].isin(searched.loc[searched["model"] == "dense", "run"])
        counted = pairs[(pairs["status"] == COUNTED) | (~both & (pairs["sparse_edges"] > 0))].groupby("run")
        found["behaviours"] = counted.size().reindex(pairs["run"].unique(), fill_value=0)
        for model in ("sparse", "dense"):
            found[f"edges_{model}"] = counted[f"{model}_edges"].agg(geometric_mean)
    found = found.reindex(columns=["edges_sparse", "edges_dense", "behaviours"])
    found = found.astype(float).rename_axis("run").reset_index()
    frame = frame.merge(found, on="run")
    first = ["model", "settings", "sparsity", "width", "seed", "run", "fraction", "nonzeros"]
    order = ["model", "settings", "width", "sparsity", "seed", "run"]
    shown = [*first, "kl_sparse", "kl_d2s", "kl_s2d", "edges_sparse", "edges_dense", "behaviours", *VERDICT_FIGURES]
    return frame[shown].sort_values(order, kind="stable", ignore_index=True)


def costs_figure(frame: pd.DataFrame) -> Figure:
    """Draw `costs` over the nonzero fraction: one colour per width, one row of panels per model and settings.

    Runs are points, the mean over seeds a line. Numbers beside the circuit sizes say how many behaviours stand behind
    them: means over different behaviours are to be compared with care.
    """
    groups = list(frame.groupby(["model", "settings"], sort=True, dropna=False))
    panels = {name: lines for name, lines in COSTS.items() if frame[[c for c, _, _ in lines]].notna().any(axis=None)}
    widths = sorted(frame["width"].dropna().unique()) or [float("nan")]
    looks = {width: (PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)]) for i, width in enumerate(widths)}
    figure, axes = new_figure(3.9, 3.5, len(groups), len(panels), right=1.5)
    for g, ((model, settings), part) in enumerate(groups):
        for p, (name, lines) in enumerate(panels.items()):
            axis = axes[g * len(panels) + p]
            for width in part["width"].unique():
                rows = part[part["width"] == width] if width == width else part[part["width"].isna()]
                for column, style, _ in lines:
                    _cost_line(axis, rows, column, style, *looks.get(width, (BLACK, "o")))
            axis.set_ylabel(name)
            axis.set_xlabel("nonzero weights")
            axis.margins(x=0.1, y=0.1)
            _cost_key(axis, lines)
            log_scale(axis, "x", percent=True)
            values = part[[c for c, _, _ in lines]].stack()
            if name == "behaviours reproduced":
                axis.set_ylim(bottom=-0.3)
                axis.yaxis.set_major_locator(MaxNLocator(6, integer=True))
            elif len(values) and bool((values > 0).all()):
                log_scale(axis, "y")
        title = "\n".join(filter(None, [str(model), str(settings)]))
        axes[g * len(panels)].set_title(title, loc="left", fontsize=10)
    if len(widths) > 1:
        handles = [Line2D([], [], color=looks[w][0], marker=looks[w][1], label=f"{w:g} wide") for w in widths]
        figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=9)
    return figure


def _cost_line(axis: Axes, rows: pd.DataFrame, column: str, style: Line, colour: str, marker: str) -> None:
    rows = rows[rows[column].notna()]
    places = rows.groupby("sparsity")
    mean = places[["fraction", column]].mean().sort_values("fraction")
    axis.plot(mean["fraction"], mean[column], color=colour, linestyle=style, linewidth=1.6)
    axis.plot(rows["fraction"], rows[column], marker, color=colour, markersize=5, markeredgecolor="white")
    if column == "edges_sparse":
        counts = places["behaviours"].agg(["min", "max"])
        for sparsity, (x, y) in zip(mean.index, mean.to_numpy(), strict=True):
            low, high = counts.loc[sparsity]
            text = f"{low:.0f}" if low == high else f"{low:.0f}–{high:.0f}"
            axis.annotate(text, (x, y), (6, 0), textcoords="offset points", fontsize=7, color=colour, va="center")


def _cost_key(axis: Axes, lines: tuple[tuple[str, Line, str], ...]) -> None:
    handles = [Line2D([], [], color=BLACK, linestyle=style, label=label) for _, style, label in lines]
    axis.legend(handles=handles, frameon=False, fontsize=8, loc="best")


def costs_text(frame: pd.DataFrame) -> str:
    """`costs` for the terminal, without what no run has."""
    formats = {"fraction": ".3%", "sparsity": "g", **dict.fromkeys(("edges_sparse", "edges_dense"), ".1f")}
    formats |= dict.fromkeys(("width", "nonzeros", "behaviours", *VERDICT_FIGURES), ".0f")
    empty = [c for c in ("edges_sparse", "edges_dense", *VERDICT_FIGURES) if frame[c].isna().all()]
    unused = ["behaviours"] if "edges_sparse" in empty else []
    unused += [] if frame["settings"].any() else ["settings"]
    units = "KL in nats per token; edges: geometric means over the behaviours whose circuits reached the target"
    missing = [
        f"No run has {what} yet; `python -m bridges.run` makes them, unless `circuits=none` or `behaviours=none`."
        for what, column in (("circuits with edges", "edges_sparse"), ("verdicts", "reproduced"))
        if column in empty
    ]
    return "\n\n".join([units, table_text(frame.drop(columns=[*empty, *unused]), formats), *missing])


def more_text(runs: Runs, frame: pd.DataFrame) -> str:
    """The command that makes more points where all runs have one sparsity; else empty."""
    if frame["sparsity"].nunique() != 1:
        return ""
    last = next(record for record in runs.records if record.name == frame["run"].iloc[-1])
    sparsity = float(frame["sparsity"].iloc[-1])
    command = repeat_command(last, "sparsity=" + ",".join(f"{sparsity * times:g}" for times in (0.2, 0.5, 2)))
    return f"A frontier takes several sparsities, and these runs have one: `{command}`"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""

    def make(runs: Runs, _: object) -> Result:
        frame = costs(runs)
        text = "\n\n".join(filter(None, [costs_text(frame), more_text(runs, frame), unfinished_text(runs)]))
        # `analysis.summary` writes frontier.png: the distances with their baselines.
        return Result(text, frame, costs_figure(frame), "costs")

    return run_command("frontier", __doc__, make, arguments)


if __name__ == "__main__":
    sys.exit(main())
