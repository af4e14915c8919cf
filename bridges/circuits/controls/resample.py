"""Does the circuit alone do the behaviour while every other node says what it says in other text?"""

from __future__ import annotations

from bridges.circuits.ablation import node_values, windows
from bridges.circuits.controls.case import Case, Row, accuracy, control
from bridges.circuits.search.search import heldout_margins
from bridges.circuits.task import fitted_loss, task_loss


@control("resample")
def resample(case: Case) -> list[Row]:
    """Resample ablation: held-out loss with every node outside the circuit at its value in random text.

    Harder than the mean: what other text writes last is its own next token. The circuit's scale was fitted where that
    was constant, so ``loss`` can be far above chance though most prompts are decided rightly; it is fitted anew to
    these very prompts, so that only lost information counts. The mean over the draws is passed up to ``resample`` nats.
    """
    some, generator, rows = case.prompts, case.generator("resample"), []
    losses = []
    for draw in range(case.config.draws):
        ids = windows(case.text, len(some), some.ids.shape[1], generator).to(some.ids.device)
        values = node_values(case.stack, ids)
        margins = heldout_margins(case.stack, case.circuit, some, values)
        losses.append(fitted_loss(margins, some.sign))
        more = {"ablation": "resample", "draw": draw}
        rows.append(case.row("resample", "loss", float(task_loss(margins)), **more))
        rows.append(case.row("resample", "fitted_loss", losses[-1], **more))
        rows.append(case.row("resample", "accuracy", accuracy(margins), **more))
    mean, bar = sum(losses) / len(losses), case.config.resample
    deciding = {"threshold": bar, "passed": mean <= bar, "ablation": "resample"}
    return [*rows, case.row("resample", "mean_fitted_loss", mean, **deciding)]
