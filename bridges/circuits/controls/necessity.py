"""Does the model lose the behaviour without the circuit, more than without as many random nodes?"""

from __future__ import annotations

from bridges.circuits.bootstrap import share_of
from bridges.circuits.controls.case import Case, Row, control
from bridges.circuits.node_sets import random_sets, set_logit_diffs

# Pairs that every random set is tried on.
SET_PAIRS = 16


@control("necessity")
def necessity(case: Case) -> list[Row]:
    """Accuracy of the whole model with the circuit's nodes at their means (paper, Fig. 32), and the share of random
    sets of the same size per kind and layer, drawn from all nodes, that do less harm to the mean logit difference.

    The random sets are tried on fewer pairs, and so is the circuit beside them.
    """
    without = case.without()
    few = case.prompts.take(slice(0, 2 * min(SET_PAIRS, len(case.pairs))))
    sets = random_sets(case.circuit, case.config.random_sets, case.generator("necessity"))
    others = set_logit_diffs(case.stack, few, sets, case.circuit.reference).double().mean(1).cpu().numpy()
    own = float(without[: len(few)].double().mean())
    share = share_of(int((others > own).sum()), len(others))
    more = {"reference": float(others.mean())}
    return [
        case.row("necessity", "accuracy_without", case.accuracy(without), decides=True),
        case.row("necessity", "logit_diff_without", case.mean(without), **more),
        case.row("necessity", "harmless_random_sets", share, decides=True, n_pairs=len(few) // 2),
    ]
