"""An adversary: few nodes outside a circuit, the same for all prompts, flipped to do the behaviour the most harm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bridges.circuits.circuit import Circuit
from bridges.circuits.node_sets import NodeSets, complement, set_logit_diffs
from bridges.circuits.task import Prompts, logit_diff, task_loss
from bridges.nodes import NodeFunction, intervene
from bridges.stack import ResidualStack

# How much of the gradients seen so far the adversary keeps: the last one alone makes it go back and forth.
MEMORY = 0.7
# Where it starts from: everything outside the circuit is kept and it ablates, or nothing is and it brings back.
STARTS = {"ablated": 1.0, "restored": 0.0}
# What it climbs: the loss, or the margins' mean, downwards. Where nearly all prompts are safe the loss has next to no
# gradient but that of the few that are lost; the margins count on all of them alike.
GOALS: dict[str, Callable[[Tensor], Tensor]] = {"loss": task_loss, "margin": lambda margins: -margins.mean()}


@dataclass(frozen=True)
class Attack:
    """Nodes that an adversary flips.

    Attributes:
        start: of `STARTS`. ablated: nodes outside the circuit that are ablated then, ``{point: bool [channels]}``.
    """

    start: str
    ablated: dict[str, Tensor]

    def judge(self, stack: ResidualStack, circuit: Circuit, some: Prompts) -> Tensor:
        """Logit differences ``[2n]`` under the attack."""
        sets = {p: ablated[None] for p, ablated in self.ablated.items()}
        return set_logit_diffs(stack, some, sets, circuit.reference)[0]


def _scaled(share: Tensor, mean: Tensor) -> NodeFunction:
    return lambda x: mean.to(x) + (x - mean.to(x)) * share.to(x)


def _gradient(
    stack: ResidualStack, circuit: Circuit, some: Prompts, outside: Mapping[str, Tensor], kept: Tensor, goal: str
) -> Tensor:
    """Of the goal with respect to ``kept [nodes]``, 1 where a node outside the circuit is kept and 0 where not."""
    kept = kept.requires_grad_()
    shares = dict(zip(outside, kept.split([len(m) for m in outside.values()]), strict=True))
    functions = {
        p: _scaled(torch.where(mask, shares[p], 1.0), circuit.reference[p].to(kept.device))
        for p, mask in outside.items()
    }
    with torch.enable_grad(), intervene(stack, functions):
        return torch.autograd.grad(GOALS[goal](logit_diff(stack, some)), kept)[0]


def climb(memory: Tensor, gradient: Tensor, start: float, allowed: Tensor, budget: int) -> tuple[Tensor, Tensor]:
    """One step of the adversary: its memory with a new gradient ``[nodes]``, and the indices of what it flips next.

    Args:
        start: of `worst_attack`. allowed: bool ``[nodes]`` it may choose from. budget: how many.
    """
    memory = MEMORY * memory + gradient / gradient.norm().clamp_min(1e-30)
    gain = (memory * (1 - 2 * start)).masked_fill(~allowed, -torch.inf)
    return memory, gain.topk(min(budget, int(allowed.sum()))).indices


def worst_attack(
    stack: ResidualStack, circuit: Circuit, some: Prompts, start: float, budget: int, steps: int, goal: str = "loss"
) -> NodeSets:
    """What the adversary ablates after each of its steps, ``{point: bool [steps, channels]}``.

    Args:
        some: the prompts it wants to harm.
        start: 1: nodes outside the circuit are kept, and some of them ablated; 0: the other way round.
        budget: how many it may flip. goal: of `GOALS`.
    """
    device = some.ids.device
    outside = {p: kept.to(device) for p, kept in complement(circuit.nodes).items()}
    allowed = torch.cat(list(outside.values()))
    tried, memory = [], torch.zeros(len(allowed), device=device)
    kept = torch.full_like(memory, start)
    for _ in range(steps):
        memory, flipped = climb(memory, _gradient(stack, circuit, some, outside, kept, goal), start, allowed, budget)
        kept = torch.full_like(memory, start).index_fill(0, flipped, 1 - start)
        tried.append(kept < 0.5)
    sets = torch.stack(tried).split([len(m) for m in outside.values()], 1)
    return {p: ablated & outside[p] for p, ablated in zip(outside, sets, strict=True)}


def attack(stack: ResidualStack, circuit: Circuit, shown: Prompts, start: str, budget: int, steps: int) -> Attack:
    """The strongest of the adversary's tries from one start, towards all goals: by the two-way loss on the prompts that
    it is shown.

    Args:
        shown: prompts it selects on. start: of `STARTS`. budget: nodes it may flip. steps: gradient steps a goal.
    """
    tried = [worst_attack(stack, circuit, shown, STARTS[start], budget, steps, goal) for goal in GOALS]
    sets = {p: torch.cat([one[p] for one in tried]) for p in circuit.nodes}
    losses = torch.stack([task_loss(diffs) for diffs in set_logit_diffs(stack, shown, sets, circuit.reference)])
    worst = int(losses.argmax())
    return Attack(start, {p: each[worst].cpu() for p, each in sets.items()})


def random_attack(circuit: Circuit, start: str, budget: int, generator: torch.Generator) -> Attack:
    """As many flips of nodes outside the circuit, drawn at random."""
    outside = complement(circuit.nodes)
    flat = torch.cat(list(outside.values()))
    members = flat.nonzero()[:, 0]
    flips = torch.zeros_like(flat)
    flips[members[torch.randperm(len(members), generator=generator)[:budget]]] = True
    ablated = flips if STARTS[start] else flat & ~flips
    return Attack(start, dict(zip(outside, ablated.split([len(m) for m in outside.values()]), strict=True)))
