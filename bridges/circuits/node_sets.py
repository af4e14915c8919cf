"""Many node sets in one forward pass: each set of nodes is replaced in its own copy of the prompts.

Shapes: S sets, 2n prompts, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bridges.circuits.circuit import Circuit
from bridges.circuits.patch import choose
from bridges.circuits.task import Prompts, answer_margins
from bridges.nodes import NodeFunction, intervene
from bridges.stack import ResidualStack

# Tokens per forward pass: enough to keep two cores busy, little enough for their caches.
TOKENS = 8192

NodeSets = dict[str, Tensor]


def random_sets(circuit: Circuit, count: int, generator: torch.Generator) -> NodeSets:
    """Random sets of nodes outside the circuit, at every point as many as it has, ``{point: bool [S, channels]}``.

    Circuit nodes are left out: one of them alone can do more harm than all together, which would say nothing about
    other nodes. Where more than half of a point's channels are in the circuit, the sets have what is left.
    """
    sets = {}
    for point, kept in circuit.nodes.items():
        size = min(int(kept.sum()), int((~kept).sum()))
        order = torch.rand(count, len(kept), generator=generator).masked_fill(kept, 2.0).argsort(1)
        sets[point] = torch.zeros(count, len(kept), dtype=torch.bool).scatter(1, order[:, :size], True)
    return sets


def random_parts(nodes: Mapping[str, Tensor], shares: Tensor, generator: torch.Generator) -> NodeSets:
    """Random subsets of a node set, ``{point: bool [S, channels]}``; node by node with chance ``shares[s]``."""
    return {
        point: kept & (torch.rand(len(shares), len(kept), generator=generator) < shares[:, None])
        for point, kept in nodes.items()
    }


def exact_parts(circuit: Circuit, shares: list[float], generator: torch.Generator) -> NodeSets:
    """Random subsets that hold exactly these shares of a circuit's nodes, rounded, ``{point: bool [S, channels]}``."""
    flat = torch.cat(list(circuit.nodes.values()))
    members = flat.nonzero()[:, 0]
    sets = torch.zeros(len(shares), len(flat), dtype=torch.bool)
    for s, share in enumerate(shares):
        order = members[torch.randperm(len(members), generator=generator)]
        sets[s, order[: round(share * len(members))]] = True
    return dict(zip(circuit.nodes, sets.split([len(k) for k in circuit.nodes.values()], 1), strict=True))


def complement(nodes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Everything that is not in the sets."""
    return {point: ~kept for point, kept in nodes.items()}


@torch.no_grad()
def set_margins(stack: ResidualStack, some: Prompts, sets: NodeSets, fill: Mapping[str, Tensor]) -> Tensor:
    """Margins ``[S, 2n]`` of the prompts with the nodes of each set replaced.

    Args:
        sets: ``{point: bool [S, channels]}``.
        fill: what replaces them: ``{point: [channels]}``, or ``[2n, T, channels]`` of the same prompts.
    """
    count = len(next(iter(sets.values())))
    device, n = some.ids.device, len(some)
    every, out = torch.arange(n, device=device), []
    for chunk in torch.arange(count).split(max(1, TOKENS // some.ids.numel())):
        functions = {p: _replace(m[chunk], fill[p].to(device)) for p, m in sets.items() if m[chunk].any()}
        with intervene(stack, functions):
            out.append(answer_margins(stack, some.take(every.repeat(len(chunk)))).view(len(chunk), n))
    return torch.cat(out)


def _replace(mask: Tensor, value: Tensor) -> NodeFunction:
    return lambda x: choose(x, ~mask, value)
