"""Does the circuit alone do the behaviour while every other node has its value on other prompts?"""

from __future__ import annotations

import torch

from bridges.circuits.ablation import windows
from bridges.circuits.controls.case import Case, Row, control


@control("resample")
def resample(case: Case) -> list[Row]:
    """Accuracy of the circuit with all else at its values on *other prompts of the behaviour* (causal scrubbing's kind
    of ablation), clean and counterfactual ones drawn alike."""
    generator, draws = case.generator("resample"), []
    values = case.node_values(case.prompts.ids)
    for _ in range(case.config.draws):
        order = torch.randint(len(case.prompts), (len(case.prompts),), generator=generator)
        draws.append(case.alone({p: value[order.to(value.device)] for p, value in values.items()}))
    found = case.accuracy(torch.stack(draws))
    return [case.row("resample", "accuracy", found, decides=True, ablation="resample")]


@control("random_text")
def random_text(case: Case) -> list[Row]:
    """The same with values from random text: a stress test, since other text brings its own next token along."""
    some, generator, draws = case.prompts, case.generator("random_text"), []
    for _ in range(case.config.draws):
        ids = windows(case.text, len(some), some.ids.shape[1], generator).to(some.ids.device)
        draws.append(case.alone(case.node_values(ids)))
    found = case.accuracy(torch.stack(draws))
    return [case.row("random_text", "accuracy", found, decides=True, ablation="resample")]
