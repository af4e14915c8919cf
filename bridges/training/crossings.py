"""Which crossings a step computes in each direction: all, or a sample that stands for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

DIRECTIONS = ("kl_d2s", "kl_s2d")
# How much of what was seen of a crossing's KL before its running mean keeps.
MEMORY = 0.9
# What every crossing counts for beside its own KL, as a share of the mean over all: none is forgotten.
LEAST = 0.25


@dataclass(frozen=True)
class Crossings:
    """The bridges crossed in one direction.

    Attributes:
        bridges: their indices, rising.
        weights: what each of them counts for; the weighted sum over them estimates the sum over all bridges.
    """

    bridges: tuple[int, ...]
    weights: tuple[float, ...]

    @classmethod
    def alike(cls, bridges: Sequence[int], total: int) -> Crossings:
        """Crossings that count alike, out of ``total``."""
        return cls(tuple(bridges), (total / max(1, len(bridges)),) * len(bridges))


def inclusion(sizes: np.ndarray, count: int) -> np.ndarray:
    """Probabilities of being drawn, proportional to ``sizes`` but at most 1, that add up to ``count``.

    Args:
        sizes: positive, ``[n]`` with n > ``count``.
    """
    chance = np.zeros(len(sizes))
    certain = np.zeros(len(sizes), dtype=bool)
    while True:
        left = count - certain.sum()
        chance = np.where(certain, 1.0, left * sizes / sizes[~certain].sum())
        above = chance > 1
        if not above.any():
            return chance
        certain |= above


def draw(sizes: np.ndarray, count: int, rng: np.random.Generator) -> Crossings:
    """A systematic sample of ``count`` different crossings, each drawn with its `inclusion` probability.

    Each counts for one over its probability (Horvitz and Thompson 1952), so that the weighted sum is unbiased whatever
    the sizes are; the closer they are to what is summed, the less it varies.
    """
    chance = inclusion(sizes, count)
    order = rng.permutation(len(sizes))
    ends = np.cumsum(chance[order])
    # Rounding must not lose the last one.
    ends[-1] = count
    found = sorted(int(order[i]) for i in np.searchsorted(ends, rng.random() + np.arange(count), side="right"))
    return Crossings(tuple(found), tuple(float(1 / chance[i]) for i in found))


class Sampler:
    """Draws each step's crossings from seed and step, and by importance from what was seen of their KL.

    Args:
        total: number of bridges.
        wanted: crossings per step and direction; ``total`` or more for all.
        seed: of every draw.
        importance: draw a crossing the more often the larger its KL has been, instead of all alike.
        first: the step from which there are crossings.

    Attributes:
        means: running mean KL of every crossing by direction, NaN where none was seen yet; a checkpoint keeps it.
    """

    def __init__(self, total: int, wanted: int, seed: int, importance: bool = False, first: int = 0):
        self.total, self.wanted, self.seed, self.importance, self.first = total, wanted, seed, importance, first
        self.means = {direction: [float("nan")] * total for direction in DIRECTIONS}

    def __call__(self, step: int) -> tuple[Crossings, Crossings]:
        """The crossings of a step, dense → sparse and sparse → dense."""
        if step < self.first:
            return Crossings((), ()), Crossings((), ())
        if self.wanted >= self.total:
            every = Crossings.alike(range(self.total), self.total)
            return every, every
        rng = np.random.default_rng([self.seed, step, 1])
        if self.importance:
            first, second = (draw(self._sizes(direction), self.wanted, rng) for direction in DIRECTIONS)
            return first, second
        drawn = (sorted(rng.choice(self.total, self.wanted, replace=False).tolist()) for _ in DIRECTIONS)
        first, second = (Crossings.alike(bridges, self.total) for bridges in drawn)
        return first, second

    def _sizes(self, direction: str) -> np.ndarray:
        means = np.array(self.means[direction])
        seen = np.isfinite(means) & (means >= 0)
        typical = means[seen].mean() if seen.any() else 1.0
        if not typical > 0:
            return np.ones(self.total)
        return np.where(seen, means, typical) + LEAST * typical

    def see(self, values: Mapping[str, tuple[Crossings, Sequence[float]]]) -> None:
        """Take in the KL of the crossings of a step, by direction."""
        for direction, (crossings, found) in values.items():
            for bridge, value in zip(crossings.bridges, found, strict=True):
                old = self.means[direction][bridge]
                self.means[direction][bridge] = value if old != old else MEMORY * old + (1 - MEMORY) * value
