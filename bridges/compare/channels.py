"""The channels of the sparse stream that a circuit uses at a site."""

from __future__ import annotations

import torch
from torch import Tensor

from bridges.circuits.circuit import Circuit, kept_edges
from bridges.circuits.weights import edge_matrices
from bridges.stack import ResidualStack

READS, WRITES = ("attn_in", "mlp_in"), ("attn_out", "mlp_out")


def _sublayer(point: str) -> int:
    """The sublayer a point of a sparse stack lies in: attention of layer l is 2l, its MLP 2l + 1."""
    layer, kind = point.split(".")
    return 2 * int(layer) + (kind in ("mlp_in", "mlp_neuron", "mlp_out"))


def _used(stack: ResidualStack, circuit: Circuit) -> dict[str, Tensor]:
    """``{point: bool [channels]}`` of the nodes that read or write the stream; with edges only those that have one."""
    ends = {p: kept.clone() for p, kept in circuit.nodes.items() if p.split(".")[1] in READS + WRITES}
    if circuit.edges is None:
        return ends
    joined = {p: torch.zeros_like(kept) for p, kept in ends.items()}
    edges = kept_edges(stack, circuit)
    for matrix in edge_matrices(stack):
        if matrix.name in edges:
            if matrix.source in joined:
                joined[matrix.source] |= edges[matrix.name].any(0)
            if matrix.target in joined:
                joined[matrix.target] |= edges[matrix.name].any(1)
    return {p: kept & joined[p] for p, kept in ends.items()}


def live_channels(stack: ResidualStack, circuit: Circuit) -> Tensor:
    """Stream channels that a circuit uses at every site, ``bool [sites, d_model]``.

    At site i those that a kept node of a later sublayer reads (i and above) or a kept node of an earlier one has
    written. Where the circuit has edges of its own, a node without any neither reads nor writes. Position channels
    beside the stream are no part of it.

    Args:
        stack: the sparse stack the circuit was cut out of.
    """
    live = torch.zeros(stack.n_sublayers + 1, stack.d_model, dtype=torch.bool)
    for point, kept in _used(stack, circuit).items():
        kept, sublayer = kept[: stack.d_model], _sublayer(point)
        if point.split(".")[1] in READS:
            live[: sublayer + 1] |= kept
        else:
            live[sublayer + 1 :] |= kept
    return live
