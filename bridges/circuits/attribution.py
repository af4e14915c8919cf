"""What ranks nodes and edges without learning: first-order effects on the logit difference, and the baselines.

The attribution of a node or an edge is, to first order, how far the mean logit difference falls when it is ablated:
Σ over prompts and tokens of gradient · (value − its mean), divided by the prompts. Positive ones support the right
answer. One backward pass gives all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from bridges.circuits.circuit import Circuit, edges_ablated, only
from bridges.circuits.task import PARTS, Prompts, by_length, logit_diff
from bridges.circuits.weights import EMBEDDING, LOGITS, edge_matrices, with_biases
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
    by_token: bool = False,
) -> dict[str, Tensor]:
    """First-order fall of the mean logit difference when each node is replaced by its mean, ``{point: [channels]}``.

    Args:
        circuit: measured in the circuit alone; None in the whole stack.
        share: how much of every deviation from the mean is left while the gradient is taken (integrated gradients).
        by_token: of each node at each token, ``{point: [T, channels]}``; over tokens they add up to the node's.
    """
    device, tokens = some.ids.device, some.ids.shape[1:] if by_token else ()
    ones = {p: torch.ones(*tokens, w, device=device, requires_grad=True) for p, w in stack.nodes.widths.items()}
    means = {p: reference[p].to(device) for p in ones}
    kept = None if circuit is None else {p: circuit.nodes[p].to(device) for p in ones}

    def scaled(point: str) -> NodeFunction:
        def function(x: Tensor) -> Tensor:
            mean = means[point].to(x)
            factor = ones[point].to(x) * share
            if kept is not None:
                factor = factor * kept[point]
            return mean + (x - mean) * factor

        return function

    edges = nullcontext() if circuit is None else edges_ablated(stack, circuit)
    total = {p: torch.zeros(one.shape) for p, one in ones.items()}
    with torch.enable_grad(), edges, intervene(stack, {p: scaled(p) for p in ones}):
        for part in [some] if by_token else map(some.take, by_length(some, PARTS)):
            mean = logit_diff(stack, part).sum() / len(some)
            grads = torch.autograd.grad(mean, list(ones.values()), allow_unused=True)
            for p, grad in zip(ones, grads, strict=True):
                if grad is not None:
                    total[p] += grad.float().cpu()
    return total


def integrated_gradients(
    stack: ResidualStack, some: Prompts, reference: Mapping[str, Tensor], steps: int = 5
) -> dict[str, Tensor]:
    """Attribution averaged over the path from every node at its mean to every node as it is (EAP-IG on nodes).

    The scores of all nodes add up to what the mean logit difference gains along that path.
    """
    total: dict[str, Tensor] = {}
    for i in range(steps):
        share = (i + 0.5) / steps
        for p, score in attribution(stack, some, reference, share=share).items():
            # `attribution` gives the effect of what is left of a deviation: that of all of it is 1/share of this.
            total[p] = total.get(p, 0) + score / (steps * share)  # type: ignore[operator]
    return total


@contextmanager
def _differentiable(stack: Any) -> Iterator[list[nn.Parameter]]:
    """The stack's parameters with gradients while the block runs."""
    with with_biases(stack), ExitStack() as undo:
        parameters = list(stack.parameters())
        for parameter in parameters:
            undo.callback(parameter.requires_grad_, parameter.requires_grad)
            parameter.requires_grad_(True)
        yield parameters


@contextmanager
def _holding(parameters: list[nn.Parameter], values: list[Tensor]) -> Iterator[None]:
    """Other values in the parameters while the block runs."""
    own = [parameter.data for parameter in parameters]
    try:
        for parameter, value in zip(parameters, values, strict=True):
            parameter.data = value
        yield
    finally:
        for parameter, value in zip(parameters, own, strict=True):
            parameter.data = value


def edge_attribution(
    stack: ResidualStack, some: Prompts, reference: Mapping[str, Tensor], circuit: Circuit
) -> dict[str, Tensor]:
    """First-order fall of the mean logit difference when each weight of a circuit is ablated, ``{matrix: [target,
    source]}``: its source then gives its mean to that target.

    Measured in the circuit alone. With y = W x + b the gradient of W[i, j] is Σ slope_i · x_j and that of b[i] is
    Σ slope_i, so that W[i, j] · (∂W[i, j] − mean_j · ∂b[i]) is exactly that. Attention's output matrix reads what the
    heads mix of the values; what they mix of the means is measured by itself. Embedding and unembedding, whose sources
    have no mean, get the effect of zeroing.
    """
    constants: dict[str, Tensor] = {}
    with ExitStack() as undo, _differentiable(stack) as parameters, only(stack, circuit):
        for matrix in edge_matrices(stack):
            if matrix.attention is not None:
                gone, mean = matrix.attention.constant or (torch.zeros_like(matrix.weight), None)
                mean = reference[matrix.source].to(matrix.weight) if mean is None else mean
                constants[matrix.name] = gone.detach().clone().requires_grad_()
                undo.callback(setattr, matrix.attention, "constant", matrix.attention.constant)
                matrix.attention.constant = (constants[matrix.name], mean)
        with torch.enable_grad():
            wanted = [*parameters, *constants.values()]
            grads = torch.autograd.grad(logit_diff(stack, some).mean(), wanted, allow_unused=True)
        values = [torch.zeros_like(p) if g is None else g for p, g in zip(wanted, grads, strict=True)]
        mixed = dict(zip(constants, values[len(parameters) :], strict=True))
        with _holding(parameters, values[: len(parameters)]):
            slopes = {
                m.name: (m.weight.detach(), None if m.bias is None else m.bias.detach()) for m in edge_matrices(stack)
            }
        found = {}
        for matrix in edge_matrices(stack):
            slope, bias = slopes[matrix.name]
            slope, bias = slope.float(), None if bias is None else bias.float()
            if matrix.name in mixed:
                slope = slope - mixed[matrix.name].float()
            elif matrix.source not in (EMBEDDING, "stream") and matrix.target != LOGITS and bias is not None:
                slope = slope - bias[:, None] * reference[matrix.source].to(bias)[None]
            found[matrix.name] = (matrix.weight.detach().float() * slope).cpu()
    return found
