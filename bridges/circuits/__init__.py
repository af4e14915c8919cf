"""Circuits: the few nodes and weights of a stack that do a behaviour, and how they are found."""

from bridges.circuits.circuit import (
    Circuit,
    EdgeCount,
    ablated,
    circuit_logits,
    count_edges,
    kept_edges,
    only,
    removal,
)
from bridges.circuits.search import Search, find_circuit, heldout_margins, node_means
from bridges.circuits.settings import CircuitSettings
from bridges.circuits.wires import Wire, wires

__all__ = [
    "Circuit",
    "CircuitSettings",
    "EdgeCount",
    "Search",
    "Wire",
    "ablated",
    "circuit_logits",
    "count_edges",
    "find_circuit",
    "heldout_margins",
    "kept_edges",
    "node_means",
    "only",
    "removal",
    "wires",
]
