"""Does the search find a circuit just as well for labels that mean nothing?"""

from __future__ import annotations

import math

from bridges.behaviours.nonsense import shuffled_labels
from bridges.circuits.circuit import Circuit
from bridges.circuits.controls.case import Case, Row, control


def against_null(case: Case, name: str, null: Circuit) -> list[Row]:
    """Rows that hold the behaviour's own circuits, found at the same settings, against one null circuit.

    Passed where the null never reaches the target, or needs ``null_ratio`` times as many nodes.
    """
    size, ratio = case.typical_size, case.config.null_ratio
    more = {"split": "train", "n_pairs": case.null_pairs}
    passed = math.isfinite(size) and (not null.reached or null.size >= max(1.0, ratio * size))
    return [
        case.row(name, "null_loss", null.train_loss, reference=case.settings.target, **more),
        case.row(name, "null_nodes", null.size if null.reached else math.nan, size=null.size, **more),
        case.row(
            name,
            "nodes",
            size if math.isfinite(size) else math.nan,
            reference=null.size if null.reached else math.nan,
            threshold=null.size / ratio if null.reached else math.nan,
            passed=passed,
            **more,
        ),
    ]


@control("nonsense")
def nonsense(case: Case) -> list[Row]:
    """The same search on the same prompts with the right tokens of half the pairs exchanged by a hash of the prompt.

    The median size over seeds of the behaviour's own circuit is compared, so that luck on one seed does not decide.
    """
    return against_null(case, "nonsense", case.null_search(shuffled_labels(case.train)))
