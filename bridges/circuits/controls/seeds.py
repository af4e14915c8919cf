"""Does another seed's search find what does the same?"""

from __future__ import annotations

import math
from dataclasses import replace

from bridges.circuits.circuit import Circuit
from bridges.circuits.controls.case import Case, Row, control
from bridges.circuits.task import unexplained


def _minus(one: Circuit, two: Circuit) -> Circuit:
    """The circuit without the nodes of another."""
    return replace(one, nodes={p: kept & ~two.nodes[p] for p, kept in one.nodes.items()}, edges=None)


def jaccard(one: Circuit, two: Circuit) -> float:
    """Shared nodes over all nodes of either; 1 for two empty circuits."""
    shared = sum(int((kept & two.nodes[p]).sum()) for p, kept in one.nodes.items())
    union = one.size + two.size - shared
    return shared / union if union else 1.0


@control("seeds")
def seeds(case: Case) -> list[Row]:
    """Functional overlap: how well one seed's circuit still does the behaviour without the nodes of another's.

    Near chance where both found the same computation; high where they found two that do it apart. The worst pair of
    seeds counts. The Jaccard index of nodes stands beside it: it is confounded by what all circuits of a model share.
    """
    others = [case.search(case.train, case.seed + k) for k in range(1, case.config.seeds)]
    rows = []
    worst = None
    for k, other in enumerate(others, 1):
        more = {"draw": k, "size": other.size}
        explains = unexplained(case.alone(circuit=other), case.model_diff, case.prompts.sign)
        rows.append(case.row("seeds", "fvu", float(explains) if other.reached else math.nan, **more))
        rows.append(case.row("seeds", "jaccard", jaccard(case.circuit, other), **more))
        for one, two in ((case.circuit, other), (other, case.circuit)):
            found = case.accuracy(case.alone(circuit=_minus(one, two)))
            rows.append(case.row("seeds", "accuracy_of_the_rest", found, **more))
            if worst is None or found.value > worst["value"]:
                worst = rows[-1]
    if worst is not None:
        worst["decides"] = True
    return rows
