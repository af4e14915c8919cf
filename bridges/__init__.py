"""Bridges: which behaviours of a dense language model are reproduced by an interpretable sparse circuit?"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Imported on first use: `import bridges` must stay quick, and the command line sets the process up before torch loads.
_LAZY = {
    "load": "bridges.runs.notebook",
    "Run": "bridges.runs.notebook",
    "Bridges": "bridges.bridge",
    "SparseTransformer": "bridges.sparse",
    "SparseTransformerConfig": "bridges.sparse",
    "load_dense": "bridges.dense",
    "wrap_dense": "bridges.dense",
    "record": "bridges.nodes",
    "intervene": "bridges.nodes",
    "Config": "bridges.config",
}

__all__ = ["__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'bridges' has no attribute {name!r}")
