"""Does the model lose the behaviour without the circuit, more than without as many other nodes?"""

from __future__ import annotations

import torch

from bridges.circuits.controls.case import Case, Row, control
from bridges.circuits.node_sets import random_sets, set_margins
from bridges.circuits.task import task_loss


@control("necessity")
def necessity(case: Case) -> list[Row]:
    """Loss of the whole model with the circuit's nodes at their means (paper, Fig. 32), against random node sets.

    Passed where it is above the ``quantile`` of ``random_sets`` sets with as many nodes at every point.
    """
    some, config = case.few, case.config
    circuit = {point: kept[None] for point, kept in case.circuit.nodes.items()}
    sets = random_sets(case.circuit, config.random_sets, case.generator("necessity"))
    together = {point: torch.cat([circuit[point], sets[point]]) for point in circuit}
    losses = torch.stack([task_loss(m) for m in set_margins(case.stack, some, together, case.circuit.reference)])
    loss, others = float(losses[0]), losses[1:]
    bar = float(others.quantile(config.quantile))
    more = {"n_pairs": len(some) // 2}
    rows = [case.row("necessity", "random_loss", float(x), draw=i, **more) for i, x in enumerate(others)]
    deciding = case.row(
        "necessity", "loss", loss, reference=float(others.mean()), threshold=bar, passed=loss > bar, **more
    )
    return [*rows, deciding]
