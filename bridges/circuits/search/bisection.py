"""The fewest best nodes of a ranking that reach the target (paper, section A.5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from bridges.circuits.circuit import Circuit

# Sizes are found to a sixteenth of themselves after learning; a ranking without it is a baseline, and a sixth will do.
FINE, COARSE = 16, 6
# How often, and by how much, more nodes are taken than gates are open.
GROWN, GROWTH = 3, 1.15

Take = Callable[[int], Circuit]


def best_nodes(scores: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """The ``count`` nodes with the highest scores, ``{point: bool [channels]}``; of equal ones the earlier."""
    flat = torch.cat([s.flatten() for s in scores.values()])
    mask = torch.zeros(len(flat), dtype=torch.bool)
    mask[torch.argsort(flat, descending=True, stable=True)[:count]] = True
    return dict(zip(scores, mask.split([len(s) for s in scores.values()]), strict=True))


def bisect(take: Take, most: int, opened: int | None = None, fewest: bool = True, everywhere: bool = False) -> Circuit:
    """The smallest circuit that reaches its target; where none does, the one with the least loss, not `reached`.

    Sizes differ by orders of magnitude, so that the middle is taken between logarithms.

    Args:
        take: a size to the measured circuit of that many best nodes.
        most: nodes there may be. opened: how many gates learning has opened, which is about what is needed: beyond a
            few more a ranking by learning says nothing. None for a ranking without learning.
        fewest: look for fewer than the gates that are open, where those reach the target.
        everywhere: look up to ``most`` where those and a few more do not.
    """
    low, high = 0, most
    best = take(most if opened is None else max(1, min(opened, most)))
    enough = best.reached
    if opened is not None:
        # Nodes behind closed gates are in no order: more of them may well be worse.
        least, size = best, best.size
        for _ in range(GROWN):
            if best.reached or size >= most:
                break
            low, size = size, min(most, max(size + 1, round(GROWTH * size)))
            best = take(size)
            least = min(least, best, key=lambda c: c.train_loss)
        high = size
        if not best.reached and everywhere and size < most:
            low, best, high = size, take(most), most
            least = min(least, best, key=lambda c: c.train_loss)
        if not best.reached:
            best = least
    if not best.reached or (opened is not None and enough and not fewest):
        return best
    while high - low > max(1, high // (COARSE if opened is None else FINE)):
        middle = max(low + 1, min(high - 1, round(math.sqrt(max(1, low) * high))))
        tried = take(middle)
        if tried.reached:
            best, high = tried, middle
        else:
            low = middle
    return best
