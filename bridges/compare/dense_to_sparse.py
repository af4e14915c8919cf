"""Interchange at shared positions, from dense to sparse: does the circuit change its mind as the dense model says?

The difference of the dense model's streams at shared positions is encoded and added to the stream of the circuit alone.
Beside it stand the ceiling, the circuit's own stream exchanged at those positions, and nulls of equal length.

Shapes: n pairs, B = 2n prompts, b bridges, R draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bridges.circuits.bridge_context import PromptBatch, last_logits, on_other
from bridges.circuits.circuit import only
from bridges.circuits.task import logit_diff_of
from bridges.compare.case import LogitDiffs, TransferCase, gather
from bridges.compare.nulls import TO_SPARSE, null_to_sparse


def circuit_diffs(case: TransferCase, batches: Sequence[PromptBatch]) -> np.ndarray:
    """Logit differences of the circuit alone, ``[n, 2]``."""
    return torch.cat([case.run(batch).logit_diff for batch in batches]).double().cpu().numpy().reshape(-1, 2)


def encoded_exchange(case: TransferCase, batch: PromptBatch, i: int, untrained: bool = False) -> Tensor:
    """The dense stream's change between the prompts of a pair, encoded, at shared positions, ``[B, T, s]``."""
    bridge = (case.untrained if untrained else case.context.bridges)[i]
    return batch.exchange(bridge.encode(batch.dense[i]))


def _continued(case: TransferCase, batch: PromptBatch, changes: Sequence[tuple[int, Tensor]]) -> Tensor:
    """Logit differences of the circuit that goes on from its own stream with K changes, ``[K, B]``."""
    sparse, own = case.context.sparse, case.run(batch).streams
    entries = [(case.context.bridges.pairs[i].sparse, own[i] + change.to(own[i])) for i, change in changes]
    with only(sparse, case.circuit):
        final = list(sparse.run_from(entries).final.values())
        return logit_diff_of(last_logits(sparse, final, batch.some), batch.some)


@torch.no_grad()
def dense_to_sparse(case: TransferCase, batches: Sequence[PromptBatch], where: Sequence[int]) -> LogitDiffs:
    """Logit differences of the circuit with its own exchange (``circuit``) and the ``dense`` model's, by bridge."""
    parts: dict[str, list[Tensor]] = {"circuit": [], "dense": []}
    for batch in batches:
        own = case.run(batch).streams
        parts["circuit"].append(_continued(case, batch, [(i, batch.exchange(own[i])) for i in where])[None])
        parts["dense"].append(_continued(case, batch, [(i, encoded_exchange(case, batch, i)) for i in where])[None])
    return gather(parts)


@torch.no_grad()
def null_dense_to_sparse(case: TransferCase, batches: Sequence[PromptBatch], i: int) -> LogitDiffs:
    """The same at one bridge with every null, ``{null: [R, 1, n, 2]}``."""
    generators = {name: case.generator(f"dense_to_sparse {name}") for name in TO_SPARSE}
    parts: dict[str, list[Tensor]] = {name: [] for name in TO_SPARSE}
    for batch in batches:
        own = encoded_exchange(case, batch, i)
        foreign = case.untrained[i].encode(batch.dense[i])
        foreign = on_other(foreign) - foreign
        for name, generator in generators.items():
            drawn = [null_to_sparse(name, own, foreign, generator, batch.shared) for _ in range(case.config.draws)]
            parts[name].append(_continued(case, batch, [(i, x) for x in drawn])[:, None])
    return gather(parts)
