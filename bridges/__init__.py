"""Bridges: which behaviours of a dense language model are reproduced by an interpretable sparse circuit?

The command ``bridges run`` trains, searches and judges, and leaves a folder. In Python that folder is a run:

    import bridges

    run = bridges.load("runs/<folder>")
    run.verdict("for_while")                        # the answer, why, and every criterion
    circuit = run.circuit("for_while")              # nodes and edges, with their attribution
    circuit.draw()
    run.steer("for_while")                          # the circuit's change, moved into the dense model
    run.hybrid("for i in range(", dense_until=3)    # logits: dense up to bridge 3, sparse from there on
    run.table("transfer")                           # any of the run's tables, as a DataFrame

Every model is a residual stack whose named channels can be read and changed while a block runs:

    with bridges.record(run.sparse, "*.mlp_neuron") as seen:
        run.sparse.logits(run.prompts("for_while").ids[:, 0])
    with bridges.intervene(run.dense, {"1.q": lambda x: 0 * x}):
        run.dense.logits(run.prompts("for_while").ids[:, 0])
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bridges.version import __version__

if TYPE_CHECKING:  # what type checkers and editors see of the names below
    from bridges.bridge import Bridges
    from bridges.config import Config
    from bridges.dense import load_dense, wrap_dense
    from bridges.errors import BridgesError
    from bridges.nodes import intervene, record
    from bridges.runs.notebook import Run, load
    from bridges.sparse import SparseTransformer, SparseTransformerConfig

# Imported on first use: `import bridges` must stay quick, and the command line sets the process up before torch loads.
_LAZY = {
    "load": "bridges.runs.notebook",
    "Run": "bridges.runs.notebook",
    "Bridges": "bridges.bridge",
    "SparseTransformer": "bridges.sparse",
    "SparseTransformerConfig": "bridges.sparse",
    # From where every kind of model is known.
    "load_dense": "bridges.runs.models",
    "wrap_dense": "bridges.dense",
    "record": "bridges.nodes",
    "intervene": "bridges.nodes",
    "Config": "bridges.config",
    "BridgesError": "bridges.errors",
}

__all__ = [
    "Bridges",
    "BridgesError",
    "Config",
    "Run",
    "SparseTransformer",
    "SparseTransformerConfig",
    "__version__",
    "intervene",
    "load",
    "load_dense",
    "record",
    "wrap_dense",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'bridges' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, "__doc__", "__file__", "__path__"})
