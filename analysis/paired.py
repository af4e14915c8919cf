"""Paired differences put to a test: Wilcoxon's signed ranks, their effect size, Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

LEVEL = 0.05


def paired_tests(differences: pd.DataFrame) -> pd.DataFrame:
    """Wilcoxon's signed-rank test of each measure; one row each.

    Columns: measure, n (pairs), n_changed (those that differ), median (of the differences), rank_biserial (effect size,
    see there), p (two-sided), p_holm (corrected over the measures).

    Pairs without a difference are dropped from the ranks, as Wilcoxon has it, and counted in n alone. Where none
    differs, p is 1. The p-value is exact up to 50 differences (13 with ties), from the normal distribution above.

    Args:
        differences: measure and difference, one row per pair.
    """
    rows = []
    for measure in differences["measure"].unique():
        values = differences.loc[differences["measure"] == measure, "difference"].to_numpy(float)
        moved = values[values != 0]
        p = float(stats.wilcoxon(moved).pvalue) if len(moved) else 1.0
        rows.append((measure, len(values), len(moved), float(np.median(values)), rank_biserial(moved), p))
    frame = pd.DataFrame(rows, columns=["measure", "n", "n_changed", "median", "rank_biserial", "p"])
    return frame.assign(p_holm=holm(frame["p"].tolist()))


def rank_biserial(differences: np.ndarray) -> float:
    """(ranks of the positive - ranks of the negative) / all ranks, of differences that are not 0; 0 of nothing."""
    if len(differences) == 0:
        return 0.0
    ranks = stats.rankdata(np.abs(differences))
    return float((ranks * np.sign(differences)).sum() / ranks.sum())


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction, in the order given."""
    order = np.argsort(p_values, kind="stable")
    out, worst = [0.0] * len(p_values), 0.0
    for i, k in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - i) * p_values[k]))
        out[k] = worst
    return out


def fewest_differences() -> int:
    """Differences from which two-sided p can be below the level: 2 / 2ⁿ."""
    return int(np.floor(np.log2(2 / LEVEL))) + 1
