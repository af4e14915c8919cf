"""Removing what a ranking left over: nodes, then edges, then what leads nowhere (named as wanted by the paper, A.5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bridges.circuits.attribution import attribution, real_tokens
from bridges.circuits.circuit import Circuit, kept_edges, only
from bridges.circuits.search.adversarial import guards_of
from bridges.circuits.task import Prompts, answer_margins, task_loss
from bridges.circuits.weights import wires
from bridges.nodes import intervene
from bridges.stack import ResidualStack

if TYPE_CHECKING:
    from bridges.circuits.search.search import Search

# Of what is left, the share that is tried first.
FIRST_SHARE = 0.3


def shrink(
    search: Search,
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
    for _ in range(search.settings.tries):
        if order is None:
            order = rank(circuit)
        open_ = [item for item in order if item not in needed]
        group = open_[: max(1, int(share * len(order)))]
        if not group or len(order) < 2:
            break
        tried = search.measure(without(circuit, group))
        if tried.reached:
            circuit, order = tried, None
            share = min(0.5, 1.5 * share)
        elif len(group) == 1:
            needed.add(group[0])
        else:
            share = len(group) / 2 / len(order)
    return circuit


def drop_nodes(search: Search, circuit: Circuit) -> Circuit:
    """Remove nodes of least first-order effect; guards stay."""
    guards = guards_of(circuit)

    def rank(current: Circuit) -> list[Any]:
        effect = attribution(search.stack, search.prompts, search.removed.reference, current)
        named = [(p, c) for p, kept in current.nodes.items() for c in (kept & ~guards[p]).nonzero()[:, 0].tolist()]
        return sorted(named, key=lambda node: float(effect[node[0]][node[1]]))

    return shrink(search, circuit, rank, _without_nodes)


def drop_edges(search: Search, circuit: Circuit) -> Circuit:
    """Remove weights between kept nodes, those that carry least first."""
    every = {wire.matrix: torch.ones(wire.weight.shape, dtype=torch.bool) for wire in wires(search.stack)}
    circuit = replace(circuit, edges={matrix: every[matrix] for matrix in kept_edges(search.stack, circuit)})

    def rank(current: Circuit) -> list[Any]:
        scores = edge_effects(search.stack, search.prompts, search.removed.reference, current)
        found: list[tuple[float, str, int, int]] = []
        for matrix, kept in kept_edges(search.stack, current).items():
            at = kept.nonzero()
            found += [(v, matrix, t, s) for v, (t, s) in zip(scores[matrix][kept].tolist(), at.tolist(), strict=True)]
        return [(matrix, target, source) for _, matrix, target, source in sorted(found)]

    return shrink(search, circuit, rank, _without_edges)


def drop_dead_ends(search: Search, circuit: Circuit) -> Circuit:
    """Remove nodes that no kept edge enters or none leaves while there are any and the target holds; guards stay."""
    guards = guards_of(circuit)
    while True:
        edges = kept_edges(search.stack, circuit)
        enters = {p: torch.zeros_like(kept) for p, kept in circuit.nodes.items()}
        leaves = {p: torch.zeros_like(kept) for p, kept in circuit.nodes.items()}
        for wire in wires(search.stack):
            if wire.matrix in edges:
                enters[wire.target] |= edges[wire.matrix].any(1)
                leaves[wire.source] |= edges[wire.matrix].any(0)
        dead: list[Any] = []
        for point, kept in circuit.nodes.items():
            kind = point.split(".")[1]
            # Queries and keys act on scores, not through an edge of their own.
            out = torch.ones_like(kept) if kind in ("q", "k", "attn_out", "mlp_out") else leaves[point]
            into = torch.ones_like(kept) if kind in ("attn_in", "mlp_in") else enters[point]
            dead += [(point, c) for c in (kept & ~(out & into) & ~guards[point]).nonzero()[:, 0].tolist()]
        if not dead:
            return circuit
        smaller = search.measure(_without_nodes(circuit, dead))
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


def edge_effects(
    stack: ResidualStack, some: Prompts, reference: Mapping[str, Tensor], circuit: Circuit
) -> dict[str, Tensor]:
    """Bound on the first-order effect of removing each weight from the circuit, ``{matrix: [target, source]}``.

    |weight| · Σ over tokens of |slope of the task loss at the target| · |source − its mean|. Attention's output matrix
    reads values that the head has mixed over tokens, so that its bound takes root sums of squares instead.
    """
    values: dict[str, Tensor] = {}

    def keep(point: str):
        def function(x: Tensor) -> Tensor:
            values[point] = x if x.requires_grad else x.requires_grad_()
            return values[point]

        return function

    with torch.enable_grad(), only(stack, circuit), intervene(stack, {p: keep(p) for p in circuit.nodes}):
        loss = task_loss(answer_margins(stack, some))
        grads = torch.autograd.grad(loss, list(values.values()), allow_unused=True)
    real = real_tokens(some)
    slope = {
        p: torch.zeros_like(x[real]) if g is None else g.float()[real].abs()
        for (p, x), g in zip(values.items(), grads, strict=True)
    }
    spread = {p: (x.detach().float()[real] - reference[p].to(x.device)).abs() for p, x in values.items()}
    found = {}
    for wire in wires(stack):
        if wire.source not in spread or wire.target not in slope:
            continue
        g, x = slope[wire.target], spread[wire.source]
        if wire.source.endswith(".v"):
            carried = g.square().sum(0).sqrt()[:, None] * x.square().sum(0).sqrt()[None]
        else:
            carried = _abs_product(g, x, circuit.nodes[wire.target], circuit.nodes[wire.source])
        found[wire.matrix] = (wire.weight.detach().abs() * carried).cpu()
    return found


def _abs_product(g: Tensor, x: Tensor, targets: Tensor, sources: Tensor) -> Tensor:
    """``gᵀ x`` of ``[tokens, target]`` and ``[tokens, source]`` at kept channels, zero elsewhere."""
    out = torch.zeros(g.shape[1], x.shape[1], device=g.device)
    at, by = targets.nonzero()[:, 0].to(g.device), sources.nonzero()[:, 0].to(g.device)
    out[at[:, None], by] = (g[:, at].T @ x[:, by]).to(out)
    return out
