"""Is there a small set of nodes outside the circuit on which its behaviour hangs?"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bridges.circuits.controls.case import Case, Row, control
from bridges.circuits.sets import NodeSets, complement, set_margins
from bridges.circuits.task import Prompts, answer_margins, fitted_loss, task_loss
from bridges.nodes import NodeFunction, intervene

# How much of the gradients seen so far the adversary keeps: the last one alone makes it go back and forth.
MEMORY = 0.7


def _scaled(share: Tensor, mean: Tensor) -> NodeFunction:
    return lambda x: mean.to(x) + (x - mean.to(x)) * share.to(x)


def halves(some: Prompts) -> tuple[Prompts, Prompts]:
    """Every second pair of prompts, and the others; one pair is both."""
    pairs = torch.arange(len(some), device=some.ids.device).view(-1, 2)
    return some.take(pairs[0::2].flatten()), some.take(pairs[min(1, len(pairs) - 1) :: 2].flatten())


def _gradient(case: Case, some: Prompts, outside: Mapping[str, Tensor], kept: Tensor) -> Tensor:
    """Of the task loss with respect to ``kept [nodes]``, 1 where a node outside the circuit is kept and 0 where not."""
    kept = kept.requires_grad_()
    shares = dict(zip(outside, kept.split([len(m) for m in outside.values()]), strict=True))
    functions = {
        p: _scaled(torch.where(mask, shares[p], 1.0), case.circuit.reference[p].to(case.device))
        for p, mask in outside.items()
    }
    with torch.enable_grad(), intervene(case.stack, functions):
        return torch.autograd.grad(task_loss(answer_margins(case.stack, some)), kept)[0]


def worst_flips(case: Case, some: Prompts, start: float, budget: int, steps: int) -> NodeSets:
    """What the adversary ablates after each of its steps, ``{point: bool [steps, channels]}``.

    Args:
        some: the prompts it wants to harm.
        start: 1: nodes outside the circuit are kept, and some of them ablated; 0: the other way round.
        budget: how many it may flip.
    """
    outside = {p: kept.to(case.device) for p, kept in complement(case.circuit.nodes).items()}
    allowed = torch.cat(list(outside.values()))
    tried, memory = [], torch.zeros(len(allowed), device=case.device)
    kept = torch.full_like(memory, start)
    for _ in range(steps):
        gradient = _gradient(case, some, outside, kept)
        memory = MEMORY * memory + gradient / gradient.norm().clamp_min(1e-30)
        gain = (memory * (1 - 2 * start)).masked_fill(~allowed, -torch.inf)
        flipped = gain.topk(min(budget, int(allowed.sum()))).indices
        kept = torch.full_like(memory, start).index_fill(0, flipped, 1 - start)
        tried.append(kept < 0.5)
    sets = torch.stack(tried).split([len(m) for m in outside.values()], 1)
    return {p: ablated & outside[p] for p, ablated in zip(outside, sets, strict=True)}


@control("adversarial")
def adversarial(case: Case) -> list[Row]:
    """Few nodes outside the circuit, the same for all prompts, flipped to do the most harm: ablated in the whole model,
    or brought back into the circuit alone.

    An adversary that chose for every prompt apart could carry the answer itself; one choice for all cannot, provided it
    is judged on other prompts than those it was made on: what undoes a few prompts may say nothing about the behaviour.
    It chooses on every second held-out pair and is judged on the rest. It may flip ``adversary_budget`` times as many
    nodes as the circuit has: with thousands of nodes to choose from and no bound, some choice undoes any behaviour of
    any model. It climbs ``adversary_steps`` times, and its worst choice counts.
    Losses are calibrated on the very prompts, so that only lost information counts; passed up to ``adversarial``
    nats.
    """
    config, (shown, some) = case.config, halves(case.prompts)
    budget = max(1, round(config.adversary_budget * case.circuit.size))
    rows, more = [], {"n_pairs": len(some) // 2, "size": budget}
    for name, start in (("ablated", 1.0), ("restored", 0.0)):
        sets = worst_flips(case, shown, start, budget, config.adversary_steps)
        losses = [fitted_loss(m, some.sign) for m in set_margins(case.stack, some, sets, case.circuit.reference)]
        rows += [case.row("adversarial", f"loss_{name}", loss, draw=i, **more) for i, loss in enumerate(losses)]
    worst, bar = max(row["value"] for row in rows), config.adversarial
    return [*rows, case.row("adversarial", "worst_loss", worst, threshold=bar, passed=worst <= bar, **more)]
