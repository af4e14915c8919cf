"""Controls: what tells a circuit from an artefact of the search (paper, appendix E; the critique).

Each control is one file with one function that takes a `Case` and returns rows of table ``controls``. The row with a
``passed`` decides; its ``threshold`` is the bar it was held to.
"""

from __future__ import annotations

from collections.abc import Callable

from bridges.circuits.controls import (  # noqa: F401  (importing registers them)
    adversarial,
    interchange,
    necessity,
    nonsense,
    random_circuits,
    random_weights,
    resample,
    seeds,
    stochastic,
    sufficiency,
)
from bridges.circuits.controls.case import REGISTRY, Case, Null, Row


def run_controls(case: Case, progress: Callable[[str], None] = lambda name: None) -> list[Row]:
    """Rows of every control that the case's config chooses."""
    rows: list[Row] = []
    for name in case.config.chosen:
        progress(name)
        rows += REGISTRY[name](case)
    return rows


__all__ = ["REGISTRY", "Case", "Null", "Row", "run_controls"]
