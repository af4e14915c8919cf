"""Optimizers: AdamW for everything, or Muon on the matrices of the blocks and AdamW on the rest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bridges.shards import is_sharded, sharded_like, whole
from bridges.training.precision import native_bf16


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal by five Newton–Schulz steps, scaled to AdamW's typical RMS (0.2).

    `torch.optim.Muon` fixes the iteration to bfloat16, which a CPU without bf16 instructions emulates about a hundred
    times slower than fp32; here it runs in bf16 only where the hardware does, matrices of one shape as one batch.
    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024); scale from Liu et al. 2025.

    Args:
        params: two-dimensional parameters only, or groups of them.
        lr: step size, in AdamW's scale.
        momentum: of the Nesterov average.
        weight_decay: decoupled.
    """

    COEFFICIENTS = (3.4445, -4.775, 2.0315)

    def __init__(self, params: Iterable, lr: float = 1e-3, momentum: float = 0.95, weight_decay: float = 0.1):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(p.shape, []).append(p)
            for params in by_shape.values():
                updates = []
                for p in params:
                    assert p.grad is not None
                    state = self.state[p]
                    if "momentum" not in state:
                        state["momentum"] = torch.zeros_like(p)
                    state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                    updates.append(p.grad.lerp(state["momentum"], group["momentum"]))
                scale = 0.2 * max(params[0].shape) ** 0.5
                for p, update in zip(params, self._orthogonal(torch.stack(updates)), strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * scale)

    @classmethod
    def _orthogonal(cls, x: torch.Tensor) -> torch.Tensor:
        """Matrices ``[n, r, c]`` with their singular values pushed towards one."""
        a, b, c = cls.COEFFICIENTS
        tall = x.shape[-2] > x.shape[-1]
        x = x.mT if tall else x
        dtype = x.dtype
        x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
        x = x.bfloat16() if dtype == torch.float32 and native_bf16(x.device) else x
        for _ in range(5):
            gram = x @ x.mT
            x = a * x + (b * gram + c * gram @ gram) @ x
        return (x.mT if tall else x).to(dtype)


@dataclass
class ParameterGroup:
    """Parameters that share a rate.

    Attributes:
        params: any number; weight decay applies to those of two or more dimensions only.
        lr: peak rate. muon: step the matrices with Muon. boosted: the sharkfin factor applies.
    """

    params: list[nn.Parameter]
    lr: float
    muon: bool = False
    boosted: bool = False


class OptimizerSet:
    """Several optimizers stepped as one. ``step(factor, boost)`` runs each group at its peak rate times the factor."""

    def __init__(self, optimizers: list[torch.optim.Optimizer]):
        self.optimizers = optimizers

    @property
    def groups(self) -> list[dict]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def step(self, factor: float = 1.0, boost: float = 1.0) -> None:
        for group in self.groups:
            group["lr"] = group["peak_lr"] * factor * (boost if group["boosted"] else 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        # Fused steps do not count a parameter's version up, by which packed sparse weights know that it has changed.
        torch.autograd.graph.increment_version([p for group in self.groups for p in group["params"]])

    def forget(self, params: Iterable[nn.Parameter]) -> None:
        """Set the running mean of some parameters' gradients to zero; what their size was is kept."""
        for p in params:
            for optimizer in self.optimizers:
                for name, value in optimizer.state.get(p, {}).items():
                    if name in ("exp_avg", "momentum"):
                        value.zero_()

    def zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def whole_state_dict(self, keep: bool = True) -> dict:
        """What the optimizers know, of whole parameters.

        Args:
            keep: whether this process wants it; where not, it takes its part in gathering shards.
        """
        states = []
        for optimizer in self.optimizers:
            found = optimizer.state_dict()
            # Of copies: the dicts of each parameter are the optimizer's own.
            known = {index: dict(values) for index, values in found["state"].items()}
            for values in known.values():
                for name, value in values.items():
                    if isinstance(value, Tensor) and is_sharded(value):
                        full = whole(value)
                        values[name] = full.cpu() if keep else None
            states.append(found | {"state": known})
        return {"optimizers": states}

    def load_whole_state_dict(self, state: dict) -> None:
        """Load what `whole_state_dict` gave, each process its rows."""
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            params = [p for group in optimizer.param_groups for p in group["params"]]
            shards = {
                index: {
                    name: sharded_like(value, params[index]) if isinstance(value, Tensor) and value.ndim else value
                    for name, value in known.items()
                }
                for index, known in saved["state"].items()
                if index < len(params)
            }
            optimizer.load_state_dict(saved | {"state": shards})


def build_optimizer(
    groups: Iterable[ParameterGroup],
    *,
    betas: tuple[float, float] = (0.9, 0.95),
    eps: float = 1e-8,
    weight_decay: float = 0.1,
) -> OptimizerSet:
    """AdamW, with Muon for the matrices of the groups that ask for it."""
    adam: list[dict] = []
    muon: list[dict] = []
    for group in groups:
        common = {"lr": group.lr, "peak_lr": group.lr, "boosted": group.boosted}
        matrices = [p for p in group.params if p.ndim >= 2]
        vectors = [p for p in group.params if p.ndim < 2]
        if matrices:
            (muon if group.muon else adam).append({"params": matrices, "weight_decay": weight_decay, **common})
        if vectors:
            adam.append({"params": vectors, "weight_decay": 0.0, **common})
    optimizers: list[torch.optim.Optimizer] = []
    if adam:
        optimizers.append(torch.optim.AdamW(adam, betas=betas, eps=eps, fused=True))
    if muon:
        optimizers.append(Muon(muon))
    return OptimizerSet(optimizers)
