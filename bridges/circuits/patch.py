"""Node values kept or replaced: the operation that gates, circuits and controls all come down to."""

from __future__ import annotations

import torch
from torch import Tensor

import bridges.kernels as kernels
from bridges.kernels import choose as kernel


def _rows(x: Tensor, kept: Tensor, other: Tensor, entries: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mask and values as plain PyTorch wants them, broadcast to ``x [rows, T, channels]``."""
    if kept.ndim == 2:
        kept = kept.repeat_interleave(len(x) // len(kept), 0).unsqueeze(1)
    if entries is not None:
        other = other[entries, : x.shape[1]]
    elif other.ndim == 3:
        other = other.repeat(len(x) // len(other), 1, 1)
    return kept, other.to(x)


class _Patch(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx, x: Tensor, kept: Tensor, other: Tensor, tau: Tensor | None, temperature: float, entries: Tensor | None
    ) -> Tensor:
        ctx.temperature = temperature
        ctx.save_for_backward(x, kept, other, tau, entries)
        if kernel.supported(x) and kernels.active():
            return kernel.forward(x, kept, other, entries)
        mask, values = _rows(x, kept, other, entries)
        return torch.where(mask, x, values)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        x, kept, other, tau, entries = ctx.saved_tensors
        if kernel.supported(x) and kernels.active():
            of_x, sums = kernel.backward(grad.to(x.dtype), x, kept, other, tau is not None, entries)
        else:
            mask, values = _rows(x, kept, other, entries)
            of_x = torch.where(mask, grad, 0)
            sums = (grad.float() * (x.float() - values.float())).flatten(0, -2).sum(0) if tau is not None else None
        if tau is None or sums is None:
            return of_x, None, None, None, None, None
        soft = torch.sigmoid(tau / ctx.temperature)
        return of_x, None, None, sums * soft * (1 - soft) / ctx.temperature, None, None


def patch(
    x: Tensor,
    kept: Tensor,
    other: Tensor,
    tau: Tensor | None = None,
    temperature: float = 1.0,
    entries: Tensor | None = None,
) -> Tensor:
    """``x [rows, T, channels]`` in the channels that are kept, ``other`` in the rest.

    Args:
        kept: bool ``[channels]``, or ``[S, channels]``, each mask for an equal share of the rows in turn.
        other: ``[channels]``, or ``[n, T, channels]``, as many rows as go into those of x; no gradient flows into it.
        tau: ``[channels]``: the gradient of a sigmoid at so many ``temperature`` units, in place of the step's, flows
            into it (paper, section A.5). For a single mask.
        entries: int64 ``[rows]``: each row reads that entry of ``other``, which may be longer than T.
    """
    return _Patch.apply(x, kept.to(x.device), other.detach().to(x), tau, temperature, entries)
