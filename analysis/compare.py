"""Compare two runs: ``python -m analysis.compare <run> <run> [--runs runs]``, by behaviour and by mixed path.

Behaviours are the pairs of the tests, so a small p says that the two runs differ over behaviours like these; whether
another seed would differ as much is what `analysis.seeds` shows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bridges.errors import BridgesError, nearest

from .circuits import chosen_circuits
from .command import Result, show, table_text
from .load import RunRecord, Runs, load
from .overview import held_out
from .paired import LEVEL, fewest_differences, paired_tests
from .style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILION, log_scale, new_figure

# measure -> (label, whether it is compared as a ratio: the difference is then that of binary logarithms)
MEASURES = {
    "accuracy": ("held-out accuracy of the sparse model", False),
    "edges": ("edges of the sparse circuit", True),
    "share_moved": ("share of the dense logit difference moved", False),
}
DENSE_KEYS = ("model.name", "model.revision", "model.gguf_file")
SUITE_KEYS = ("behaviours.suite", "behaviours.path")
DECIMALS = 12  # differences that agree so far are tied: rounding errors are no ranks

# kind of path -> (colour, marker)
KINDS = {
    "pure_sparse": (BLACK, "o"),
    "single_d2s": (BLUE, "s"),
    "single_s2d": (VERMILION, "^"),
    "round_trip_dense": (GREEN, "D"),
    "round_trip_sparse": (PURPLE, "v"),
    "double_dsd": (ORANGE, "P"),
    "double_sds": (GREY, "X"),
}


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side. Differences are second minus first.

    Attributes:
        first, second: names of the runs.
        differences: measure, behaviour, first, second, difference (of edges: log2 of second / first).
        tests: measure, n (behaviours), n_changed (those that differ), median (of the differences), rank_biserial
            (-1: the second is smaller everywhere, 1: larger), p (two-sided Wilcoxon signed-rank), p_holm (corrected
            over the measures).
        paths: bridges, path, kind, first, second (KL to the dense model, nats per token), difference.
        verdicts: behaviour, first, second; those that changed.
        notes: what could not be compared, and why.
    """

    first: str
    second: str
    differences: pd.DataFrame
    tests: pd.DataFrame
    paths: pd.DataFrame
    verdicts: pd.DataFrame
    notes: list[str]


def compare(runs: Runs, first: str | Path, second: str | Path) -> Comparison:
    """Paired comparison of two finished runs, given by name or folder.

    Behaviours are paired by name, circuits only where both reached the same target, paths by bridges and name.

    Raises:
        BridgesError: a run is unknown or unfinished, or the two are not comparable: another dense model, or neither a
            behaviour nor a path in common.
    """
    pair = (_find(runs, first), _find(runs, second))
    names = (pair[0].name, pair[1].name)
    if names[0] == names[1]:
        raise BridgesError(f"{names[0]} was given twice; give two runs.")
    for record in pair:
        if record.state != "finished":
            raise BridgesError(f"{record.name} is {record.state}; finish it with `resume=` before comparing it.")
    if other := _unlike(pair, DENSE_KEYS):
        raise BridgesError(f"{names[0]} and {names[1]} are not comparable: they have different dense models ({other}).")
    notes: list[str] = []
    differences, verdicts = _by_behaviour(runs, pair, notes)
    paths = _by_path(runs, pair, notes)
    if differences.empty and verdicts.empty and paths.empty:
        raise BridgesError(f"{names[0]} and {names[1]} are not comparable. " + " ".join(notes))
    changed = verdicts[verdicts["first"] != verdicts["second"]].reset_index(drop=True)
    tests = paired_tests(differences)
    least = fewest_differences()
    if few := tests[tests["n_changed"] < least]["measure"].tolist():
        notes.append(f"With fewer than {least} behaviours that differ no p can be below {LEVEL}: {', '.join(few)}.")
    return Comparison(*names, differences, tests, paths, changed, notes)


def _find(runs: Runs, given: str | Path) -> RunRecord:
    for record in runs.records:
        if str(given) == record.name or Path(given).resolve() == record.folder.resolve():
            return record
    names = [record.name for record in runs.records]
    raise BridgesError(f"There is no readable run {str(given)!r}. {nearest(str(given), names)}")


def _unlike(pair: tuple[RunRecord, RunRecord], keys: Sequence[str]) -> str:
    """The settings in which two runs differ, in words; empty where they do not."""
    values = [(key, pair[0].config.get(key), pair[1].config.get(key)) for key in keys]
    return ", ".join(f"{key}: {first} and {second}" for key, first, second in values if first != second)


def _by_behaviour(runs: Runs, pair: tuple[RunRecord, RunRecord], notes: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Differences of every measure, and the verdicts of both runs."""
    none = pd.DataFrame(columns=["measure", "behaviour", "first", "second", "difference"])
    if unlike := _unlike(pair, SUITE_KEYS):
        notes.append(f"Behaviours are not comparable: they come from different suites ({unlike}).")
        return none, none[["behaviour", "first", "second"]]
    measures = (*MEASURES, "target", "verdict")
    sides = [{measure: _values(runs, record.name, measure) for measure in measures} for record in pair]
    known = [set().union(*(values.index for values in side.values())) for side in sides]
    if all(known) and not known[0] & known[1]:
        notes.append("Behaviours are not comparable: the runs have none in common.")
        return none, none[["behaviour", "first", "second"]]
    for mine, theirs, record in ((known[0], known[1], pair[0]), (known[1], known[0], pair[1])):
        if theirs and mine - theirs:
            notes.append(f"Only {record.name} has {', '.join(sorted(mine - theirs))}.")
    parts = []
    for measure, (label, logarithmic) in MEASURES.items():
        first, second = (side[measure] for side in sides)
        for values, record in ((first, pair[0]), (second, pair[1])):
            if values.empty:
                notes.append(f"{record.name} has no {label}.")
        frame = _side_by_side(first, second)
        if measure == "edges":
            target, other = (frame["behaviour"].map(side["target"]).to_numpy(float) for side in sides)
            same = np.isclose(target, other)
            if not same.all():
                notes.append(f"{int((~same).sum())} circuits were searched for to different targets: edges left out.")
            frame = frame[same].copy()
        scale = (lambda side: np.log2(side.clip(lower=1))) if logarithmic else (lambda side: side)
        frame["difference"] = (scale(frame["second"]) - scale(frame["first"])).astype(float).round(DECIMALS)
        parts.append(frame[["behaviour", "first", "second", "difference"]].assign(measure=measure))
    verdicts = _side_by_side(sides[0]["verdict"], sides[1]["verdict"])
    for side, record in zip(sides, pair, strict=True):
        if side["verdict"].empty:
            notes.append(f"{record.name} has no verdicts.")
    filled = [part for part in parts if len(part)]
    return (pd.concat(filled, ignore_index=True)[none.columns] if filled else none), verdicts


def _side_by_side(first: pd.Series, second: pd.Series) -> pd.DataFrame:
    both = pd.concat({"first": first, "second": second}, axis=1, join="inner")
    return both.rename_axis("behaviour").reset_index().sort_values("behaviour", ignore_index=True)


def _values(runs: Runs, name: str, measure: str) -> pd.Series:
    """One measure of one run by behaviour; of circuits, those of the sparse model that reached their target."""
    table = {"accuracy": "behaviours", "edges": "circuits", "target": "circuits"}.get(measure, "verdicts")
    frame = runs[table] if table in runs else pd.DataFrame(columns=["run"])
    if "run" not in frame or not (frame["run"] == name).any():
        return pd.Series(dtype=object if measure == "verdict" else float)
    if table == "circuits":
        frame = chosen_circuits(runs)
        frame = frame[(frame["model"] == "sparse") & frame["reached"]]
    elif table == "behaviours":
        frame = frame[(frame["model"] == "sparse") & (frame["split"] == "heldout")]
    frame = frame[frame["run"] == name].drop_duplicates("behaviour")
    return frame.set_index("behaviour")[measure].dropna()


def _by_path(runs: Runs, pair: tuple[RunRecord, RunRecord], notes: list[str]) -> pd.DataFrame:
    """KL of the paths both runs measured, under trained bridges or none.

    No test: paths share text, sites and bridges, so their differences are not independent.
    """
    columns = ["bridges", "path", "kind", "first", "second", "difference"]
    text = sorted({key for record in pair for key in record.config if key.startswith(("data.", "eval.sequences"))})
    if other := _unlike(pair, text):
        notes.append(f"Paths are not comparable: they were measured on different text ({other}).")
        return pd.DataFrame(columns=columns)
    frames = []
    for record in pair:
        frame = runs["paths"] if "paths" in runs else pd.DataFrame(columns=["run"])
        frame = frame[frame["run"] == record.name]
        if frame.empty:
            notes.append(f"{record.name} has no mixed paths measured.")
            return pd.DataFrame(columns=columns)
        frame = held_out(frame)
        frames.append(frame[frame["bridges"].isin(("trained", "none")) & frame["kind"].isin(KINDS)])
    keys = ["bridges", "path", "kind"]
    first, second = (frame.drop_duplicates(keys)[[*keys, "kl"]] for frame in frames)
    both = first.merge(second, on=keys, suffixes=("_first", "_second"))
    alone = len(first) + len(second) - 2 * len(both)
    if alone:
        notes.append(f"{alone} paths were measured in one of the runs only.")
    both = both.rename(columns={"kl_first": "first", "kl_second": "second"})
    both["difference"] = both["second"] - both["first"]
    rank = both["kind"].map({kind: i for i, kind in enumerate(KINDS)})
    order = both.assign(rank=rank).sort_values(["rank", "path"], kind="stable", ignore_index=True)
    return order[columns]


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
        least = 1.0 if logarithmic else -np.inf
        first, second = (part[side].astype(float).clip(lower=least) for side in ("first", "second"))
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
        colour, marker = KINDS[str(kind)]
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
    parser = argparse.ArgumentParser(prog="python -m analysis.compare", description=__doc__)
    parser.add_argument("first", help="a run: its folder, or its name below --runs")
    parser.add_argument("second", help="the run it is compared with")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder that holds the runs (default: runs)")
    parser.add_argument("--out", type=Path, help="where compare.png and .csv go (default: --runs, or beside the first)")
    given = parser.parse_args(arguments)
    folders = [Path(name) for name in (given.first, given.second)]
    direct = all(folder.is_dir() for folder in folders)

    def make() -> Result:
        comparison = compare(load(*folders) if direct else load(given.runs), given.first, given.second)
        paths = comparison.paths.rename(columns={"path": "behaviour"}).assign(measure="kl")
        rows = comparison.differences, paths[comparison.differences.columns]
        filled = [frame for frame in rows if len(frame)]
        frame = pd.concat(filled, ignore_index=True) if filled else comparison.differences
        frame = frame.rename(columns={"behaviour": "behaviour_or_path"})
        return Result(compare_text(comparison), frame, compare_figure(comparison))

    return show("compare", make, given.out or (folders[0].resolve().parent if direct else given.runs))


if __name__ == "__main__":
    sys.exit(main())
