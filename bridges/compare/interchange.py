"""Interchange at shared positions, from sparse to dense: does the dense model change its mind as the circuit says?

At every bridge the circuit alone is run on both prompts of a pair; the difference of its streams at shared positions is
decoded and added to the dense stream. Beside it stand the *ceiling*, the dense model's own stream exchanged at those
positions; the whole sparse model's exchange; and at the selected bridge nulls of equal length (`bridges.compare.nulls`)
and directions that linear methods find with the labels (`bridges.compare.directions`), which are context and no nulls.

Shapes: n pairs, B = 2n prompts, b bridges, R draws, d width of the dense stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from bridges.circuits.bridge_context import PromptBatch, map_through_bridge
from bridges.compare.case import LogitDiffs, TransferCase, gather
from bridges.compare.nulls import TO_DENSE, null_to_dense

# Whose exchange is tried: the ceiling, the whole sparse model, the circuit alone.
MOVERS = ("dense", "sparse", "circuit")


def plain_diffs(batches: Sequence[PromptBatch]) -> np.ndarray:
    """Logit differences of the plain dense model, ``[n, 2]``."""
    return torch.cat([batch.dense_diff for batch in batches]).double().cpu().numpy().reshape(-1, 2)


@torch.no_grad()
def interchange(
    case: TransferCase, batches: Sequence[PromptBatch], where: Sequence[int], movers: Sequence[str] = MOVERS
) -> LogitDiffs:
    """Logit differences of the dense model with the exchange of the ``dense`` model itself, the whole ``sparse`` one
    and the ``circuit``, at each bridge.

    Args:
        where: indices of the b bridges. movers: whose exchange.
    """
    bridges, parts = case.context.bridges, {name: [] for name in movers}  # type: ignore[var-annotated]
    for batch in batches:
        for name in movers:
            if name == "dense":
                added = [(i, batch.exchange(batch.dense[i])) for i in where]
            else:
                streams = batch.sparse if name == "sparse" else case.run(batch).streams
                added = [(i, map_through_bridge(bridges[i], batch.exchange(streams[i]))) for i in where]
            parts[name].append(case.context.dense_diff(batch, added)[None])
    return gather(parts)


@torch.no_grad()
def null_interchange(case: TransferCase, batches: Sequence[PromptBatch], i: int) -> LogitDiffs:
    """The same at one bridge with every null, as often as ``config.draws`` says, ``{null: [R, 1, n, 2]}``."""
    context = case.context
    generators = {name: case.generator(f"interchange {name}") for name in TO_DENSE}
    parts: dict[str, list[Tensor]] = {name: [] for name in TO_DENSE}
    for batch in batches:
        change = batch.exchange(case.run(batch).streams[i])
        own, whole = map_through_bridge(context.bridges[i], change), batch.exchange(batch.sparse[i])
        for name, generator in generators.items():
            drawn = [
                null_to_dense(name, own, change, whole, case.live[i], context.bridges[i], case.untrained[i], generator)
                for _ in range(case.config.draws)
            ]
            parts[name].append(context.dense_diff(batch, [(i, x) for x in drawn])[:, None])
    return gather(parts)


@torch.no_grad()
def baseline_interchange(
    case: TransferCase, batches: Sequence[PromptBatch], i: int, directions: Mapping[str, Tensor]
) -> LogitDiffs:
    """The same with directions that use the labels, each as long as the circuit's change at every token.

    Args:
        directions: ``{name: [d]}``, from the candidate with the larger token id to the one with the smaller.
    """
    parts: dict[str, list[Tensor]] = {name: [] for name in directions}
    for batch in batches:
        own = map_through_bridge(case.context.bridges[i], batch.exchange(case.run(batch).streams[i]))
        sign = batch.some.sign[:, None, None]
        for name, direction in directions.items():
            # Away from the first candidate where it is this prompt's own.
            toward = -sign * direction.to(own) * own.norm(dim=-1, keepdim=True)
            parts[name].append(case.context.dense_diff(batch, [(i, toward)])[:, None])
    return gather(parts)
