"""Is there a small set of nodes outside the circuit on which its behaviour hangs?"""

from __future__ import annotations

import torch

from bridges.circuits.attack import STARTS, attack, random_attack
from bridges.circuits.controls.case import Case, Row, control


@control("adversarial")
def adversarial(case: Case) -> list[Row]:
    """Few nodes outside the circuit, the same for all prompts, flipped to do the most harm: ablated in the whole model,
    or brought back into the circuit alone.

    The adversary selects its nodes on training pairs, the strongest of its tries among them, and is judged once on
    held-out pairs, beside random nodes of the same number. It may flip ``adversary_budget`` times as many nodes as the
    circuit has: with thousands of nodes to choose from and no bound, some choice undoes any behaviour of any model.
    """
    config, rows = case.config, []
    budget = max(1, round(config.adversary_budget * case.circuit.size))
    worst = None
    for start in STARTS:
        flipped = attack(case.stack, case.circuit, case.shown, start, budget, config.adversary_steps)
        diffs = flipped.judge(case.stack, case.circuit, case.prompts)
        found = case.mean(_losses(diffs))
        rows.append(case.row("adversarial", f"loss_{start}", found, size=budget))
        rows.append(case.row("adversarial", f"accuracy_{start}", case.accuracy(diffs), size=budget))
        if worst is None or found.value > worst[0].value:
            worst = (found, start)
    assert worst is not None
    found, start = worst
    generator = case.generator("adversarial")
    drawn = [
        random_attack(case.circuit, start, budget, generator).judge(case.stack, case.circuit, case.prompts)
        for _ in range(config.draws)
    ]
    chance = case.mean(_losses(torch.stack(drawn)))
    rows.append(case.row("adversarial", "loss_random", chance, size=budget))
    return [*rows, case.row("adversarial", "loss", found, reference=chance.value, size=budget, decides=True)]


def _losses(diffs: torch.Tensor) -> torch.Tensor:
    """Two-way cross-entropy of every prompt in nats, of any shape."""
    return torch.nn.functional.softplus(-diffs)
