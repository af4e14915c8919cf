"""The L0 projection: after every optimizer step only the largest weights of each matrix stay (paper, section 2.1)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from bridges.shards import is_sharded, local, sharded_like, summed, whole
from bridges.sparse.ops import top_k_threshold
from bridges.sparse.sharded import top_k_masks


def budget(numel: int, fraction: float) -> int:
    """⌈fraction · numel⌉, safe against the rounding of the product; at least one, at most ``numel``."""
    return min(numel, max(1, math.ceil(round(fraction * numel, 6))))


def node_dimension(name: str) -> int | None:
    """Which dimension of a matrix counts neurons or attention channels: rows that write into them, columns that read.

    None for embedding and unembedding, whose rows are tokens.
    """
    kind = name.removesuffix(".weight").rsplit(".", 1)[-1]
    return {"q": 0, "k": 0, "v": 0, "up": 0, "out": 1, "down": 1}.get(kind)


def floor_of(weight: Tensor, kept: int, dimension: int | None, floor: int) -> int:
    """What a floor of a matrix's slices shrinks to where ``kept`` entries stay in all; 0: there is none."""
    if dimension is None or kept >= weight.numel():
        return 0
    return min(floor, kept // weight.shape[dimension], weight.shape[1 - dimension])


def largest(slices: Tensor, count: int) -> Tensor:
    """Mask of the ``count`` largest entries of each row."""
    return torch.zeros_like(slices, dtype=torch.bool).scatter(1, slices.topk(count, dim=1, sorted=False).indices, True)


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
    floor = floor_of(weight, kept, dimension, floor)
    if dimension is None or not floor:
        return mask, threshold
    slices = magnitude.movedim(dimension, 0)
    if not bool((mask.movedim(dimension, 0).sum(1) < floor).any()):
        return mask, threshold
    # Every slice keeps its own largest entries up to the floor, and what is left of the budget goes to the largest of
    # all others. Where a slice has more than its floor above the threshold, its own largest are there in any case.
    own = largest(slices, floor)
    rest, _ = top_k_threshold(slices.masked_fill(own, -1.0), kept - floor * slices.shape[0], threshold)
    return (rest | own).movedim(0, dimension), threshold


@torch.no_grad()
def keep_masks(
    weights: Sequence[Tensor], counts: Sequence[int], dimensions: Sequence[int | None], floor: int
) -> list[Tensor]:
    """What `keep_mask` chooses for each of several matrices spread over processes; this process's rows of it.

    Args:
        weights: `DTensor`, ``[rows, columns]`` each, rows spread over the same processes.
        counts, dimensions, floor: as there.
    """
    first = weights[0]
    assert isinstance(first, DTensor)
    mesh = first.device_mesh
    magnitudes = [local(w.detach()).abs() for w in weights]
    masks = top_k_masks(magnitudes, counts, mesh)
    floors = [floor_of(w, k, d, floor) for w, k, d in zip(weights, counts, dimensions, strict=True)]
    below = torch.zeros(len(weights), dtype=torch.int32, device=first.device)
    for i, (mask, dimension) in enumerate(zip(masks, dimensions, strict=True)):
        if floors[i] and dimension is not None:
            kept = mask.sum(1 - dimension)
            # A row lies on one process; a column's entries are counted over all.
            kept = summed(kept, first) if dimension == 1 else kept
            below[i] = (kept < floors[i]).any()
    dist.all_reduce(below, op=dist.ReduceOp.MAX, group=mesh.get_group())
    short = below.nonzero()[:, 0].tolist()
    for i in [i for i in short if dimensions[i] == 1]:
        # A column's largest entries lie across the processes: the whole of this one matrix is fetched.
        mask, _ = keep_mask(whole(weights[i].detach()), counts[i], 1, floor)
        masks[i] = local(sharded_like(mask.contiguous(), weights[i]))
    if rows := [i for i in short if dimensions[i] == 0]:
        own = [largest(magnitudes[i], floors[i]) for i in rows]
        left = [counts[i] - floors[i] * len(weights[i]) for i in rows]
        rest = top_k_masks([magnitudes[i].masked_fill(o, -1.0) for i, o in zip(rows, own, strict=True)], left, mesh)
        for i, o, r in zip(rows, own, rest, strict=True):
            masks[i] = o | r
    return masks


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

    @property
    def sharded(self) -> bool:
        """Whether the matrices' rows are spread over processes, which then do everything here together."""
        return any(is_sharded(weight) for weight in self.matrices.values())

    @torch.no_grad()
    def project(self, fraction: float) -> None:
        """Zero all but the ⌈fraction · numel⌉ largest magnitudes of every matrix, in place."""
        if fraction >= 1:
            return
        if self.sharded:
            weights = list(self.matrices.values())
            counts = [budget(w.numel(), fraction) for w in weights]
            masks = keep_masks(weights, counts, [node_dimension(name) for name in self.matrices], self.floor)
            for weight, mask in zip(weights, masks, strict=True):
                local(weight.detach()).mul_(mask)
            return
        for name, weight in self.matrices.items():
            mask, self._thresholds[name] = keep_mask(
                weight, budget(weight.numel(), fraction), node_dimension(name), self.floor, self._thresholds.get(name)
            )
            weight.mul_(mask)

    @torch.no_grad()
    def nonzeros(self) -> dict[str, int]:
        """Nonzero entries of every matrix."""
        if not self.matrices:
            return {}
        counts = torch.stack([local(weight).count_nonzero() for weight in self.matrices.values()])
        counts = summed(counts, next(iter(self.matrices.values())))
        return dict(zip(self.matrices, counts.tolist(), strict=True))

    @torch.no_grad()
    def dead_neurons(self) -> int:
        """MLP neurons without any incoming or without any outgoing weight."""
        dead = 0
        for name, up in self.matrices.items():
            if name.endswith("up.weight"):
                down = self.matrices[name.replace("up.weight", "down.weight")]
                into, out = whole((up.detach() != 0).sum(1)), whole((down.detach() != 0).sum(0))
                dead += int((into == 0).logical_or(out == 0).sum())
        return dead
