"""One row per run: what it was, how far it came, and the figures a person reads first."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.load import Runs

# Name of the figure -> (column, kind of path, bridges; None for any) in the `paths` table.
PATH_FIGURES: dict[str, tuple[str, str, str | None]] = {
    "ce_dense": ("ce", "pure_dense", None),
    "ce_sparse": ("ce", "pure_sparse", None),
    "kl_sparse": ("kl", "pure_sparse", None),
    "kl_d2s": ("kl", "single_d2s", "trained"),
    "kl_s2d": ("kl", "single_s2d", "trained"),
    "kl_bigram": ("kl", "bigram", None),
    "kl_d2s_untrained": ("kl", "single_d2s", "untrained"),
    "kl_s2d_untrained": ("kl", "single_s2d", "untrained"),
    "kl_d2s_ridge": ("kl", "single_d2s", "ridge"),
    "kl_s2d_ridge": ("kl", "single_s2d", "ridge"),
}

SPLITS = ("test", "validation", "val")  # what a figure is taken from, the first that a run has


def overview(runs: Runs) -> pd.DataFrame:
    """One row per readable run.

    Columns: run, status, the settings, then over held-out text ``ce_dense`` and ``ce_sparse`` (nats per token),
    ``kl_sparse`` (KL(dense || sparse)), ``kl_d2s`` and ``kl_s2d`` (mean over the single crossings) with the same
    under untrained and ridge bridges, ``kl_bigram``; ``fraction`` (nonzero weights) and ``seconds``. A figure a
    run has not measured is NaN.
    """
    rows = [
        {"run": record.name, "status": record.state, **runs.settings.loc[record.name]} for record in runs.records
    ]
    frame = pd.DataFrame(rows, columns=["run", "status", *runs.settings.columns])
    for name, (column, kind, bridges) in PATH_FIGURES.items():
        frame[name] = frame["run"].map(_path_means(runs, column, kind, bridges)).astype(float)
    frame["fraction"] = frame["run"].map(_fractions(runs)).astype(float)
    frame["seconds"] = [record.seconds for record in runs.records]
    return frame


def held_out(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of each run's most telling split, where it measured on several."""
    if frame["split"].nunique() < 2:
        return frame
    rank = frame["split"].map({split: i for i, split in enumerate(SPLITS)}).fillna(len(SPLITS))
    return frame[rank == rank.groupby(frame["run"]).transform("min")]


def _path_means(runs: Runs, column: str, kind: str, bridges: str | None) -> dict[str, float]:
    if "paths" not in runs:
        return {}
    paths = held_out(runs["paths"])
    kept = paths["kind"] == kind
    if bridges is not None:
        kept &= paths["bridges"] == bridges
    return paths[kept].groupby("run")[column].mean().to_dict()


def _fractions(runs: Runs) -> dict[str, float]:
    if "sparsity" not in runs:
        return {}
    totals = runs["sparsity"].groupby("run")[["nonzeros", "numel"]].sum()
    return (totals["nonzeros"] / totals["numel"].replace(0, np.nan)).to_dict()
