"""Would any nodes of the same kinds and layers have done as a circuit?"""

from __future__ import annotations

import torch

from bridges.circuits.controls.case import Case, Row, control
from bridges.circuits.node_sets import complement, random_sets, set_margins
from bridges.circuits.task import fitted_loss


@control("random_circuits")
def random_circuits(case: Case) -> list[Row]:
    """Loss of the circuit's nodes alone against random sets with as many nodes at every point.

    Weights between kept nodes all stay, and each set is calibrated on the very prompts, which can only help the random
    ones. Passed where the circuit's loss is below the lower ``1 − quantile`` of the random ones.
    """
    some, config = case.few, case.config
    sets = random_sets(case.circuit, config.random_sets, case.generator("random_circuits"))
    kept = {point: torch.cat([case.circuit.nodes[point][None], sets[point]]) for point in sets}
    margins = set_margins(case.stack, some, complement(kept), case.circuit.reference)
    losses = torch.tensor([fitted_loss(m, some.sign) for m in margins])
    loss, others = float(losses[0]), losses[1:]
    bar = float(others.quantile(1 - config.quantile))
    more = {"n_pairs": len(some) // 2}
    rows = [case.row("random_circuits", "random_loss", float(x), draw=i, **more) for i, x in enumerate(others)]
    deciding = case.row(
        "random_circuits", "loss", loss, reference=float(others.mean()), threshold=bar, passed=loss < bar, **more
    )
    return [*rows, deciding]
