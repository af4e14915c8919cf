"""Would any nodes of the same kinds and layers have done as a circuit?"""

from __future__ import annotations

from bridges.circuits.controls.case import Case, Row, control
from bridges.circuits.node_sets import complement, random_sets, set_logit_diffs
from bridges.circuits.task import unexplained

SET_PAIRS = 16


@control("random_circuits")
def random_circuits(case: Case) -> list[Row]:
    """Share of random sets of the circuit's size per kind and layer, drawn from all nodes, that explain less alone."""
    few = case.prompts.take(slice(0, 2 * min(SET_PAIRS, len(case.pairs))))
    model = case.model_diff[: len(few)]
    sets = random_sets(case.circuit, case.config.random_sets, case.generator("random_circuits"))
    diffs = set_logit_diffs(case.stack, few, complement(sets), case.circuit.reference)
    others = [float(unexplained(d, model, few.sign)) for d in diffs]
    own = float(unexplained(case.alone()[: len(few)], model, few.sign))
    worse = sum(x > own for x in others) / len(others)
    more = {"n_pairs": len(few) // 2, "reference": sum(others) / len(others)}
    return [case.row("random_circuits", "worse_random_sets", worse, decides=True, **more)]
