"""What ranks nodes: gates to be learned, and the baselines that need no learning."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from bridges.circuits.circuit import Circuit, edges_removed
from bridges.circuits.task import Prompts, answer_margins, task_loss
from bridges.nodes import NodeFunction, intervene, record
from bridges.stack import ResidualStack


class Gates:
    """One gate per node: open above τ = 0, closed below; the gradient is that of a sigmoid (paper, section A.5).

    Args:
        stack: whose nodes are gated.
        reference: what a closed gate lets through instead, ``{point: [channels]}``.
        temperature: of the sigmoid.
    """

    def __init__(self, stack: ResidualStack, reference: Mapping[str, Tensor], temperature: float):
        device = next(stack.parameters()).device  # type: ignore[attr-defined]
        self.tau = {p: nn.Parameter(torch.zeros(w, device=device)) for p, w in stack.nodes.widths.items()}
        self.reference = {p: reference[p].to(device) for p in self.tau}
        self.temperature = temperature

    def gate(self, tau: Tensor) -> Tensor:
        """0 or 1, with the surrogate's gradient."""
        soft = torch.sigmoid(tau / self.temperature)
        return (tau > 0).to(soft) + soft - soft.detach()

    def count(self) -> Tensor:
        """How many gates are open, differentiable."""
        return torch.stack([self.gate(tau).sum() for tau in self.tau.values()]).sum()

    def functions(self) -> dict[str, NodeFunction]:
        """Node functions of the gates as they are now."""

        def gated(point: str) -> NodeFunction:
            open_, mean = self.gate(self.tau[point]), self.reference[point]
            return lambda x: mean.to(x) + (x - mean.to(x)) * open_.to(x)

        return {point: gated(point) for point in self.tau}


def random_scores(stack: ResidualStack, seed: int) -> dict[str, Tensor]:
    """A random order."""
    generator = torch.Generator().manual_seed(seed)
    return {p: torch.rand(w, generator=generator) for p, w in stack.nodes.widths.items()}


@torch.no_grad()
def magnitude(stack: ResidualStack, some: Prompts, reference: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """RMS deviation of every node from its mean over the prompts."""
    with record(stack) as seen:
        stack.run_segment(stack.embed(some.ids), 0, stack.n_sublayers)
    real = _real(some)
    return {p: (x.float()[real] - reference[p].to(x)).square().mean(0).sqrt().cpu() for p, x in seen.items()}


def _real(some: Prompts) -> Tensor:
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
