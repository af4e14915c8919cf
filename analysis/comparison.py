"""Two runs compared: differences by behaviour with their tests, mixed paths, and verdicts that changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from bridges.errors import BridgesError, nearest

from .advice import repeat_command
from .circuits import selected_circuits
from .load import RunRecord, Runs
from .overview import held_out
from .paired import LEVEL, fewest_differences, paired_tests
from .settings import next_seed

# measure -> (label, whether it is compared as a ratio: the difference is then that of binary logarithms)
MEASURES = {
    "accuracy": ("held-out accuracy of the sparse model", False),
    "edges": ("edges of the sparse circuit", True),
    "share_moved": ("share of the dense logit difference moved", False),
}
DENSE_KEYS = ("model.name", "model.revision", "model.gguf_file")
SUITE_KEYS = ("behaviours.suite", "behaviours.path")
DECIMALS = 12  # differences that agree so far are tied: rounding errors are no ranks

# Kinds of paths that are compared, in this order.
KINDS = (
    "pure_sparse",
    "single_d2s",
    "single_s2d",
    "round_trip_dense",
    "round_trip_sparse",
    "double_dsd",
    "double_sds",
)


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
    if small := tests[tests["n_changed"] < least]["measure"].tolist():
        notes.append(f"With fewer than {least} behaviours that differ no p can be below {LEVEL}: {', '.join(small)}.")
    return Comparison(*names, differences, tests, paths, changed, notes)


def latest_pair(runs: Runs) -> tuple[str, str]:
    """The two finished runs of one dense model that began last, the older first.

    Raises:
        BridgesError: there are no two; the message holds a command that makes another.
    """
    ended = [record for record in runs.records if record.state == "finished"]
    ended.sort(key=lambda record: str(record.status.get("started") or ""), reverse=True)
    for later, earlier in combinations(ended, 2):
        if not _unlike((earlier, later), DENSE_KEYS):
            return earlier.name, later.name
    last = ended[0] if ended else None
    command = repeat_command(last, f"seed={next_seed(runs)}")
    raise BridgesError(f"Comparing takes two finished runs of the same dense model. Another seed: `{command}`")


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
    measures = (*MEASURES, "objective", "target", "verdict")
    sides = [{measure: _values(runs, record.name, measure) for measure in measures} for record in pair]
    known = [set().union(*(values.index for values in side.values())) for side in sides]
    if all(known) and not known[0] & known[1]:
        notes.append("Behaviours are not comparable: the runs have none in common.")
        return none, none[["behaviour", "first", "second"]]
    for here, there, record in ((known[0], known[1], pair[0]), (known[1], known[0], pair[1])):
        if there and here - there:
            notes.append(f"Only {record.name} has {', '.join(sorted(here - there))}.")
    parts = []
    for measure, (label, logarithmic) in MEASURES.items():
        first, second = (side[measure] for side in sides)
        for values, record in ((first, pair[0]), (second, pair[1])):
            if values.empty:
                notes.append(f"{record.name} has no {label}.")
        frame = _side_by_side(first, second)
        if measure == "edges":
            frame = _alike(frame, sides, notes)
        scale = np.log2 if logarithmic else (lambda side: side)
        frame["difference"] = (scale(frame["second"]) - scale(frame["first"])).astype(float).round(DECIMALS)
        parts.append(frame[["behaviour", "first", "second", "difference"]].assign(measure=measure))
    verdicts = _side_by_side(sides[0]["verdict"], sides[1]["verdict"])
    for side, record in zip(sides, pair, strict=True):
        if side["verdict"].empty:
            notes.append(f"{record.name} has no verdicts.")
    filled = [part for part in parts if len(part)]
    return (pd.concat(filled, ignore_index=True)[none.columns] if filled else none), verdicts


def _alike(frame: pd.DataFrame, sides: Sequence[dict[str, pd.Series]], notes: list[str]) -> pd.DataFrame:
    """Circuits of the same objective and target, with edges in both runs."""
    target, other = (frame["behaviour"].map(side["target"]).to_numpy(float) for side in sides)
    objective, sought = (frame["behaviour"].map(side["objective"]).to_numpy(str) for side in sides)
    same = np.isclose(target, other) & (objective == sought)
    if not same.all():
        notes.append(
            f"{int((~same).sum())} circuits were searched for with different objectives or targets: edges left out."
        )
    bare = (frame[["first", "second"]].astype(float) == 0).any(axis=1)
    if bare.any():
        names = ", ".join(frame.loc[bare, "behaviour"])
        notes.append(f"Without edges in one of the runs, and so not compared by edges: {names}.")
    return frame[same & ~bare].copy()


def _side_by_side(first: pd.Series, second: pd.Series) -> pd.DataFrame:
    both = pd.concat({"first": first, "second": second}, axis=1, join="inner")
    return both.rename_axis("behaviour").reset_index().sort_values("behaviour", ignore_index=True)


def _values(runs: Runs, name: str, measure: str) -> pd.Series:
    """One measure of one run by behaviour; of circuits, those of the sparse model that reached their target."""
    table = {"accuracy": "behaviours", **dict.fromkeys(("edges", "objective", "target"), "circuits")}.get(
        measure, "verdicts"
    )
    frame = runs[table] if table in runs else pd.DataFrame(columns=["run"])
    if "run" not in frame or not (frame["run"] == name).any():
        return pd.Series(dtype=object if measure in ("verdict", "objective") else float)
    if table == "circuits":
        frame = selected_circuits(runs)
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
