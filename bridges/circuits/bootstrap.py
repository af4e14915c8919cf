"""Intervals and p-values by resampling pairs: the two prompts of a pair, or the tokens of a sequence, go together.

Shapes: n units (pairs, sequences), k values in each (prompts, tokens), R resamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import beta

Array = np.ndarray


@dataclass(frozen=True)
class Estimate:
    """A measurement with its 95 % percentile interval; NaN where there is none."""

    value: float
    low: float
    high: float

    def columns(self) -> dict[str, float]:
        """As a table has them."""
        return {"value": self.value, "value_low": self.low, "value_high": self.high}


@dataclass(frozen=True)
class Resampler:
    """The same resamples of n units for every figure, so that two of them are compared on equal draws.

    Attributes:
        n: units. resamples: R. seed: of the draws.
        groups: the group of each unit, such as the frame of a pair: groups are drawn first and then units within each,
            since units of a group are alike. Empty: units alone are drawn.
    """

    n: int
    resamples: int
    seed: int
    groups: tuple[str, ...] = ()

    @cached_property
    def counts(self) -> Array:
        """How often each draw holds each unit, ``[R, n]``."""
        rng = np.random.default_rng(self.seed)
        members = [np.flatnonzero(np.array(self.groups) == name) for name in dict.fromkeys(self.groups)]
        if len(members) < 2:
            members = [np.arange(self.n)]
        counts = np.zeros((self.resamples, self.n))
        picked = rng.integers(0, len(members), (self.resamples, len(members)))
        for g, units in enumerate(members):
            times = (picked == g).sum(1)
            for draw in np.flatnonzero(times):
                drawn = rng.integers(0, len(units), times[draw] * len(units))
                counts[draw] += np.bincount(units[drawn], minlength=self.n)
        return counts

    def sums(self, per_unit: Array) -> Array:
        """The sum over the units, in the data and in every draw, ``[1 + R]``."""
        return np.concatenate([[per_unit.sum()], self.counts @ per_unit])

    def ratio(self, above: Array, below: Array) -> Array:
        """Ratio of two sums over units, in the data and in every draw, ``[1 + R]``; NaN where the lower is not above 0.

        Args:
            above, below: ``[n]``.
        """
        above, below = self.sums(above), self.sums(below)
        return np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)

    def correlation(self, x: Array, y: Array) -> Array:
        """Pearson's correlation over all values, ``[n, k]`` twice to ``[1 + R]``; NaN where one side is constant.

        Entries that are NaN on either side count nowhere.
        """
        known = np.isfinite(x) & np.isfinite(y)
        # Moments of a draw are sums of the units' moments; taken about the means, so that nothing cancels.
        x, y = (np.where(known, v - v[known].mean(), 0.0) if known.any() else np.zeros_like(v) for v in (x, y))
        one = self.sums(known.sum(1).astype(float))
        sx, sy, sxx, syy, sxy = (self.sums(v.sum(1)) for v in (x, y, x * x, y * y, x * y))
        vx, vy = sxx - sx * sx / one, syy - sy * sy / one
        # A constant leaves rounding errors only.
        real = (vx > 1e-12 * np.maximum(sxx[0], 1e-300)) & (vy > 1e-12 * np.maximum(syy[0], 1e-300))
        product = np.sqrt(np.where(real, vx * vy, 1.0))
        return np.where(real, np.clip((sxy - sx * sy / one) / product, -1, 1), np.nan)


def estimate(values: Array) -> Estimate:
    """From the value in the data and in every draw, ``[1 + R]``; draws in which there is none are left out."""
    draws = values[1:][np.isfinite(values[1:])]
    if not np.isfinite(values[0]) or not len(draws):
        return Estimate(float(values[0]), np.nan, np.nan)
    low, high = np.percentile(draws, [2.5, 97.5])
    return Estimate(float(values[0]), float(low), float(high))


def share_of(hits: int, count: int) -> Estimate:
    """The share of random draws that are hits, up to what it may come to with more of them.

    Its low end is the share itself, since a test that was passed was passed; its high end that of Clopper's and
    Pearson's interval: as few draws as there are may have missed the bar by chance.
    """
    high = 1.0 if hits == count else float(beta.ppf(0.975, hits + 1, count - hits))
    return Estimate(hits / count, hits / count, high)


def p_above_zero(values: Array, units: int) -> float:
    """One-sided p that a quantity is not above 0: the share of draws where it is not, ``[1 + R]`` to a number.

    One more counts as not above it, so that no finite number of draws gives p = 0. Nor is it below 2^-n, the chance
    that n units all come out above 0 where each is as likely to come out below: resamples of few say too little.

    Args:
        units: n.
    """
    if not np.isfinite(values[0]):
        return float("nan")
    above = np.nan_to_num(values[1:], nan=-np.inf) > 0
    return max(float((1 + (~above).sum()) / (1 + len(above))), 0.5**units)


def holm(p_values: Array) -> Array:
    """Holm's step-down correction, ``[m]`` to ``[m]``; a NaN was no test and stays one."""
    p_values = np.asarray(p_values, dtype=float)
    adjusted = np.full(len(p_values), np.nan)
    tested = np.flatnonzero(np.isfinite(p_values))
    largest = 0.0
    for rank, i in enumerate(tested[np.argsort(p_values[tested], kind="stable")]):
        largest = max(largest, min(1.0, (len(tested) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted
