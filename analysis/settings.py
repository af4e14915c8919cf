"""What tells runs apart: which are repeats of each other, and what the rest is called."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from bridges.errors import BridgesError

from .advice import program, repeat_command
from .load import Runs

EMBEDDING = "tokens.weight"  # the sparse model's matrix [vocabulary, d_model] in the `sparsity` table
# table -> what it holds, and how a run comes by it
CONTENTS = {
    "circuits": ("circuits", "`python -m bridges.run` searches for them, unless `circuits=none` or `behaviours=none`"),
    "verdicts": ("verdicts", "`python -m bridges.run` gives them, unless `circuits=none` or `behaviours=none`"),
    "claims": ("claims", "`python -m bridges.run` measures them, unless `circuits=none` or `behaviours=none`"),
    "behaviours": ("behaviours measured", "`python -m bridges.run` measures them, unless `behaviours=none`"),
    "paths": ("mixed paths measured", "`python -m bridges.run` measures them after training"),
    "training": ("training steps logged", "`python -m bridges.run` logs them"),
}


def plural(number: int, noun: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def finished(runs: Runs) -> list[str]:
    """Names of the runs that went through to the end."""
    return [record.name for record in runs.records if record.state == "finished"]


def finished_rows(runs: Runs, table: str) -> pd.DataFrame:
    """The rows of one table over the finished runs.

    Raises:
        BridgesError: none has any; the message says where they come from.
    """
    frame = runs[table] if table in runs else pd.DataFrame()
    if len(frame):
        frame = frame[frame["run"].isin(finished(runs))]
    if frame.empty:
        raise BridgesError(_nothing(runs, table))
    return frame.reset_index(drop=True)


def _nothing(runs: Runs, table: str) -> str:
    """Why no finished run has a table, and the command that makes it."""
    what, how = CONTENTS.get(table, (f"a table {table!r}", "a later stage or another version writes it"))
    ended = f"{len(finished(runs))} of {plural(len(runs.records), 'run')} finished"
    if runs.records and not finished(runs):
        last = runs.records[-1]
        how = f"`python -m bridges.run resume={last.folder}` goes on with one that is {last.state}"
    if runs.problems["reason"].str.startswith(f"table {table}: ").any():
        how += f"; `{program('summary')}` says why a table was left out"
    return f"No finished run has {what} ({ended}): {how}."


def widths(runs: Runs) -> dict[str, float]:
    """d_model of each run's sparse model: as its embedding is wide, else as it was asked for, else NaN."""
    found = {str(run): float(value) for run, value in runs.settings["sparse.d_model"].items() if pd.notna(value)}
    if "sparsity" in runs and len(runs["sparsity"]):
        frame = runs["sparsity"]
        rows = frame[frame["matrix"].astype(str).str.endswith(EMBEDDING)]
        found |= {str(run): float(columns) for run, columns in rows.groupby("run")["columns"].first().items()}
    return {record.name: found.get(record.name, np.nan) for record in runs.records}


def splitting(frame: pd.DataFrame, varying: Sequence[str], by: Sequence[str]) -> list[str]:
    """Settings besides the seed that differ between runs alike in ``by``: those are no repeats."""
    groups = frame.groupby(list(by), dropna=False)
    candidates = [c for c in varying if c in frame.columns and c not in (*by, "seed")]
    return [c for c in candidates if bool((groups[c].nunique(dropna=False) > 1).any())]


def settings_label(frame: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    """``key=value, …`` of each row."""
    return [", ".join(f"{key}={row[key]}" for key in keys) for _, row in frame.iterrows()]


def arranged(runs: Runs, names: Collection[str]) -> pd.DataFrame:
    """Where each of the named runs belongs on a grid of sparsity and width.

    Columns: run, model, settings (what else differs between runs of the same model, sparsity and width), sparsity,
    width (d_model of the sparse model), seed.
    """
    frame = runs.settings[runs.settings.index.isin(list(names))].copy()
    frame["width"] = frame.index.map(widths(runs)).astype(float)
    frame["settings"] = settings_label(frame, splitting(frame, runs.varying, ("model", "sparsity", "width")))
    columns = ["model", "settings", "sparsity", "width", "seed"]
    return frame[columns].rename_axis("run").reset_index()


def next_seed(runs: Runs) -> int:
    """The least seed above those of all runs."""
    seeds = [seed for seed in runs.settings["seed"] if pd.notna(seed)]
    return int(max(seeds)) + 1 if seeds else 1


def seed_groups(runs: Runs) -> pd.DataFrame:
    """Finished runs that differ in nothing but the seed; a group has at least two of them.

    A seed that was run twice with the same settings says nothing new: the run that started last counts.

    Columns: group (the settings that tell groups apart, the model where none do), run, seed.

    Raises:
        BridgesError: no two finished runs differ in the seed alone.
    """
    names = finished(runs)
    settings = runs.settings.loc[names]
    keys = [column for column in runs.varying if column != "seed"]
    frame = pd.DataFrame({"run": names, "seed": settings["seed"].to_numpy()})
    frame["group"] = settings_label(settings, keys) if keys else settings["model"].astype(str).to_numpy()
    started = {record.name: str(record.status.get("started") or "") for record in runs.records}
    frame["started"] = frame["run"].map(started)
    frame = frame.sort_values(["group", "seed", "started", "run"], kind="stable")
    frame = frame.drop_duplicates(["group", "seed"], keep="last")
    frame = frame[frame.groupby("group")["run"].transform("size") > 1]
    if frame.empty:
        last = max((r for r in runs.records if r.name in names), key=lambda r: started[r.name], default=None)
        seed = next_seed(runs)
        command = repeat_command(last, f"seed={seed},{seed + 1}")
        ended = f"{len(names)} of {plural(len(runs.records), 'run')} finished"
        raise BridgesError(f"No two finished runs differ in the seed alone ({ended}). Two more seeds: `{command}`")
    return frame[["group", "run", "seed"]].reset_index(drop=True)
