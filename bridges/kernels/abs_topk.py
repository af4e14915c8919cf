"""AbsTopK of the rows of a matrix, see ``abs_topk.cpp``."""

from __future__ import annotations

import torch
from torch import Tensor

from bridges.kernels.call import SUFFIX, call
from bridges.kernels.call import on_cpu as supported

__all__ = ["backward", "forward", "supported"]


def forward(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """``x [n, width]`` with all but the ``k`` largest magnitudes of each row zeroed, and the mask of what stayed."""
    x = x.contiguous()
    out, mask = torch.empty_like(x), torch.empty(x.shape, dtype=torch.bool)
    call(f"abs_topk_{SUFFIX[x.dtype]}", x, out, mask, x.shape[0], x.shape[1], k)
    return out, mask


def backward(grad: Tensor, mask: Tensor) -> Tensor:
    """``grad`` where ``mask`` holds, zero elsewhere."""
    grad = grad.contiguous()
    out = torch.empty_like(grad)
    call(f"select_{SUFFIX[grad.dtype]}", grad, mask, out, grad.numel())
    return out
