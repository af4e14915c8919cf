"""The L0 projection: after every optimizer step only the largest weights of each matrix stay (paper, section 2.1)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bridges.sparse.ops import top_k_threshold


def budget(numel: int, fraction: float) -> int:
    """⌈fraction · numel⌉, safe against the rounding of the product; at least one, at most ``numel``."""
    return min(numel, max(1, math.ceil(round(fraction * numel, 6))))


def node_dimension(name: str) -> int | None:
    """Which dimension of a matrix counts neurons or attention channels: rows that write into them, columns that read.

    None for embedding and unembedding, whose rows are tokens.
    """
    kind = name.removesuffix(".weight").rsplit(".", 1)[-1]
    return {"q": 0, "k": 0, "v": 0, "up": 0, "out": 1, "down": 1}.get(kind)


@torch.no_grad()
def keep_mask(
    weight: Tensor, kept: int, dimension: int | None, floor: int, guess: float | None = None
) -> tuple[Tensor, float]:
    """Mask of exactly ``kept`` entries: the largest magnitudes, after each neuron or channel has its floor.

    Args:
        weight: ``[rows, columns]``.
        kept: entries that stay.
        dimension: 0 or 1, the dimension whose slices are guaranteed ``floor`` entries; None for no floor.
        floor: guaranteed entries per slice. The budget wins: it shrinks to what ``kept`` allows.
        guess: threshold of the last call, see `ops.top_k_threshold`.

    Returns:
        the mask and this call's threshold.
    """
    magnitude = weight.abs()
    mask, threshold = top_k_threshold(magnitude, kept, guess)
    if dimension is None or kept >= weight.numel():
        return mask, threshold
    slices = magnitude.movedim(dimension, 0)
    floor = min(floor, kept // slices.shape[0], slices.shape[1])
    if floor < 1:
        return mask, threshold
    if not bool((mask.movedim(dimension, 0).sum(1) < floor).any()):
        return mask, threshold
    # Every slice keeps its own largest entries up to the floor, and what is left of the budget goes to the largest of
    # all others. Where a slice has more than its floor above the threshold, its own largest are there in any case.
    own = torch.zeros_like(slices, dtype=torch.bool).scatter(1, slices.topk(floor, dim=1, sorted=False).indices, True)
    rest, _ = top_k_threshold(slices.masked_fill(own, -1.0), kept - floor * slices.shape[0], threshold)
    return (rest | own).movedim(0, dimension), threshold


class Projector:
    """Keeps the weight matrices of one model inside their budgets.

    Args:
        matrices: ``{name: parameter [rows, columns]}``.
        floor: nonzeros that each neuron and attention channel keeps where the budget allows (paper: 4).
    """

    def __init__(self, matrices: Mapping[str, nn.Parameter], floor: int = 4):
        self.matrices = dict(matrices)
        self.floor = floor
        self._thresholds: dict[str, float] = {}

    @torch.no_grad()
    def project(self, fraction: float) -> None:
        """Zero all but the ⌈fraction · numel⌉ largest magnitudes of every matrix, in place."""
        if fraction >= 1:
            return
        for name, weight in self.matrices.items():
            mask, self._thresholds[name] = keep_mask(
                weight, budget(weight.numel(), fraction), node_dimension(name), self.floor, self._thresholds.get(name)
            )
            weight.mul_(mask)

    @torch.no_grad()
    def nonzeros(self) -> dict[str, int]:
        """Nonzero entries of every matrix."""
        return {name: int(weight.count_nonzero()) for name, weight in self.matrices.items()}

    @torch.no_grad()
    def dead_neurons(self) -> int:
        """MLP neurons without any incoming or without any outgoing weight."""
        dead = 0
        for name, up in self.matrices.items():
            if name.endswith("up.weight"):
                down = self.matrices[name.replace("up.weight", "down.weight")]
                dead += int(((up != 0).sum(1) == 0).logical_or((down != 0).sum(0) == 0).sum())
        return dead
