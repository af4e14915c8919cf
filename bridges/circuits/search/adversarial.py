"""Hardening: pruning goes on against an adversary.

A search shows the circuit everything else at its mean, or at values from other text, and so finds what is sufficient.
In the whole model the rest is at work, and a few of its nodes may hold it in check: without them the circuit's own
nodes no longer say what they said. Such *guards* belong to a circuit that is to be faithful, though alone it does
without them. An adversary on training pairs names them while the gates still move, so that the rest can adapt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bridges.circuits.attack import GOALS, climb
from bridges.circuits.circuit import Circuit
from bridges.circuits.patch import choose
from bridges.circuits.search.gates import Gates, learn_gates
from bridges.circuits.task import Prompts, answer_margins, task_loss
from bridges.nodes import NodeFunction, intervene
from bridges.stack import ResidualStack

if TYPE_CHECKING:
    from bridges.circuits.search.search import Search

# The adversary may flip as many nodes, as a share of the circuit's, as that of the control.
SHARE = 0.1
# Where it starts and what it climbs, one after the other: each of them apart, as the control's adversary does.
TURNS = ((False, "loss"), (True, "loss"), (True, "margin"))
# A choice that does less harm, in nats, names no guards.
ENOUGH = 0.3
# Of the nodes whose ablation did harm in a step, the share that become guards: enough to come to an end, and few enough
# that the next step's choice sees what they are good for.
NAMED = 0.1
# With this temperature a gate's surrogate gradient at τ = 0 is that of its value.
_PLAIN = 0.25


def guards_of(circuit: Circuit) -> dict[str, Tensor]:
    """The guards among a circuit's nodes, ``{point: bool [channels]}``."""
    found = {p: torch.zeros_like(kept) for p, kept in circuit.nodes.items()}
    for point, channels in circuit.meta.get("guards", {}).items():
        found[point][channels] = True
    return {p: found[p] & kept for p, kept in circuit.nodes.items()}


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


class Opponent:
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
    def guards(self) -> dict[str, Tensor]:
        """The guards it has named, ``{point: bool [channels]}``."""
        return self._points(self.named.cpu())

    def gradients(self, gates: Gates, some: Prompts, step: int) -> dict[str, Tensor]:
        """What its last choice teaches the gates, ``{point: [channels]}``, to be added to the gradients of their τ.

        In the circuit alone, one step of three, it has brought nodes back: the gradient lets the others make up for
        that. In the whole model it has ablated some: where that did harm, those whose return would undo most of it
        become guards. Then it chooses anew.
        """
        whole, goal = turn = TURNS[step % len(TURNS)]
        side = self.sides[turn]
        open_ = torch.cat([gates.tau[owner].detach() > 0 for owner in gates.owner.values()])
        flipped = side.flipped & ~open_
        kept = self._points(~flipped if whole else open_ | flipped)
        probes = {point: torch.zeros_like(value).requires_grad_() for point, value in self._points(side.memory).items()}

        def gated(point: str) -> NodeFunction:
            return lambda x: choose(x, kept[point], gates.reference[point], probes[point], _PLAIN)

        log_scale, shift = side.fit
        with torch.enable_grad(), intervene(self.stack, {point: gated(point) for point in probes}):
            margins = answer_margins(self.stack, some) * log_scale.clamp(-3, 3).exp() + some.sign * shift
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
        """Open the guards' gates, whatever the price says."""
        for point, named in self._points(self.named).items():
            gates.tau[gates.owner[point]].data.masked_fill_(named, 1.0)


def hardened(search: Search, scores: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, list[int]]]:
    """A ranking pruned further against an adversary on training pairs: its scores, ``{point: [channels]}``, with the
    guards first, and the guards, channels by point.

    Also where nothing seems to undo a circuit of the ranking: what an adversary finds on some pairs says little of what
    one finds on others, and of two seeds one would be hardened and the other not.
    """
    opponent = Opponent(search.stack)
    settings = replace(search.settings, steps=search.settings.hardening, abandon=None)
    scores = learn_gates(
        search.stack, search.encoded, search.removed, settings, search.seed, start=scores, opponent=opponent
    )
    guards = {p: named.nonzero()[:, 0].tolist() for p, named in opponent.guards.items() if named.any()}
    span = 2 + max(float(-v.min()) for v in scores.values())
    return {p: v + span * opponent.guards[p] for p, v in scores.items()}, guards
