"""Circuits: the few nodes and weights of a stack that do a behaviour, and how they are found."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bridges.circuits.ablation import node_means
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
    from bridges.circuits.search.search import Search, find_circuit
    from bridges.circuits.weights import EdgeMatrix

# Imported on first use: the settings of a run read `settings` below, long before anything needs torch.
_LAZY = {
    "circuit": ("Circuit", "EdgeCount", "ablated", "circuit_logits", "count_edges", "kept_edges", "only", "removal"),
    "ablation": ("node_means",),
    "search.search": ("Search", "find_circuit"),
    "weights": ("EdgeMatrix",),
}
_HOME = {name: module for module, names in _LAZY.items() for name in names}

__all__ = [
    "Circuit",
    "EdgeCount",
    "EdgeMatrix",
    "Search",
    "ablated",
    "circuit_logits",
    "count_edges",
    "find_circuit",
    "kept_edges",
    "node_means",
    "only",
    "removal",
    # The function `edge_matrices` has the name of its module: `from bridges.circuits.weights import edge_matrices`.
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"bridges.circuits.{_HOME[name]}"), name)
    raise AttributeError(f"module 'bridges.circuits' has no attribute {name!r}")
