"""Seeds: ``python -m analysis.seeds runs/`` says how far figures and verdicts move when only the seed changes.

A difference between two settings that is smaller than this spread is no difference, and a behaviour that is
`reproduced` under one seed and `not` under another is neither.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bridges.errors import BridgesError
from bridges.storage.tables.verdicts import VERDICTS

from .circuits import geometric_mean, selected_circuits
from .command import Result, run_command, table_text, unfinished_text
from .load import Runs
from .overview import overview
from .settings import seed_groups
from .stability import seed_verdicts, stability_figure, stability_text, verdict_stability
from .style import BLACK, BLUE, new_figure
from .verdicts import tally

# figure -> its meaning; those of verdicts are named after the verdict
FIGURES = {
    "kl_d2s": "KL dense → sparse (nats per token)",
    "kl_s2d": "KL sparse → dense (nats per token)",
    "ce_sparse": "cross-entropy, sparse model\n(nats per token)",
    "edges": "edges of sparse circuits,\ngeometric mean",
    **{verdict: f"verdicts: {verdict}" for verdict in VERDICTS},
}
TEXT_FIGURES = ("kl_d2s", "kl_s2d", "ce_sparse")
COLUMNS = ["group", "figure", "seed", "run", "value"]


def seed_values(runs: Runs) -> pd.DataFrame:
    """The key figures of every run that another one repeats with another seed.

    Columns: group (the settings that its runs share), figure (see `FIGURES`), seed, run, value. ``edges`` is the
    geometric mean over the behaviours whose sparse circuit reached the target, with edges, in *every* run of the group:
    means over different behaviours would differ without any run differing.

    Raises:
        BridgesError: no two finished runs differ in the seed alone, or they have measured nothing.
    """
    groups = seed_groups(runs)
    losses = overview(runs).set_index("run")
    values = {figure: groups["run"].map(losses[figure]).astype(float) for figure in TEXT_FIGURES}
    values["edges"] = groups["run"].map(_common_edges(runs, groups)).astype(float)
    counts = tally(runs)
    for verdict in VERDICTS:
        if counts.loc[counts.index.isin(groups["run"]), verdict].any():
            values[verdict] = groups["run"].map(counts[verdict]).astype(float)
    frames = [groups.assign(figure=figure, value=column) for figure, column in values.items()]
    found = pd.concat(frames, ignore_index=True).dropna(subset="value")[COLUMNS].reset_index(drop=True)
    if found.empty:
        raise BridgesError("The runs that repeat each other have no figures that can be read here.")
    return found


def spread(values: pd.DataFrame) -> pd.DataFrame:
    """`seed_values` by group and figure.

    Columns: group, figure, n (runs), mean, sd (of the sample), min, max, cv (sd / mean; NaN where the mean is 0).
    """
    grouped = values.groupby(["group", "figure"], sort=False)["value"]
    frame = grouped.agg(n="count", mean="mean", sd="std", min="min", max="max").reset_index()
    frame["cv"] = frame["sd"] / frame["mean"].abs().replace(0.0, np.nan)
    rank = {figure: i for i, figure in enumerate(FIGURES)}
    order = frame["figure"].map(rank)
    return frame.assign(order=order).sort_values(["group", "order"], ignore_index=True).drop(columns="order")


def _common_edges(runs: Runs, groups: pd.DataFrame) -> dict[str, float]:
    if "circuits" not in runs or not _has(runs["circuits"], groups["run"]):
        return {}
    circuits = selected_circuits(runs)
    searched = circuits[circuits["model"] == "sparse"].merge(groups[["group", "run"]], on="run")
    # Runs that searched for no circuits are no obstacle to the others.
    searching = searched.groupby("group")["run"].nunique()
    reached = searched[searched["reached"] & (searched["edges"] > 0)]
    runs_of = reached.groupby(["group", "behaviour"])["run"].transform("nunique")
    shared = runs_of == reached["group"].map(searching)
    return {str(run): geometric_mean(part) for run, part in reached[shared].groupby("run")["edges"]}


def _has(frame: pd.DataFrame, names: pd.Series) -> bool:
    return "run" in frame and bool(frame["run"].isin(names).any())


def seeds_figure(values: pd.DataFrame) -> Figure:
    """Draw `seed_values`: one panel per figure, seeds as points, mean and standard deviation beside them."""
    shown = [figure for figure in FIGURES if (values["figure"] == figure).any()]
    groups = sorted(values["group"].unique())
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    longest = max(len(group) for group in groups)
    figure, axes = new_figure(3.2 + min(1.6, 0.05 * longest), 1.2 + 0.42 * len(groups), rows, columns)
    for i, (axis, name) in enumerate(zip(axes, shown, strict=False)):
        _panel(axis, values[values["figure"] == name], groups)
        axis.set_title(FIGURES[name], loc="left", fontsize=9)
        axis.set_yticks(range(len(groups)), [_wrapped(g) for g in groups] if i % columns == 0 else [], fontsize=8)
        if name in VERDICTS:
            axis.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
            low, high = axis.get_xlim()
            axis.set_xlim(min(low, round(low) - 0.5), max(high, round(high) + 0.5))
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    return figure


def _panel(axis: Axes, part: pd.DataFrame, groups: list[str]) -> None:
    axis.grid(False)
    axis.grid(axis="x", color="#E6E6E6", linewidth=0.8)
    for y, group in enumerate(groups):
        seeds = part.loc[part["group"] == group, "value"]
        if seeds.empty:
            continue
        axis.plot(seeds, [y] * len(seeds), "o", color=BLUE, markersize=5, markeredgecolor="white", alpha=0.9)
        axis.errorbar(seeds.mean(), y + 0.22, xerr=seeds.std(), fmt="|", color=BLACK, capsize=3, markersize=7)
    axis.set_ylim(len(groups) - 0.5, -0.5)
    axis.margins(x=0.1)


def _wrapped(group: str) -> str:
    return group.replace(", ", "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""

    def make(runs: Runs, _: object) -> Result:
        values = seed_values(runs)
        text = "Runs that differ in the seed alone; sd of the sample, cv = sd / mean:\n\n" + table_text(spread(values))
        further: tuple[Result, ...] = ()
        try:
            verdicts = seed_verdicts(runs)
            beside = "\n\n".join(filter(None, [stability_text(runs), unfinished_text(runs)]))
            further = (Result(beside, verdict_stability(runs), stability_figure(verdicts), "seeds-verdicts"),)
        except BridgesError as error:
            text = "\n\n".join(filter(None, [text, str(error), unfinished_text(runs)]))
        return Result(text, values, seeds_figure(values), further=further)

    return run_command("seeds", __doc__, make, arguments)


if __name__ == "__main__":
    sys.exit(main())
