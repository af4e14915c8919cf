"""Learned pruning: a gate for every node, opened and closed by gradients (paper, sections 2.2 and A.5)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bridges.circuits.patch import patch
from bridges.config.search import CircuitSettings
from bridges.nodes import NodeFunction
from bridges.stack import ResidualStack


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
            return lambda x: patch(x, open_, other, tau, self.temperature, entries)

        return {point: gated(point) for point in self.owner}

    def scores(self) -> dict[str, Tensor]:
        """τ of every node, ``{point: [channels]}``."""
        return {point: self.tau[owner].detach().cpu().clone() for point, owner in self.owner.items()}


def should_stop(gates: Gates, loss: float, settings: CircuitSettings) -> bool:
    """Whether a search is not worth its other half (``early_stop_loss``), by its running loss and open gates."""
    if settings.early_stop_loss is None:
        return False
    total = sum(map(len, gates.reference.values()))
    too_many = settings.max_node_fraction < 1 and float(gates.count().detach()) > 2 * settings.max_node_fraction * total
    return loss > settings.early_stop_loss or too_many


def initial_gates(
    gates: Gates, settings: CircuitSettings, generator: torch.Generator, order: Mapping[str, Tensor] | None
) -> None:
    """Set every τ to ``init_bias`` and noise, and further open by the root of its importance (``warm_start``).

    All gates begin open: the whole model has no loss, and no gradient that would keep what is needed. Alike gates would
    close alike, those that matter among them, until the behaviour fails at once.

    Args:
        order: importance of every node, ``{point: [channels]}``, or None.
    """
    largest = 0.0 if order is None else max(float(values.abs().max()) for values in order.values())
    for point, tau in gates.tau.items():
        value = settings.init_bias + torch.randn(tau.shape, generator=generator) * settings.init_noise
        if order is not None and largest > 0:
            value = value + settings.warm_start * (order[point].abs() / largest).sqrt()
        tau.data.copy_(value.to(tau))
