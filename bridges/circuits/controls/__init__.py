"""Controls: what tells a circuit from an artefact of the search (paper, appendix E; the critique).

Each control is a function that takes a `Case` and returns rows of table ``controls``. The row with ``decides`` is what
the verdict reads; bars stand with the verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from bridges.circuits.controls import (  # noqa: F401  (importing registers them)
    adversarial,
    interchange,
    necessity,
    null_searches,
    random_circuits,
    reach,
    resample,
    seeds,
    stochastic,
)
from bridges.circuits.controls.case import REGISTRY, Case, Null, Row

# Those that search for further circuits, which takes longer than all the others together.
SEARCHING = ("seeds", "consistent_labels", "shuffled_labels", "shuffled_weights")


def run_controls(case: Case, names: Iterable[str], progress: Callable[[str], None] = lambda name: None) -> list[Row]:
    """Rows of the controls with these names, in this order."""
    rows: list[Row] = []
    for name in names:
        progress(name)
        rows += REGISTRY[name](case)
    return rows


__all__ = ["REGISTRY", "SEARCHING", "Case", "Null", "Row", "run_controls"]
