"""Learned pruning: a gate for every node, opened and closed by gradients (paper, sections 2.2 and A.5)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bridges.behaviours.encoded import EncodedPairs
from bridges.circuits.ablation import Removed
from bridges.circuits.patch import choose
from bridges.circuits.task import Prompts, answer_margins, prompts, task_loss
from bridges.config.search import CircuitSettings
from bridges.errors import BridgesError
from bridges.nodes import NodeFunction, intervene
from bridges.stack import ResidualStack

if TYPE_CHECKING:
    from bridges.circuits.search.adversarial import Opponent

# How much of the loss seen so far the running mean keeps.
MEMORY = 0.75


class Gates:
    """One gate per node: open above τ = 0, closed below; the gradient is that of a sigmoid (paper, section A.5).

    Args:
        stack: whose nodes are gated.
        reference: what a closed gate lets through instead, ``{point: [channels]}``.
        temperature: of the sigmoid.
        tied: channel c of a layer's queries and channel c of its keys share one gate.
    """

    def __init__(
        self, stack: ResidualStack, reference: Mapping[str, Tensor], temperature: float = 1.0, tied: bool = False
    ):
        device = next(stack.parameters()).device  # type: ignore[attr-defined]
        widths = stack.nodes.widths
        self.owner = {p: p[:-1] + "q" if tied and p.endswith(".k") and widths[p[:-1] + "q"] == w else p
                      for p, w in widths.items()}  # fmt: skip
        self.tau = {p: nn.Parameter(torch.zeros(w, device=device)) for p, w in widths.items() if self.owner[p] == p}
        self.reference = {p: reference[p].to(device) for p in widths}
        self.temperature = temperature

    def gate(self, tau: Tensor) -> Tensor:
        """0 or 1, with the surrogate's gradient."""
        soft = torch.sigmoid(tau / self.temperature)
        return (tau > 0).to(soft) + soft - soft.detach()

    def count(self) -> Tensor:
        """How many nodes' gates are open, differentiable."""
        return torch.stack([self.gate(self.tau[owner]).sum() for owner in self.owner.values()]).sum()

    def functions(
        self, values: Mapping[str, Tensor] | None = None, entries: Tensor | None = None
    ) -> dict[str, NodeFunction]:
        """Node functions of the gates as they are now.

        Args:
            values: ``{point: [B, T, channels]}`` instead of the reference.
            entries: ``[B]``: the values are a pool ``[n, ≥ T, channels]``, of which every prompt takes this entry.
        """
        instead = self.reference if values is None else values

        def gated(point: str) -> NodeFunction:
            tau, other = self.tau[self.owner[point]], instead[point]
            open_ = tau.detach() > 0
            return lambda x: choose(x, open_, other, tau, self.temperature, entries)

        return {point: gated(point) for point in self.owner}

    def scores(self) -> dict[str, Tensor]:
        """τ of every node, ``{point: [channels]}``."""
        return {point: self.tau[owner].detach().cpu().clone() for point, owner in self.owner.items()}


def hopeless(gates: Gates, loss: float, settings: CircuitSettings) -> bool:
    """Whether a search is not worth its other half (``settings.abandon``), by its running loss and open gates."""
    if settings.abandon is None:
        return False
    total = sum(map(len, gates.reference.values()))
    return loss > settings.abandon or float(gates.count().detach()) > 2 * settings.largest * total


@torch.no_grad()
def softened(stack: ResidualStack, some: Prompts, goal: float) -> float:
    """The logarithm of the factor on the logits, at most 1, with which the whole stack's loss comes to ``goal``.

    A model that is sure of every prompt has a loss of zero, and a gradient of zero: its gates would close alike, those
    that matter among them, until it fails at once.
    """
    margins = answer_margins(stack, some)
    low, high = -3.0, 0.0
    if task_loss(margins) >= goal:
        return 0.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if task_loss(margins * math.exp(middle)) > goal else (low, middle)
    return low


def learn_gates(
    stack: ResidualStack,
    encoded: EncodedPairs,
    removed: Removed,
    settings: CircuitSettings,
    seed: int,
    start: Mapping[str, Tensor] | None = None,
    opponent: Opponent | None = None,
) -> dict[str, Tensor]:
    """The final τ of every node after `settings.steps` steps, ``{point: [channels]}``.

    Minimises task loss + price · open gates. The paper tunes a fixed price for every model and task; here the price
    follows the loss (``settings.adapt``): it rises while the loss is below its goal and falls while it is above, so
    that one setting serves circuits of any size. Scale and shift of the logits are learned beside the gates. The stack
    runs in the precision that the caller's autocast says.

    Args:
        start: τ to go on from, ``{point: [channels]}``; else ``init_bias`` and noise.
        opponent: an adversary to withstand, on half as many pairs as are in a batch.
    """
    goal = settings.goal * settings.target
    generator = torch.Generator().manual_seed(seed)
    gates = Gates(stack, removed.reference, settings.temperature, settings.tied)
    device = next(stack.parameters()).device  # type: ignore[attr-defined]
    for point, tau in gates.tau.items():
        noise = torch.randn(tau.shape, generator=generator) * settings.init_noise
        tau.data.copy_((settings.init_bias + noise if start is None else start[point].clamp(-1, 1)).to(device))
    log_scale, shift = (nn.Parameter(torch.zeros((), device=device)) for _ in range(2))
    if start is None:
        first = encoded.take(range(min(settings.batch, len(encoded))))
        log_scale.data.fill_(softened(stack, prompts(first, device), goal))
    parameters = [*gates.tau.values(), log_scale, shift]
    optimizer = torch.optim.AdamW(
        [
            {"params": list(gates.tau.values()), "weight_decay": settings.weight_decay},
            {"params": [log_scale, shift, *(opponent.parameters if opponent else ())], "weight_decay": 0.0},
        ],
        lr=settings.lr,
        betas=(0.9, 0.95),
    )
    pool = removed.pool(int(encoded.lengths.max()), generator)
    price, mean = settings.k_coef, None
    warm = max(1, round(0.05 * settings.steps))
    for step in range(settings.steps):
        chosen = torch.randperm(len(encoded), generator=generator)[: settings.batch].tolist()
        batch = prompts(encoded.take(chosen), device)
        if pool is None:
            functions = gates.functions(removed.values(batch, generator))
        else:
            functions = gates.functions(pool, removed.entries(batch, generator, pool))
        with torch.enable_grad(), intervene(stack, functions):
            margins = answer_margins(stack, batch) * log_scale.exp() + batch.sign * shift
            loss = task_loss(margins)
            grads = torch.autograd.grad(loss + price * gates.count(), parameters)
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad
        if opponent is not None:
            few = torch.randperm(len(encoded), generator=generator)[: max(1, settings.batch // 2)].tolist()
            for point, taught in opponent.gradients(gates, prompts(encoded.take(few), device), step).items():
                tau = gates.tau[gates.owner[point]]
                assert tau.grad is not None
                tau.grad += taught
        torch.nn.utils.clip_grad_norm_(gates.tau.values(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * min((step + 1) / warm, 1 - step / settings.steps)
        optimizer.step()
        with torch.no_grad():
            log_scale.clamp_(-3, 3)
            for tau in gates.tau.values():
                tau.clamp_(-1, 1)
        if opponent is not None:
            opponent.hold(gates)
        now = float(loss.detach())
        if not math.isfinite(now):
            raise BridgesError(
                f"The search for the circuit of {encoded.behaviour!r} met a loss of {now} at step {step + 1}: the "
                "model's logits are not finite on its prompts. Try train.precision=fp32, or leave the behaviour "
                "out with behaviours.names."
            )
        mean = now if mean is None else MEMORY * mean + (1 - MEMORY) * now
        price *= math.exp(settings.adapt * max(-1.0, min(1.0, 1 - mean / goal)))
        price = min(1.0, max(price, settings.least_price * settings.k_coef))
        if step + 1 == (settings.steps + 1) // 2 and hopeless(gates, mean, settings):
            break
    return gates.scores()
