"""Is the circuit indifferent to which of the other nodes are ablated?"""

from __future__ import annotations

import numpy as np
import torch

from bridges.circuits.controls.case import Case, Row, control
from bridges.circuits.node_sets import complement, random_parts, set_margins
from bridges.circuits.task import fitted_loss

SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)


@control("stochastic")
def stochastic(case: Case) -> list[Row]:
    """Loss of the whole model with random shares of the nodes outside the circuit at their means.

    The circuit says that they do not matter, so that no share of them may. Every loss is calibrated on the very prompts
    (what stays is neither whole model nor circuit); the worst mean over draws of a share is passed up to
    ``stochastic`` nats.
    """
    some, draws = case.few, case.config.draws
    shares = torch.tensor([share for share in SHARES for _ in range(draws)])
    sets = random_parts(complement(case.circuit.nodes), shares, case.generator("stochastic"))
    margins = set_margins(case.stack, some, sets, case.circuit.reference)
    losses = [fitted_loss(m, some.sign) for m in margins]
    more = {"n_pairs": len(some) // 2}
    sizes = torch.stack([s.sum(1) for s in sets.values()]).sum(0)
    rows, means = [], []
    for i, loss in enumerate(losses):
        share, draw = SHARES[i // draws], i % draws
        rows.append(case.row("stochastic", f"loss_{share:g}", loss, draw=draw, size=int(sizes[i]), **more))
    for i in range(len(SHARES)):
        means.append(sum(losses[i * draws : (i + 1) * draws]) / draws)
    worst, bar = float(np.max(means)), case.config.stochastic
    return [*rows, case.row("stochastic", "worst_loss", worst, threshold=bar, passed=worst <= bar, **more)]
