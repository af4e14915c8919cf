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
    resample,
    seeds,
    shuffled_weights,
    stochastic,
    sufficiency,
)
from bridges.circuits.controls.case import REGISTRY, Case, Null, Row

# Those that search for further circuits, which takes longer than all the others together; the other two are compared
# with the circuits of the first.
SEARCHING = ("seeds", "nonsense", "shuffled_weights")


def run_controls(case: Case, progress: Callable[[str], None] = lambda name: None) -> list[Row]:
    """Rows of every control that the case's config chooses; see ``stop_early`` there."""
    rows: list[Row] = []
    quick = [name for name in case.config.chosen if name not in SEARCHING]
    for name in [*quick, *(name for name in SEARCHING if name in case.config.chosen)]:
        failed = any(row["passed"] is not None and not row["passed"] for row in rows)
        if case.config.stop_early and failed and name in SEARCHING:
            continue
        progress(name)
        rows += REGISTRY[name](case)
    return rows


__all__ = ["REGISTRY", "Case", "Null", "Row", "run_controls"]
