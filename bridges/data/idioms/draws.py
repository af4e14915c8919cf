"""Random draws, and the memory of names that one module keeps."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
Rng = random.Random


class ModuleRandom(random.Random):
    """A `random.Random` that remembers the latest names of the module being written.

    Hand-written modules use few names many times; drawing each name afresh would teach that they never recur.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.recent: list[str] = []


def pick(r: Rng, options: Sequence[T]) -> T:
    """One element of `options` (cheaper than `Random.choice`)."""
    return options[int(r.random() * len(options))]


def chance(r: Rng, p: float = 0.5) -> bool:
    """True with probability `p`."""
    return r.random() < p
