"""Is the circuit indifferent to which of the other nodes are ablated?"""

from __future__ import annotations

import torch

from bridges.circuits.controls.case import Case, Row, control
from bridges.circuits.node_sets import complement, random_parts, set_logit_diffs

SHARES = (0.25, 0.5, 0.75)


@control("stochastic")
def stochastic(case: Case) -> list[Row]:
    """Accuracy of the whole model with random shares of the nodes outside the circuit at their means.

    The circuit says that they do not matter, so that no share of them may: the share with the least accuracy counts.
    """
    draws = case.config.draws
    shares = torch.tensor([share for share in SHARES for _ in range(draws)])
    sets = random_parts(complement(case.circuit.nodes), shares, case.generator("stochastic"))
    diffs = set_logit_diffs(case.stack, case.prompts, sets, case.circuit.reference)
    found = [case.accuracy(diffs[i * draws : (i + 1) * draws]) for i in range(len(SHARES))]
    worst = min(range(len(SHARES)), key=lambda i: found[i].value)
    return [
        case.row("stochastic", f"accuracy_{share:g}", each, decides=i == worst)
        for i, (share, each) in enumerate(zip(SHARES, found, strict=True))
    ]
