"""The adversary of learned pruning: it ablates nodes of the whole model, and brings nodes back into the circuit alone.

Nodes whose ablation in the whole model does most harm become *protected*: they stay in the circuit, though alone it
does without them. An adversary on training pairs names them while the gates still move, so that the rest can adapt.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bridges.circuits.attack import GOALS, climb
from bridges.circuits.patch import patch
from bridges.circuits.search.gates import Gates
from bridges.circuits.task import Prompts, logit_diff, task_loss
from bridges.nodes import NodeFunction, intervene
from bridges.stack import ResidualStack

# The adversary may flip as many nodes, as a share of the circuit's, as that of the control.
SHARE = 0.1
# Where it starts and what it climbs, one after the other: each of them apart, as the control's adversary does.
TURNS = ((False, "loss"), (True, "loss"), (True, "margin"))
# A choice that does less harm, in nats, protects no node.
ENOUGH = 0.3
# Of the nodes whose ablation did harm in a step, the share that become protected: enough to come to an end, and few
# enough that the next step's choice sees what they are good for.
NAMED = 0.1
# With this temperature a gate's surrogate gradient at τ = 0 is that of its value.
_PLAIN = 0.25


@dataclass
class _Side:
    """What the adversary knows from one start, of one goal.

    Attributes:
        memory: running mean of gradients ``[nodes]``. flipped: its choice, bool ``[nodes]``.
        fit: log-scale and shift of the logits in its world: only lost information counts.
    """

    memory: Tensor
    flipped: Tensor
    fit: list[nn.Parameter]


class Adversary:
    """The adversary of `learn_gates`: between two steps it takes one of its own.

    Args:
        stack: whose gates are learned.
    """

    def __init__(self, stack: ResidualStack):
        self.stack, self.widths = stack, list(stack.nodes.widths.values())
        self.device = next(stack.parameters()).device  # type: ignore[attr-defined]
        self.sides = {turn: self._side() for turn in TURNS}
        self.named = torch.zeros(sum(self.widths), dtype=torch.bool, device=self.device)

    def _side(self) -> _Side:
        count = sum(self.widths)
        fit = [nn.Parameter(torch.zeros((), device=self.device)) for _ in range(2)]
        flipped = torch.zeros(count, dtype=torch.bool, device=self.device)
        return _Side(torch.zeros(count, device=self.device), flipped, fit)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Scales and shifts that are learned beside the gates."""
        return [p for side in self.sides.values() for p in side.fit]

    def _points(self, flat: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.stack.nodes.widths, flat.split(self.widths), strict=True))

    @property
    def protected(self) -> dict[str, Tensor]:
        """The nodes it has named, ``{point: bool [channels]}``."""
        return self._points(self.named.cpu())

    def gradients(self, gates: Gates, some: Prompts, step: int) -> dict[str, Tensor]:
        """What its last choice teaches the gates, ``{point: [channels]}``, to be added to the gradients of their τ.

        In the circuit alone, one step of three, it has brought nodes back: the gradient lets the others make up for
        that. In the whole model it has ablated some: where that did harm, those whose return would undo most of it
        become protected. Then it selects anew.
        """
        whole, goal = turn = TURNS[step % len(TURNS)]
        side = self.sides[turn]
        open_ = torch.cat([gates.tau[owner].detach() > 0 for owner in gates.owner.values()])
        flipped = side.flipped & ~open_
        kept = self._points(~flipped if whole else open_ | flipped)
        probes = {point: torch.zeros_like(value).requires_grad_() for point, value in self._points(side.memory).items()}

        def gated(point: str) -> NodeFunction:
            return lambda x: patch(x, kept[point], gates.reference[point], probes[point], _PLAIN)

        log_scale, shift = side.fit
        with torch.enable_grad(), intervene(self.stack, {point: gated(point) for point in probes}):
            margins = logit_diff(self.stack, some) * log_scale.clamp(-3, 3).exp() + some.sign * shift
            loss = task_loss(margins)
            log_scale.grad, shift.grad = torch.autograd.grad(loss, side.fit, retain_graph=True)
            found = torch.autograd.grad(GOALS[goal](margins), list(probes.values()))
        gradient = torch.cat(found)
        if whole and float(loss.detach()) > ENOUGH and bool(flipped.any()):
            relief = (-gradient).masked_fill(~flipped, -torch.inf)
            count = max(1, round(NAMED * int(flipped.sum())))
            self.named = self.named.index_fill(0, relief.topk(count).indices, True)
        budget = max(1, round(SHARE * int(open_.sum())))
        side.memory, chosen = climb(side.memory, gradient, float(whole), ~open_, budget)
        side.flipped = torch.zeros_like(open_).index_fill(0, chosen, True)
        # As the slope of the gates' own sigmoids has it.
        taught = torch.zeros_like(gradient) if whole else gradient.masked_fill(flipped, 0) / (4 * gates.temperature)
        return self._points(taught)

    def hold(self, gates: Gates) -> None:
        """Open the protected nodes' gates, whatever the penalty says."""
        for point, named in self._points(self.named).items():
            gates.tau[gates.owner[point]].data.masked_fill_(named, 1.0)
