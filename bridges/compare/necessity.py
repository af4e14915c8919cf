"""Does the dense model miss what the circuit carries?

Shapes: B prompts, b bridges, R draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bridges.circuits.bridge_context import PromptBatch, map_through_bridge
from bridges.compare.case import LogitDiffs, TransferCase, gather
from bridges.compare.nulls import random_channels, random_directions, shortened

NULLS = ("random_directions", "other_channels")


@torch.no_grad()
def necessity(case: TransferCase, batches: Sequence[PromptBatch], i: int) -> LogitDiffs:
    """Logit differences of the dense model when the circuit's channels are moved to their mean over text at one bridge.

    Beside the circuit's, ``other_channels``: as many others moved to their means, no longer than the circuit's change:
    made longer they would be driven past their means, which is no ablation. What a change of that length does wherever
    it points is said by ``random_directions``.
    """
    context, used = case.context, case.live[i]
    generators = {name: case.generator(f"necessity {name}") for name in NULLS}
    parts: dict[str, list[Tensor]] = {name: [] for name in ("circuit", *NULLS)}
    for batch in batches:
        delta = case.means[i].to(batch.dense_diff) - batch.sparse[i].float()
        own = map_through_bridge(context.bridges[i], delta * used)
        parts["circuit"].append(context.dense_diff(batch, [(i, own)])[:, None])
        for name, generator in generators.items():
            drawn = []
            for _ in range(case.config.draws):
                if name == "random_directions":
                    drawn.append(random_directions(own, generator))
                elif bool(used.all()):
                    drawn.append(torch.full_like(own, torch.nan))
                else:
                    others = random_channels(used, len(delta) // 2, generator)
                    drawn.append(shortened(map_through_bridge(context.bridges[i], delta * others), own))
            parts[name].append(context.dense_diff(batch, [(i, x) for x in drawn])[:, None])
    return gather(parts)
