"""Compare two runs: ``python -m analysis.compare [<run> <run>] [--runs runs]``, by behaviour and by mixed path.

Behaviours are the pairs of the tests, so a small p says that the two runs differ over behaviours like these; whether
another seed would differ as much is what `analysis.seeds` shows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bridges.errors import BridgesError

from .advice import program
from .command import Result, show, table_text
from .comparison import MEASURES, Comparison, compare, latest_pair
from .load import load
from .style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILION, log_scale, new_figure

__all__ = ["Comparison", "compare", "compare_figure", "compare_text", "latest_pair"]

# kind of path -> (colour, marker)
LOOKS = {
    "pure_sparse": (BLACK, "o"),
    "single_d2s": (BLUE, "s"),
    "single_s2d": (VERMILION, "^"),
    "round_trip_dense": (GREEN, "D"),
    "round_trip_sparse": (PURPLE, "v"),
    "double_dsd": (ORANGE, "P"),
    "double_sds": (GREY, "X"),
}


def compare_figure(comparison: Comparison) -> Figure:
    """Each measure by behaviour, first and second joined; then KL by path, first against second."""
    differences = comparison.differences
    measures = [m for m in MEASURES if (differences["measure"] == m).any()]
    panels = len(measures) + bool(len(comparison.paths))
    names = sorted(differences["behaviour"].unique(), reverse=True)
    figure, axes = new_figure(4.2, max(3.6, 1.4 + 0.25 * len(names)), 1, max(1, panels))
    for i, (axis, measure) in enumerate(zip(axes, measures, strict=False)):
        label, logarithmic = MEASURES[measure]
        part = differences[differences["measure"] == measure]
        y = [names.index(name) for name in part["behaviour"]]
        first, second = (part[side].astype(float) for side in ("first", "second"))
        axis.hlines(y, first, second, color="#BBBBBB", linewidth=2, zorder=1)
        axis.plot(first, y, "o", color=GREY, markersize=6, markerfacecolor="white", label=comparison.first)
        axis.plot(second, y, "o", color=BLUE, markersize=5, label=comparison.second)
        axis.set_yticks(range(len(names)), names if i == 0 else [], fontsize=8)
        axis.set_ylim(-0.6, len(names) - 0.4)
        axis.set_xlabel(label, fontsize=9)
        axis.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0.0, 1.0))
        if logarithmic:
            log_scale(axis, "x")
    if len(comparison.paths):
        _paths_panel(axes[len(measures)], comparison)
    elif not measures:
        axes[0].set_axis_off()
        axes[0].text(0.5, 0.5, "verdicts alone could be compared", ha="center", va="center")
    return figure


def _paths_panel(axis: Axes, comparison: Comparison) -> None:
    paths = comparison.paths
    for kind, part in paths.groupby("kind", sort=False):
        colour, marker = LOOKS[str(kind)]
        label = str(kind).replace("_", " ")
        axis.plot(part["first"], part["second"], marker, linestyle="none", color=colour, markersize=5, label=label)
    low, high = paths[["first", "second"]].to_numpy(float).min(), paths[["first", "second"]].to_numpy(float).max()
    axis.plot([low, high], [low, high], color="#BBBBBB", linewidth=1, zorder=0)
    axis.set_xlabel(f"KL of a path, {comparison.first}\n(nats per token)", fontsize=9)
    axis.set_ylabel(f"KL of the same path, {comparison.second}", fontsize=9)
    axis.legend(frameon=False, fontsize=8, loc="best")
    if low > 0:
        log_scale(axis, "x")
        log_scale(axis, "y")


def compare_text(comparison: Comparison) -> str:
    """The comparison for the terminal."""
    first, second = comparison.first, comparison.second
    parts = [f"first: {first}; second: {second}; differences are second minus first (edges: log2 of second / first)"]
    if len(comparison.tests):
        parts += [
            "Wilcoxon signed-rank over behaviours, p corrected over the measures (Holm):",
            table_text(comparison.tests, {"p": ".4g", "p_holm": ".4g", "rank_biserial": "+.2f", "median": "+.3f"}),
            table_text(comparison.differences, {"first": ".3g", "second": ".3g", "difference": "+.3f"}),
        ]
    if len(comparison.verdicts):
        changes = [f"  {b}: {a} → {z}" for b, a, z in comparison.verdicts.itertuples(index=False)]
        parts.append("\n".join(["Verdicts that changed:", *changes]))
    elif not any("verdict" in note for note in comparison.notes):
        parts.append("No verdict changed.")
    if len(comparison.paths):
        lower = int((comparison.paths["difference"] < 0).sum())
        parts += [
            f"KL to the dense model by path (nats per token): lower in {second} on {lower} of {len(comparison.paths)}, "
            f"median difference {comparison.paths['difference'].median():+.4f}. No test: paths share text and bridges.",
            table_text(comparison.paths, {"difference": "+.4f", "first": ".4f", "second": ".4f"}),
        ]
    return "\n\n".join([*parts, *comparison.notes])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog=program("compare"), description=__doc__)
    what = "a run: its folder, or its name below --runs (default: the two finished ones that began last)"
    parser.add_argument("first", nargs="?", help=what)
    parser.add_argument("second", nargs="?", help="the run it is compared with")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder that holds the runs (default: runs)")
    parser.add_argument("--out", type=Path, help="where compare.png and .csv go (default: --runs, or beside the first)")
    given = parser.parse_args(arguments)
    names = [name for name in (given.first, given.second) if name is not None]
    direct = len(names) == 2 and all(Path(name).is_dir() for name in names)

    def make() -> Result:
        if len(names) == 1:
            raise BridgesError(f"{names[0]} is one run; give the one it is to be compared with, or none at all.")
        runs = load(*names) if direct else load(given.runs)
        comparison = compare(runs, *(names or latest_pair(runs)))
        paths = comparison.paths.rename(columns={"path": "behaviour"}).assign(measure="kl")
        rows = comparison.differences, paths[comparison.differences.columns]
        filled = [frame for frame in rows if len(frame)]
        frame = pd.concat(filled, ignore_index=True) if filled else comparison.differences
        frame = frame.rename(columns={"behaviour": "behaviour_or_path"})
        return Result(compare_text(comparison), frame, compare_figure(comparison))

    return show("compare", make, given.out or (Path(names[0]).resolve().parent if direct else given.runs))


if __name__ == "__main__":
    sys.exit(main())
