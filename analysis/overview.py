"""One row per run: what it was, how far it came, and the figures a person reads first."""

from __future__ import annotations

import pandas as pd

from .load import Runs
from .verdicts import tally

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

VERDICT_FIGURES = ("reproduced", "partial", "undecided", "judged")
SPLITS = ("test", "validation", "val")  # what a figure is taken from, the first that a run has


def overview(runs: Runs) -> pd.DataFrame:
    """One row per readable run.

    Columns: run, status, the settings; then, in nats per token of held-out text, ``ce_dense``, ``ce_sparse``,
    ``kl_sparse`` (KL(dense || sparse)), ``kl_d2s`` and ``kl_s2d`` (means over the single crossings), the same
    under untrained and ridge bridges, and ``kl_bigram``; then ``fraction`` (nonzero weights); then the behaviours
    ``reproduced``, ``partial``, ``undecided`` and ``judged`` (put to a circuit at all); then ``seconds``.
    A figure that a run has not measured is NaN.
    """
    rows = [{"run": record.name, "status": record.state, **runs.settings.loc[record.name]} for record in runs.records]
    frame = pd.DataFrame(rows, columns=["run", "status", *runs.settings.columns])
    for name, (column, kind, bridges) in PATH_FIGURES.items():
        frame[name] = frame["run"].map(_path_means(runs, column, kind, bridges)).astype(float)
    frame["fraction"] = frame["run"].map(_fractions(runs)).astype(float)
    counts = tally(runs)
    for name in VERDICT_FIGURES:
        frame[name] = frame["run"].map(counts[name]).astype(float)
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
    means = paths[kept].groupby("run")[column].mean()
    return {str(run): float(value) for run, value in means.items()}


def _fractions(runs: Runs) -> dict[str, float]:
    if "sparsity" not in runs:
        return {}
    totals = runs["sparsity"].groupby("run")[["nonzeros", "numel"]].sum()
    return {str(run): float(row["nonzeros"] / row["numel"]) for run, row in totals.iterrows() if row["numel"]}
