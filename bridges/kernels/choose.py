"""Channels kept or replaced in one pass, see ``choose.cpp``."""

from __future__ import annotations

import torch
from torch import Tensor

from bridges.kernels.call import SUFFIX, call
from bridges.kernels.call import on_cpu as supported

__all__ = ["backward", "forward", "supported"]


def _call(
    name: str, x: Tensor, kept: Tensor, tensors: list[Tensor | None], other: Tensor, entries: Tensor | None
) -> None:
    rows, width = x.numel() // x.shape[-1], x.shape[-1]
    tokens, length = (x.shape[-2], other.shape[-2]) if entries is not None else (1, 1)
    assert tokens <= length
    sizes = (rows, width, rows // (kept.numel() // width), tokens, length, other.numel() // width)
    call(f"{name}_{SUFFIX[x.dtype]}", *tensors, entries, *sizes)


def forward(x: Tensor, kept: Tensor, other: Tensor, entries: Tensor | None = None) -> Tensor:
    """``x [rows…, channels]`` where kept, ``other`` elsewhere.

    Args:
        kept: bool ``[channels]`` or ``[S, channels]``, each mask for an equal share of the rows in turn.
        other: dtype of x, ``[channels]`` or as many rows as go into those of x a whole number of times.
        entries: int64 ``[prompts]``: x is ``[prompts, T, channels]``, ``other [n, ≥ T, channels]``, and each prompt
            reads the entry of ``other`` that it names.
    """
    x, kept, other = x.contiguous(), kept.contiguous(), other.contiguous()
    out = torch.empty_like(x)
    _call("choose", x, kept, [x, kept, other, out], other, entries)
    return out


def backward(
    grad: Tensor, x: Tensor, kept: Tensor, other: Tensor, sums: bool, entries: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """The gradient of x, and where asked for Σ grad·(x − other) over the rows, ``[channels]`` in fp32."""
    grad, x, kept, other = grad.contiguous(), x.contiguous(), kept.contiguous(), other.contiguous()
    of_x, total = torch.empty_like(grad), torch.empty(x.shape[-1]) if sums else None
    _call("choose_backward", grad, kept, [grad, x, kept, other, of_x, total], other, entries)
    return of_x, total
