"""Removing what a ranking left over: nodes, then edges, then what leads nowhere (named as wanted by the paper, A.5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bridges.circuits.attribution import attribution, edge_attribution
from bridges.circuits.circuit import Circuit, kept_edges
from bridges.circuits.task import Prompts
from bridges.circuits.weights import edge_matrices
from bridges.stack import ResidualStack

# Of what is left, the share that is tried first.
FIRST_SHARE = 0.3


@dataclass(frozen=True)
class Pruner:
    """What greedy pruning needs of a search.

    Attributes:
        stack: that is searched. prompts: of the training pairs. reference: means of nodes, ``{point: [channels]}``.
        measure: a circuit with what it reaches. attempts: groups that may be tried.
    """

    stack: ResidualStack
    prompts: Prompts
    reference: Mapping[str, Tensor]
    measure: Callable[[Circuit], Circuit]
    attempts: int


def shrink(
    pruner: Pruner,
    circuit: Circuit,
    rank: Callable[[Circuit], list[Any]],
    without: Callable[[Circuit, list[Any]], Circuit],
) -> Circuit:
    """Remove groups of items, the least needed first, while the target holds.

    What is left is ranked anew after every success: items that stand in for each other look idle only together. A group
    that cannot go is halved; a single item that cannot go is not tried again.

    Args:
        rank: the circuit's items, the least needed first. without: the circuit without some of them.
    """
    share, order = FIRST_SHARE, None
    needed: set[Any] = set()
    for _ in range(pruner.attempts):
        if order is None:
            order = rank(circuit)
        open_ = [item for item in order if item not in needed]
        group = open_[: max(1, int(share * len(order)))]
        if not group or len(order) < 2:
            break
        tried = pruner.measure(without(circuit, group))
        if tried.reached:
            circuit, order = tried, None
            share = min(0.5, 1.5 * share)
        elif len(group) == 1:
            needed.add(group[0])
        else:
            share = len(group) / 2 / len(order)
    return circuit


def drop_nodes(pruner: Pruner, circuit: Circuit) -> Circuit:
    """Remove nodes of least first-order effect; protected stay."""
    protected = circuit.protected

    def rank(current: Circuit) -> list[Any]:
        effect = attribution(pruner.stack, pruner.prompts, pruner.reference, current)
        named = [(p, c) for p, kept in current.nodes.items() for c in (kept & ~protected[p]).nonzero()[:, 0].tolist()]
        return sorted(named, key=lambda node: abs(float(effect[node[0]][node[1]])))

    return shrink(pruner, circuit, rank, _without_nodes)


def drop_edges(pruner: Pruner, circuit: Circuit) -> Circuit:
    """Remove weights between kept nodes, those that carry least first."""
    every = {matrix.name: torch.ones(matrix.weight.shape, dtype=torch.bool) for matrix in edge_matrices(pruner.stack)}
    circuit = replace(circuit, edges={matrix: every[matrix] for matrix in kept_edges(pruner.stack, circuit)})

    def rank(current: Circuit) -> list[Any]:
        scores = edge_attribution(pruner.stack, pruner.prompts, pruner.reference, current)
        found: list[tuple[float, str, int, int]] = []
        for matrix, kept in kept_edges(pruner.stack, current).items():
            at = kept.nonzero()
            found += [
                (v, matrix, t, s) for v, (t, s) in zip(scores[matrix][kept].abs().tolist(), at.tolist(), strict=True)
            ]
        return [(matrix, target, source) for _, matrix, target, source in sorted(found)]

    return shrink(pruner, circuit, rank, _without_edges)


def drop_dead_ends(pruner: Pruner, circuit: Circuit) -> Circuit:
    """Remove nodes that no kept edge enters or none leaves while there are any and the target holds; protected stay."""
    protected = circuit.protected
    while True:
        edges = kept_edges(pruner.stack, circuit)
        enters = {p: torch.zeros_like(kept) for p, kept in circuit.nodes.items()}
        leaves = {p: torch.zeros_like(kept) for p, kept in circuit.nodes.items()}
        for matrix in edge_matrices(pruner.stack):
            if matrix.name in edges:
                enters[matrix.target] |= edges[matrix.name].any(1)
                leaves[matrix.source] |= edges[matrix.name].any(0)
        dead: list[Any] = []
        for point, kept in circuit.nodes.items():
            kind = point.split(".")[1]
            # Queries and keys act on scores, not through an edge of their own.
            out = torch.ones_like(kept) if kind in ("q", "k", "attn_out", "mlp_out") else leaves[point]
            into = torch.ones_like(kept) if kind in ("attn_in", "mlp_in") else enters[point]
            dead += [(point, c) for c in (kept & ~(out & into) & ~protected[point]).nonzero()[:, 0].tolist()]
        if not dead:
            return circuit
        smaller = pruner.measure(_without_nodes(circuit, dead))
        if not smaller.reached:
            return circuit
        circuit = smaller


def _without_nodes(circuit: Circuit, group: list) -> Circuit:
    nodes = {p: kept.clone() for p, kept in circuit.nodes.items()}
    for point, channel in group:
        nodes[point][channel] = False
    return replace(circuit, nodes=nodes)


def _without_edges(circuit: Circuit, group: list) -> Circuit:
    assert circuit.edges is not None
    edges = dict(circuit.edges)
    for matrix in {matrix for matrix, _, _ in group}:
        edges[matrix] = edges[matrix].clone()
    for matrix, target, source in group:
        edges[matrix][target, source] = False
    return replace(circuit, edges=edges)
