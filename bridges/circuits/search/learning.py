"""Learned pruning: gates opened and closed by gradients (paper, sections 2.2 and A.5)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from bridges.circuits.ablation import Ablation
from bridges.circuits.search.adversary import Adversary
from bridges.circuits.search.gates import Gates, initial_gates, should_stop
from bridges.circuits.search.objective import Objective
from bridges.config.search import CircuitSettings
from bridges.errors import BridgesError
from bridges.nodes import intervene
from bridges.stack import ResidualStack

# How much of the loss seen so far the running mean keeps.
MEMORY = 0.75
# AdamW's ε of the faithful objective. Without it the penalty's small and steady gradient would close gates as fast as
# a large one of the loss opens them: nodes that are needed together would be gone before the loss is felt.
EPSILON = 1e-3


def learn_gates(
    stack: ResidualStack,
    objective: Objective,
    ablation: Ablation,
    settings: CircuitSettings,
    seed: int,
    start: Mapping[str, Tensor] | None = None,
    adversary: Adversary | None = None,
    order: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Learn which nodes a behaviour needs; the scores are τ, ``{point: [channels]}``.

    Minimises the objective plus a penalty for every open gate, by AdamW with clipped gradients. The penalty follows the
    loss (``penalty_rate``): it rises while the loss is below its target and falls while it is above, so that one
    setting serves circuits of any size. The stack runs in the precision that the caller's autocast says.

    Args:
        start: τ to go on from, ``{point: [channels]}``; else `initial_gates`.
        adversary: to withstand, on half as many pairs as are in a batch.
        order: importance of every node, for ``warm_start``.

    Raises:
        BridgesError: the loss is not finite.
    """
    goal = settings.loss_target_fraction * objective.target
    generator = torch.Generator().manual_seed(seed)
    gates = Gates(stack, ablation.reference, settings.temperature, settings.tied)
    if start is None:
        initial_gates(gates, settings, generator, order)
    else:
        for point, tau in gates.tau.items():
            tau.data.copy_(start[point].clamp(-1, 1).to(tau))
    parameters = [*gates.tau.values(), *objective.parameters]
    free = [*objective.parameters, *(adversary.parameters if adversary else ())]
    groups = [{"params": list(gates.tau.values()), "weight_decay": settings.weight_decay}]
    optimizer = torch.optim.AdamW(
        [*groups, {"params": free, "weight_decay": 0.0}] if free else groups,
        lr=settings.lr,
        betas=(0.9, 0.95),
        eps=EPSILON if settings.objective == "faithful" else 1e-8,
    )
    some = objective.prompts
    pool = ablation.pool(some.ids.shape[1], generator)
    count, penalty, mean = len(some) // 2, settings.penalty, None
    warm = max(1, round(0.05 * settings.steps))
    for step in range(settings.steps):
        rows = pair_rows(torch.randperm(count, generator=generator)[: settings.batch]).to(some.ids.device)
        if pool is None:
            functions = gates.functions(ablation.values(some.take(rows), generator))
        else:
            functions = gates.functions(pool, ablation.entries(some.take(rows), generator, pool))
        with torch.enable_grad():
            loss = objective.loss(intervene(stack, functions), rows)
            optimizer.zero_grad()
            grads = torch.autograd.grad(loss + penalty * gates.count(), parameters)
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad
        if adversary is not None:
            few = pair_rows(torch.randperm(count, generator=generator)[: max(1, settings.batch // 2)])
            for point, taught in adversary.gradients(gates, some.take(few.to(some.ids.device)), step).items():
                tau = gates.tau[gates.owner[point]]
                assert tau.grad is not None
                tau.grad += taught
        torch.nn.utils.clip_grad_norm_(gates.tau.values(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * min((step + 1) / warm, 1 - step / settings.steps)
        optimizer.step()
        with torch.no_grad():
            for tau in gates.tau.values():
                tau.clamp_(-1, 1)
        if adversary is not None:
            adversary.hold(gates)
        now = float(loss.detach())
        if not math.isfinite(now):
            raise BridgesError(
                f"The search for a circuit met a loss of {now} at step {step + 1}: the model's logits are not finite "
                "on its prompts. Try train.precision=fp32, or leave the behaviour out with behaviours.names."
            )
        mean = now if mean is None else MEMORY * mean + (1 - MEMORY) * now
        penalty *= math.exp(settings.penalty_rate * max(-1.0, min(1.0, 1 - mean / goal)))
        penalty = min(1.0, max(penalty, settings.min_penalty * settings.penalty))
        if step + 1 == (settings.steps + 1) // 2 and should_stop(gates, mean, settings):
            break
    return gates.scores()


def pair_rows(pairs: Tensor) -> Tensor:
    """Indices of both prompts of each pair, ``[m]`` to ``[2m]``."""
    return torch.stack([2 * pairs, 2 * pairs + 1], 1).flatten()
