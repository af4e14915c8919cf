"""A behaviour as a task for a stack: candidate logits at the last token, their loss, and its calibration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from bridges.behaviours.encoded import EncodedPairs
from bridges.stack import ResidualStack

# Parts of similar length that all prompts of a behaviour are run in.
PARTS = 4


@dataclass(frozen=True)
class Prompts:
    """Prompts of one batch, clean and counterfactual of each pair one after the other.

    Attributes:
        ids: ``[2n, T]``, padded on the right. last: ``[2n]`` index of each prompt's last token.
        choice: ``[2n, 2]`` right and other candidate.
        sign: ``[2n]`` +1 where the right candidate has the smaller token id, −1 elsewhere.
    """

    ids: Tensor
    last: Tensor
    choice: Tensor
    sign: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, at: Tensor | slice) -> Prompts:
        """Those at the indices ``[m]`` or in the slice, no wider than the longest of them."""
        width = int(self.last[at].max()) + 1
        return Prompts(self.ids[at, :width], self.last[at], self.choice[at], self.sign[at])


def prompts(encoded: EncodedPairs, device: torch.device | str = "cpu") -> Prompts:
    """All prompts of some pairs as one batch."""
    lengths = encoded.lengths.flatten()
    choice = torch.stack([encoded.candidates.flatten(), encoded.candidates.flip(1).flatten()], 1)
    sign = torch.where(choice[:, 0] < choice[:, 1], 1.0, -1.0)
    ids = encoded.ids.flatten(0, 1)[:, : int(lengths.max())]
    return Prompts(*(t.to(device) for t in (ids, lengths - 1, choice, sign)))


def split(some: Prompts, size: int) -> Iterator[Prompts]:
    """At most ``size`` prompts at a time, each piece as short as its longest prompt; pairs stay together."""
    for at in torch.arange(len(some), device=some.ids.device).split(max(2, size // 2 * 2)):
        yield some.take(at)


def by_length(some: Prompts, parts: int, rows: Tensor | None = None) -> list[Tensor]:
    """Prompts in parts of similar length, whose padding would be run for nothing; indices, pairs together.

    Args:
        parts: how many; fewer than four pairs each make one part of all.
        rows: which prompts, ``[2m]`` (None: all).
    """
    rows = torch.arange(len(some), device=some.ids.device) if rows is None else rows
    if parts < 2 or len(rows) < 8 * parts:
        return [rows]
    pairs = rows.view(-1, 2)
    order = torch.argsort(some.last[pairs].amax(1), stable=True)
    return [part.flatten() for part in pairs[order].chunk(parts)]


def logit_diff_of(logits: Tensor, some: Prompts) -> Tensor:
    """The right candidate's logit minus the other's, ``[…, B, V]`` at the last token to ``[…, B]``."""
    pair = logits.gather(-1, some.choice.expand(*logits.shape[:-1], 2))
    return pair[..., 0] - pair[..., 1]


def logit_diff_from(stack: ResidualStack, h: Tensor, some: Prompts, site: int = 0) -> Tensor:
    """Logit differences of a run that goes on from a stream ``[2n, T, d]`` at a site, ``[2n]``; differentiable."""
    h = stack.run_segment(h, site, stack.n_sublayers)
    at = torch.arange(len(some), device=h.device)
    logits = stack.unembed(h[at, some.last].unsqueeze(1), some.ids[at, some.last].unsqueeze(1))[:, 0]
    return logit_diff_of(logits.float(), some)


def logit_diff(stack: ResidualStack, some: Prompts) -> Tensor:
    """Logit of the right candidate minus the other's at each prompt's last token, ``[2n]``; differentiable."""
    return logit_diff_from(stack, stack.embed(some.ids), some)


def turned_variance(model: Tensor, sign: Tensor) -> Tensor:
    """Variance of logit differences ``[2n]`` turned to the same candidate, at least 1e-12."""
    turned = model * sign
    return (turned - turned.mean()).square().mean().clamp_min(1e-12)


def unexplained(found: Tensor, model: Tensor, sign: Tensor) -> Tensor:
    """Fraction of a logit difference's variance that is not explained (FVU): mean squared error over variance.

    Both are turned to one and the same candidate (the smaller token id) before the variance is taken, so that what
    differs between the two prompts of a pair counts. No scale and no shift is fitted: a multiple of the model's logit
    difference explains less than the logit difference itself.

    Args:
        found, model: of a circuit and of the whole model, ``[2n]``. sign: of `Prompts`.
    """
    return (found - model).square().mean() / turned_variance(model, sign)


@dataclass(frozen=True)
class Calibration:
    """A factor on the logits and a shift of one candidate against the other (paper, section A.5).

    The shift is added to the candidate with the smaller token id: a shift of the right one would make any model right,
    and one of both nothing at all.
    """

    scale: float = 1.0
    shift: float = 0.0

    def apply(self, margins: Tensor, sign: Tensor) -> Tensor:
        """Calibrated margins ``[2n]``."""
        return margins * self.scale + sign * self.shift


def task_loss(margins: Tensor) -> Tensor:
    """Mean two-way cross-entropy in nats over all prompts, both of each pair counted; chance is ln 2."""
    return softplus(-margins).mean()


def calibrate(margins: Tensor, sign: Tensor, steps: int = 16) -> Calibration:
    """The scale and shift with the least task loss, by so many LBFGS steps.

    Args:
        margins: ``[2n]``, no gradient needed. sign: of `Prompts`.
    """
    margins, sign = margins.detach().double().cpu(), sign.double().cpu()
    log_scale, shift = (torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in range(2))
    optimizer = torch.optim.LBFGS([log_scale, shift], max_iter=steps, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        # A bounded scale: where every prompt is right already, the loss would fall for ever.
        loss = task_loss(margins * log_scale.clamp(-5, 5).exp() + sign * shift)
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    found = Calibration(float(log_scale.detach().clamp(-5, 5).exp()), float(shift.detach()))
    better = task_loss(found.apply(margins, sign)) <= task_loss(margins)
    return found if bool(better) and found.scale > 0 else Calibration()
