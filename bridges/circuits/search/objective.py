"""What a search asks of a circuit: the loss that gates are learned by, and how a finished circuit is measured.

Shapes: n pairs of prompts, B = 2n prompts, the two of a pair one after the other.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from bridges.circuits.bridge_context import BridgeContext, PromptBatch, map_through_bridge, share_moved
from bridges.circuits.task import (
    Calibration,
    Prompts,
    by_length,
    calibrate,
    logit_diff,
    logit_diff_from,
    task_loss,
    turned_variance,
)
from bridges.stack import ResidualStack

# A bridge teaches a search where the dense model's own exchange moves at least so much, and the whole sparse model at
# least that share of it: elsewhere there is next to nothing to follow.
CEILING, FOLLOWED = 0.5, 0.25
# How far a circuit's mean logit difference may be from the model's, as a share of it: half of what the verdict allows,
# so that its interval on other pairs fits. What the square of that share counts for in the loss. Neither is asked for
# where the model's mean is small beside its spread, and a share of it says nothing.
SHRINKAGE, SHRINKAGE_WEIGHT, CLEAR = 0.1, 2.0, 0.3
# What a circuit has to move at the bridge at least, as a share of what the dense model's own exchange moves there: a
# fifth more than the verdict asks for, so that its interval on other pairs fits; or, where the whole model hardly moves
# as much, nearly all that it moves. Little unexplained variance does not see to it: of a circuit that moves everything
# by a third less than the whole model 0.1 is unexplained.
MOVED_SHARE, ASKED_SHARE, OF_WHOLE = 0.6, 0.5, 0.9
# How much worse a circuit that has missed its targets may become while what it does not need is removed.
SLACK = 1.1


@dataclass(frozen=True)
class Measured:
    """A circuit against its objective.

    Attributes:
        loss: unexplained variance or nats. reached: whether it and `carried` reach their targets.
        carried: unexplained variance of what is moved across the bridge; NaN where nothing is, or that does not matter.
        shrinkage: how far the mean logit difference is from the model's, as a share of it. moved: what is moved across
            the bridge, as a share of what the whole model moves there.
        calibration: factor and shift of the logits, where the objective fits them.
    """

    loss: float
    reached: bool
    carried: float = float("nan")
    shrinkage: float = 0.0
    moved: float = 1.0
    calibration: Calibration = field(default_factory=Calibration)


class Objective(Protocol):
    """What a search asks of a circuit.

    Attributes:
        prompts: of all training pairs.
        parameters: learned beside the gates, without a penalty.
        target: of the mean loss, which the penalty of nodes is steered by.
    """

    prompts: Prompts
    parameters: list[nn.Parameter]
    target: float

    def loss(self, world: AbstractContextManager, rows: Tensor) -> Tensor:
        """The loss on the prompts ``rows [2m]`` of the stack in a world, such as that of the gates; differentiable."""
        ...

    def measure(self, world: AbstractContextManager, trial: bool = False) -> Measured:
        """The same on all pairs, against the targets.

        Args:
            trial: whether it is reached is all that matters: what is costly is left out where something else is missed.
        """
        ...


class TaskLoss:
    """The published objective: two-way cross-entropy with a fitted scale and shift (paper, section A.5).

    Args:
        stack: that is searched. some: prompts of the training pairs. target: nats to reach.
        chunks: parts of similar length that a batch is run in; 1 where ablated nodes take values that belong to single
            prompts.
    """

    def __init__(self, stack: ResidualStack, some: Prompts, target: float, chunks: int = 1):
        self.stack, self.prompts, self.target, self.chunks = stack, some, target, chunks
        self.log_scale, self.shift = (nn.Parameter(torch.zeros((), device=some.ids.device)) for _ in range(2))
        self.parameters = [self.log_scale, self.shift]

    @torch.no_grad()
    def soften(self, goal: float, pairs: int) -> None:
        """Begin with logits so small that the whole stack's loss comes to ``goal``.

        A model that is sure of every prompt has a loss of zero, and a gradient of zero: its gates would close alike,
        those that matter among them, until it fails at once.
        """
        found = logit_diff(self.stack, self.prompts.take(slice(0, 2 * pairs)))
        low, high = -3.0, 0.0
        if task_loss(found) < goal:
            for _ in range(20):
                middle = (low + high) / 2
                softer = task_loss(found * torch.tensor(middle).exp()) > goal
                low, high = (middle, high) if softer else (low, middle)
            self.log_scale.fill_(low)

    def loss(self, world: AbstractContextManager, rows: Tensor) -> Tensor:
        parts = by_length(self.prompts, self.chunks, rows)
        with world:
            found = torch.cat([logit_diff(self.stack, self.prompts.take(part)) for part in parts])
        sign = self.prompts.sign[torch.cat(parts)]
        return task_loss(found * self.log_scale.clamp(-3, 3).exp() + sign * self.shift)

    @torch.no_grad()
    def measure(self, world: AbstractContextManager, trial: bool = False) -> Measured:
        parts = by_length(self.prompts, 2 * self.chunks if self.chunks > 1 else 1)
        with world:
            found = torch.cat([logit_diff(self.stack, self.prompts.take(part)) for part in parts])
        sign = self.prompts.sign[torch.cat(parts)]
        fitted = calibrate(found, sign)
        loss = float(task_loss(fitted.apply(found, sign)))
        return Measured(loss, loss <= self.target, calibration=fitted)


class Faithful:
    """Explain the model's own logit difference, and what the whole model moves in the dense one.

    The loss is the unexplained variance (`unexplained`) of the logit difference, without scale or shift, plus
    ``weight`` times that of the *carried* effect: the circuit-only run's exchange at shared positions, decoded at one
    bridge, against what the whole sparse model's exchange moves there. Two-way cross-entropy rewards any large margin;
    a circuit that explains the model has the model's own. Removing nodes makes the difference smaller nearly
    everywhere, and such a shrinkage costs little variance: it is asked for by itself, that the mean difference is the
    model's to within ``SHRINKAGE``, and that ``MOVED_SHARE`` of the ceiling is moved, or ``OF_WHOLE`` of what the whole
    model moves where that is less.

    Args:
        stack: that is searched. some: prompts of the training pairs. target, carried_target: unexplained variance.
        context: the bridges, where the stack is their sparse one; None leaves the carried term out.
        weight: of the carried term. chunks: parts of similar length that a batch is run in; 1 where ablated nodes take
            values that belong to single prompts.
    """

    def __init__(
        self,
        stack: ResidualStack,
        some: Prompts,
        target: float,
        carried_target: float,
        context: BridgeContext | None = None,
        weight: float = 1.0,
        chunks: int = 1,
    ):
        self.stack, self.prompts, self.target = stack, some, target
        self.carried_target, self.context, self.weight, self.chunks = carried_target, context, weight, chunks
        self.parameters: list[nn.Parameter] = []
        self.batch: PromptBatch | None = None
        self.bridge: int | None = None
        self.moved, self.moved_variance, self.enough, self.wanted = torch.zeros(0), torch.zeros(0), 0.0, 0.0
        with torch.no_grad():
            if context is not None and weight:
                self.batch = context.batch(some)
                self.model = self.batch.sparse_diff
                self._follow(context, self.batch)
            else:
                self.model = logit_diff(stack, some)
        # Of all pairs, not of a batch's: a batch of few frames may vary little.
        self.variance = turned_variance(self.model, some.sign)
        mean = float(self.model.mean())
        self.mean = mean if mean > CLEAR * float(self.variance.sqrt()) else None
        self.shrinkage = SHRINKAGE

    def settle_for(self, found: Measured) -> None:
        """Ask for little more than what was found from now on, where that misses what is asked for."""
        if found.loss > self.target:
            self.target = SLACK * found.loss
        if found.shrinkage > self.shrinkage:
            self.shrinkage = SLACK * found.shrinkage
        if self.bridge is not None:
            if found.carried > self.carried_target:
                self.carried_target = SLACK * found.carried
            if found.moved < self.enough:
                self.enough = found.moved / SLACK

    def hold(self, found: Measured) -> None:
        """From now on what a circuit moves counts up to the share of the ceiling that is wanted.

        Where the whole model hardly moves as much, a search is content with less; what it has found all the same is
        not to be pruned away.
        """
        self.enough = max(self.enough, min(found.moved, self.wanted))

    def _follow(self, context: BridgeContext, batch: PromptBatch) -> None:
        """Choose the bridge that teaches: the one at which the whole sparse model moves most of what there is to move.

        One alone, since the verdict is given at one: a circuit that has to carry the same across several is as large as
        all the ways together on which the model moves it there.
        """
        if not batch.aligned:
            return
        ceilings = context.ceilings(batch)
        where = [i for i in context.inner if ceilings[i] >= CEILING]
        found = context.whole_sparse(batch, where)
        shares = {i: share_moved(batch.dense_diff, diff) / ceilings[i] for i, diff in found.items()}
        best = max(shares, key=lambda i: shares[i], default=None)
        if best is not None and shares[best] >= FOLLOWED:
            self.bridge, self.moved = best, batch.dense_diff - found[best]
            self.moved_variance = turned_variance(self.moved, batch.some.sign)
            self.wanted = MOVED_SHARE / shares[best] if shares[best] >= ASKED_SHARE else 0.0
            self.enough = min(OF_WHOLE, self.wanted)

    def _moved(self, rows: Tensor, h: Tensor) -> Tensor:
        """How far an exchange of the sparse stream ``h`` at the bridge moves the dense logit differences, ``[2m]``."""
        assert self.context is not None and self.batch is not None and self.bridge is not None
        batch = self.batch.take(rows)
        change = map_through_bridge(self.context.bridges[self.bridge], batch.exchange(h))
        return batch.dense_diff - self.context.dense_diff(batch, {self.bridge: change})[0]

    def loss(self, world: AbstractContextManager, rows: Tensor) -> Tensor:
        site = 0 if self.bridge is None or self.context is None else self.context.bridges.pairs[self.bridge].sparse
        own, streams = [], []
        parts = by_length(self.prompts, self.chunks, rows)
        with world:
            for part in parts:
                some = self.prompts.take(part)
                h = self.stack.run_segment(self.stack.embed(some.ids), 0, site)
                own.append(logit_diff_from(self.stack, h, some, site) - self.model[part])
                streams.append(h)
        errors = torch.cat(own)
        loss = errors.square().mean() / self.variance
        if self.mean is not None:
            loss = loss + SHRINKAGE_WEIGHT * (errors.mean() / self.mean).square()
        if self.bridge is None:
            return loss
        moved = torch.cat([self._moved(part, h) for part, h in zip(parts, streams, strict=True)])
        whole = self.moved[torch.cat(parts)]
        carried = (moved - whole).square().mean() / self.moved_variance
        carried = carried + SHRINKAGE_WEIGHT * (self.enough - moved.mean() / whole.mean()).clamp_min(0).square()
        return (loss + self.weight * carried) / (1 + self.weight)

    @torch.no_grad()
    def measure(self, world: AbstractContextManager, trial: bool = False) -> Measured:
        parts = by_length(self.prompts, 2 * self.chunks if self.chunks > 1 else 1)
        own, streams = [], []
        with world:
            for part in parts:
                some = self.prompts.take(part)
                found = self.stack.run(some.ids)
                diff = logit_diff_from(self.stack, found.final[0], some, self.stack.n_sublayers)
                own.append(diff - self.model[part])
                streams.append(found.sites)
        errors = torch.cat(own)
        loss = float(errors.square().mean() / self.variance)
        shrinkage = 0.0 if self.mean is None else abs(float(errors.mean())) / self.mean
        reached = loss <= self.target and shrinkage <= self.shrinkage
        if self.bridge is None or (trial and not reached):
            return Measured(loss, reached, shrinkage=shrinkage)
        assert self.context is not None
        site = self.context.bridges.pairs[self.bridge].sparse
        moved = torch.cat([self._moved(part, h[site]) for part, h in zip(parts, streams, strict=True)])
        whole = self.moved[torch.cat(parts)]
        carried = float((moved - whole).square().mean() / self.moved_variance)
        share = float(moved.mean() / whole.mean())
        reached = reached and share >= self.enough and carried <= self.carried_target
        return Measured(loss, reached, carried, shrinkage, share)
