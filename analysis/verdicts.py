"""Verdicts counted: over seeds, and by run."""

from __future__ import annotations

import pandas as pd

from bridges.storage.tables.verdicts import VERDICTS

from .load import Runs

# Given before any circuit was searched for: they say nothing about one.
NOT_ASKED = ("last token suffices", "dense model cannot", "not expressible")


def claim_rank(verdict: str) -> int:
    """The less a verdict claims, the more; most of one that is not known here."""
    return VERDICTS.index(verdict) if verdict in VERDICTS else len(VERDICTS)


def verdict_counts(verdicts: pd.Series) -> dict[str, int]:
    """How often each verdict was given, the one that claims most first."""
    counts = verdicts.value_counts()
    return {str(verdict): int(counts[verdict]) for verdict in sorted(counts.index, key=claim_rank)}


def modal_verdict(verdicts: pd.Series) -> tuple[str, float]:
    """The most frequent verdict and its share; of equally frequent ones the one that claims less."""
    counts = verdicts.value_counts()
    tied = [str(verdict) for verdict in counts.index[counts == counts.max()]]
    return max(tied, key=claim_rank), float(counts.max() / counts.sum())


def robust(verdicts: pd.DataFrame) -> pd.Series:
    """Whether each row is `reproduced` with every robustness criterion held (false where that is not known)."""
    held = [value is not None and not pd.isna(value) and bool(value) for value in verdicts.get("robust", [])]
    found = pd.Series(held or False, index=verdicts.index, dtype=bool)
    return found & (verdicts["verdict"] == "reproduced")


def tally(runs: Runs) -> pd.DataFrame:
    """Behaviours of each run by verdict.

    Index: run. Columns: each of `VERDICTS`, ``robust`` (reproduced, with every robustness criterion held) and
    ``judged`` (those that were put to a circuit). Runs without verdicts have no row.
    """
    columns = [*VERDICTS, "robust", "judged"]
    if "verdicts" not in runs or not len(runs["verdicts"]):
        return pd.DataFrame(columns=columns, dtype=float).rename_axis("run")
    frame = runs["verdicts"]
    counts = frame.groupby(["run", "verdict"]).size().unstack(fill_value=0)
    counts = counts.reindex(columns=list(VERDICTS), fill_value=0)
    counts["robust"] = robust(frame).groupby(frame["run"]).sum()
    counts["judged"] = (~frame["verdict"].isin(NOT_ASKED)).groupby(frame["run"]).sum()
    return counts.rename_axis(columns=None)
