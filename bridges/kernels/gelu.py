"""GELU, exact or through tanh, see ``gelu.cpp``."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bridges.kernels.call import SUFFIX, call
from bridges.kernels.call import on_cpu as supported

__all__ = ["FORMS", "GELU", "backward", "forward", "supported"]

FORMS = ("none", "tanh")


def _call(name: str, *tensors: Tensor) -> Tensor:
    out = torch.empty_like(tensors[0])
    call(f"{name}_{SUFFIX[out.dtype]}", *tensors, out, out.numel())
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
