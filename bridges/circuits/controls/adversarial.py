"""Is there a small set of nodes outside the circuit on which its behaviour hangs?"""

from __future__ import annotations

import numpy as np
import torch

from bridges.circuits.attack import attack
from bridges.circuits.controls.case import Case, Row, control
from bridges.circuits.task import Prompts


def halves(some: Prompts, generator: torch.Generator) -> tuple[Prompts, Prompts]:
    """One half of the pairs of prompts and the other, drawn; one pair is both.

    Pairs stand in the order of their templates: every second one would share no template with the rest.
    """
    pairs = torch.arange(len(some)).view(-1, 2)
    pairs = pairs[torch.randperm(len(pairs), generator=generator)].to(some.ids.device)
    middle = (len(pairs) + 1) // 2
    return some.take(pairs[:middle].flatten()), some.take(pairs[min(middle, len(pairs) - 1) :].flatten())


@control("adversarial")
def adversarial(case: Case) -> list[Row]:
    """Few nodes outside the circuit, the same for all prompts, flipped to do the most harm: ablated in the whole model,
    or brought back into the circuit alone.

    An adversary that chose for every prompt apart could carry the answer itself; one choice for all cannot, provided it
    is judged on other prompts than those it was made on: what undoes a few prompts may say nothing about the behaviour.
    It chooses on one half of the held-out pairs and is judged on the other. It may flip ``adversary_budget`` times as
    many nodes as the circuit has: with thousands of nodes to choose from and no bound, some choice undoes any behaviour
    of any model. It climbs ``adversary_steps`` times, the loss and, apart, the margins, and its worst choice counts;
    passed up to ``adversarial`` nats.
    """
    config, (shown, judged) = case.config, halves(case.prompts, case.generator("adversarial"))
    found = attack(case.stack, case.circuit, shown, judged, config.adversary_budget, config.adversary_steps)
    more = {"n_pairs": len(judged) // 2, "size": max(1, round(config.adversary_budget * case.circuit.size))}
    rows = [
        case.row("adversarial", f"loss_{name}", loss, draw=i, **more)
        for name, tried in found.items()
        for i, loss in enumerate(tried.losses)
    ]
    # NaN, unlike in max(), comes through.
    worst, bar = float(np.max([row["value"] for row in rows])), config.adversarial
    return [*rows, case.row("adversarial", "worst_loss", worst, threshold=bar, passed=worst <= bar, **more)]
