"""Does the search come to the same nodes from another seed?"""

from __future__ import annotations

import itertools
import math

import torch

from bridges.circuits.circuit import Circuit
from bridges.circuits.controls.case import Case, Row, control


def jaccard(one: Circuit, two: Circuit) -> float:
    """Shared nodes over all nodes of either; 1 for two empty circuits."""
    a, b = (torch.cat(list(c.nodes.values())) for c in (one, two))
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def chance_jaccard(one: Circuit, two: Circuit) -> float:
    """The same expected of random sets with as many nodes at every point (ratio of expectations)."""
    shared = sum(float(one.nodes[p].sum() * two.nodes[p].sum()) / len(one.nodes[p]) for p in one.nodes)
    union = one.size + two.size - shared
    return shared / union if union else 1.0


@control("seeds")
def seeds(case: Case) -> list[Row]:
    """Overlap of the circuits of several seeds, all searched at the settings of the nulls.

    Passed where the mean Jaccard index is at least ``jaccard`` and at least ``overlap`` times what random sets of these
    sizes would share. There is no index, and the control is not passed, where a seed has missed the target.
    """
    pairs = list(itertools.combinations(case.repeats, 2))
    found = [jaccard(a, b) for a, b in pairs]
    chance = [chance_jaccard(a, b) for a, b in pairs]
    reached = all(c.reached for c in case.repeats)
    mean, expected = sum(found) / len(found) if reached else math.nan, sum(chance) / len(chance)
    more = {"split": "train", "n_pairs": case.null_pairs}
    rows = [
        case.row("seeds", "nodes", c.size, draw=i, size=c.size, reference=c.train_loss, **more)
        for i, c in enumerate(case.repeats)
    ]
    bar = max(case.config.jaccard, case.config.overlap * expected)
    passed = mean >= bar
    return [*rows, case.row("seeds", "jaccard", mean, reference=expected, threshold=bar, passed=passed, **more)]
