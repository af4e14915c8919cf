"""What ranks nodes without learning: the baselines, and what tells which leftovers to try first."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import Tensor

from bridges.circuits.circuit import Circuit, edges_removed
from bridges.circuits.task import Prompts, answer_margins, task_loss
from bridges.nodes import NodeFunction, intervene, record
from bridges.stack import ResidualStack


def random_scores(stack: ResidualStack, seed: int) -> dict[str, Tensor]:
    """A random order."""
    generator = torch.Generator().manual_seed(seed)
    return {p: torch.rand(w, generator=generator) for p, w in stack.nodes.widths.items()}


@torch.no_grad()
def magnitude(stack: ResidualStack, some: Prompts, reference: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """RMS deviation of every node from its mean over the prompts."""
    with record(stack) as seen:
        stack.run_segment(stack.embed(some.ids), 0, stack.n_sublayers)
    real = real_tokens(some)
    return {p: (x.float()[real] - reference[p].to(x)).square().mean(0).sqrt().cpu() for p, x in seen.items()}


def real_tokens(some: Prompts) -> Tensor:
    """``[2n, T]``, false on padding."""
    return torch.arange(some.ids.shape[1], device=some.ids.device)[None] <= some.last[:, None]


def attribution(
    stack: ResidualStack,
    some: Prompts,
    reference: Mapping[str, Tensor],
    circuit: Circuit | None = None,
    share: float = 1.0,
) -> dict[str, Tensor]:
    """First-order rise of the loss when a node is replaced by its mean: |Σ gradient · (activation − mean)|.

    Args:
        circuit: measured in the circuit alone; None in the whole stack.
        share: how much of every deviation from the mean is left while the gradient is taken (integrated gradients).
    """
    device = some.ids.device
    ones = {p: torch.ones(w, device=device, requires_grad=True) for p, w in stack.nodes.widths.items()}
    means = {p: reference[p].to(device) for p in ones}
    if circuit is not None:
        kept = {p: circuit.nodes[p].to(device) for p in ones}

    def scaled(point: str) -> NodeFunction:
        def function(x: Tensor) -> Tensor:
            mean = means[point].to(x)
            factor = ones[point].to(x) * share
            if circuit is not None:
                factor = factor * kept[point]
            return mean + (x - mean) * factor

        return function

    edges = nullcontext() if circuit is None else edges_removed(stack, circuit)
    with torch.enable_grad(), edges, intervene(stack, {p: scaled(p) for p in ones}):
        loss = task_loss(answer_margins(stack, some))
        grads = torch.autograd.grad(loss, list(ones.values()), allow_unused=True)
    return {p: torch.zeros(len(ones[p])) if g is None else (-g).float().cpu() for p, g in zip(ones, grads, strict=True)}


def integrated_gradients(
    stack: ResidualStack, some: Prompts, reference: Mapping[str, Tensor], steps: int = 5
) -> dict[str, Tensor]:
    """Attribution averaged over the path from every node at its mean to every node as it is (EAP-IG on nodes)."""
    total: dict[str, Tensor] = {}
    for i in range(steps):
        for p, score in attribution(stack, some, reference, share=(i + 0.5) / steps).items():
            total[p] = total.get(p, 0) + score / steps  # type: ignore[operator]
    return total
