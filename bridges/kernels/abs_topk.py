"""AbsTopK of the rows of a matrix, see ``abs_topk.cpp``."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from bridges.kernels.build import library

_SUFFIX = {torch.float32: "f32", torch.bfloat16: "bf16"}


def supported(x: Tensor) -> bool:
    """Whether there is a kernel for this tensor."""
    return x.device.type == "cpu" and x.dtype in _SUFFIX


def _call(name: str, x: Tensor, *arguments: Tensor | int) -> None:
    kernel = getattr(library(), f"{name}_{_SUFFIX[x.dtype]}")
    kernel(*(ctypes.c_void_p(a.data_ptr()) if isinstance(a, Tensor) else ctypes.c_int64(a) for a in arguments))


def forward(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """``x [n, width]`` with all but the ``k`` largest magnitudes of each row zeroed, and the mask of what stayed."""
    x = x.contiguous()
    out, mask = torch.empty_like(x), torch.empty(x.shape, dtype=torch.bool)
    _call("abs_topk", x, x, out, mask, x.shape[0], x.shape[1], k)
    return out, mask


def backward(grad: Tensor, mask: Tensor) -> Tensor:
    """``grad`` where ``mask`` holds, zero elsewhere."""
    grad = grad.contiguous()
    out = torch.empty_like(grad)
    _call("select", grad, grad, mask, out, grad.numel())
    return out
