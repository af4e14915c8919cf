"""Does the circuit alone still do the behaviour, on prompts it was not found on?"""

from __future__ import annotations

from bridges.circuits.controls.case import Case, Row, accuracy, control
from bridges.circuits.search.search import heldout_margins
from bridges.circuits.task import task_loss


@control("sufficiency")
def sufficiency(case: Case) -> list[Row]:
    """Held-out loss with everything outside the circuit at its mean; passed up to ``sufficiency`` nats."""
    margins = heldout_margins(case.stack, case.circuit, case.prompts)
    loss, bar = float(task_loss(margins)), case.config.sufficiency
    return [
        case.row("sufficiency", "loss", loss, reference=case.circuit.train_loss, threshold=bar, passed=loss <= bar),
        case.row("sufficiency", "accuracy", accuracy(margins)),
    ]
