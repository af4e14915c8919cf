"""Many node sets in one forward pass: each set of nodes is replaced in its own copy of the prompts.

Shapes: S sets, 2n prompts, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bridges.circuits.circuit import Circuit
from bridges.circuits.patch import patch
from bridges.circuits.task import PARTS, Prompts, by_length, logit_diff
from bridges.nodes import NodeFunction, intervene
from bridges.stack import ResidualStack

# Tokens per forward pass: enough to keep two cores busy, little enough for their caches.
TOKENS = 8192

NodeSets = dict[str, Tensor]


def random_sets(circuit: Circuit, count: int, generator: torch.Generator) -> NodeSets:
    """Random sets drawn from all nodes, at every point as many as the circuit has, ``{point: bool [S, channels]}``."""
    sets = {}
    for point, kept in circuit.nodes.items():
        order = torch.rand(count, len(kept), generator=generator).argsort(1)
        drawn = torch.zeros(count, len(kept), dtype=torch.bool)
        sets[point] = drawn.scatter(1, order[:, : int(kept.sum())], True)
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
def set_logit_diffs(stack: ResidualStack, some: Prompts, sets: NodeSets, fill: Mapping[str, Tensor]) -> Tensor:
    """Logit differences ``[S, 2n]`` of the prompts with the nodes of each set replaced.

    Args:
        sets: ``{point: bool [S, channels]}``.
        fill: what replaces them: ``{point: [channels]}``, or ``[2n, T, channels]`` of the same prompts.
    """
    count, out = len(next(iter(sets.values()))), []
    order = by_length(some, PARTS)
    for rows in order:
        part = some.take(rows)
        every, width = torch.arange(len(part), device=rows.device), part.ids.shape[1]
        here = {p: _rows(value.to(rows.device), rows, width) for p, value in fill.items() if p in sets}
        found = []
        for chunk in torch.arange(count).split(max(1, TOKENS // part.ids.numel())):
            functions = {p: _replace(m[chunk], here[p]) for p, m in sets.items() if m[chunk].any()}
            with intervene(stack, functions):
                found.append(logit_diff(stack, part.take(every.repeat(len(chunk)))).view(len(chunk), len(part)))
        out.append(torch.cat(found))
    return torch.cat(out, 1)[:, torch.argsort(torch.cat(order))]


def _rows(value: Tensor, rows: Tensor, width: int) -> Tensor:
    return value[rows, :width] if value.ndim == 3 else value


def _replace(mask: Tensor, value: Tensor) -> NodeFunction:
    return lambda x: patch(x, ~mask, value)
