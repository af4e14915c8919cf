"""GELU, exact or through tanh, see ``gelu.cpp``."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bridges.kernels.build import library

_SUFFIX = {torch.float32: "f32", torch.bfloat16: "bf16"}
FORMS = ("none", "tanh")


def supported(x: Tensor) -> bool:
    """Whether there is a kernel for this tensor."""
    return x.device.type == "cpu" and x.dtype in _SUFFIX


def _call(name: str, *tensors: Tensor) -> Tensor:
    out = torch.empty_like(tensors[0])
    pointers = (ctypes.c_void_p(t.data_ptr()) for t in (*tensors, out))
    getattr(library(), f"{name}_{_SUFFIX[out.dtype]}")(*pointers, ctypes.c_int64(out.numel()))
    return out


def forward(x: Tensor, approximate: str) -> Tensor:
    """GELU of every entry of ``x``, of any shape, in the dtype of x; ``approximate`` is that of PyTorch."""
    return _call(f"gelu_{approximate}", x.contiguous())


def backward(grad: Tensor, x: Tensor, approximate: str) -> Tensor:
    """``grad`` times the derivative at ``x``, alike in shape and dtype."""
    return _call(f"gelu_backward_{approximate}", grad.contiguous(), x.contiguous())


class GELU(torch.autograd.Function):
    """GELU with both passes by the kernel."""

    @staticmethod
    def forward(ctx, x: Tensor, approximate: str) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x)
        ctx.approximate = approximate
        return forward(x, approximate)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return backward(grad, x, ctx.approximate), None
