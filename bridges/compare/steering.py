"""Steering the dense model with the circuit's change, at several strengths (paper, section 3.3, Fig. 9).

Shapes: n pairs, B = 2n prompts, R draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bridges.circuits.bridge_context import PromptBatch, last_logits, map_through_bridge
from bridges.compare.case import LogitDiffs, TransferCase, gather
from bridges.compare.nulls import random_directions

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


@torch.no_grad()
def steering(case: TransferCase, batches: Sequence[PromptBatch], i: int) -> LogitDiffs:
    """P(the other prompt's candidate) over the full vocabulary, ``{direction: [R, strengths, n, 2]}``.

    The ``circuit``'s exchange at shared positions beside ``random_directions`` as long, and ``none``.
    """
    generator = case.generator("steering")
    parts: dict[str, list[Tensor]] = {name: [] for name in ("circuit", "random_directions", "none")}
    for batch in batches:
        own = map_through_bridge(case.context.bridges[i], batch.exchange(case.run(batch).streams[i]))
        plain = last_logits(case.context.dense, [batch.dense[len(batch.dense) - 1]], batch.some)

        def chances(change: Tensor, batch: PromptBatch = batch, plain: Tensor = plain) -> Tensor:
            moved = case.context.dense_logits(batch, [(i, s * change) for s in STRENGTHS if s])
            probabilities = torch.cat([plain, moved]).softmax(-1)
            other = batch.some.choice[:, 1:].expand(len(probabilities), -1, -1)
            return probabilities.gather(-1, other)[None, ..., 0]

        parts["circuit"].append(chances(own))
        parts["random_directions"].append(chances(random_directions(own, generator)))
        parts["none"].append(chances(torch.zeros_like(own)))
    return gather(parts)
