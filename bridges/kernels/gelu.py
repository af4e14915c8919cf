"""GELU, exact or through tanh, see ``gelu.cpp``."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bridges.kernels.call import SUFFIX, KernelArgumentError, call, contiguous, operand
from bridges.kernels.call import on_cpu as supported

__all__ = ["FORMS", "GELU", "backward", "forward", "supported"]

FORMS = ("none", "tanh")


def _call(name: str, approximate: str, **tensors: Tensor) -> Tensor:
    """The kernel on tensors that are alike in shape and dtype."""
    if approximate not in FORMS:
        raise KernelArgumentError(f"There is no GELU approximate={approximate!r}, only {' and '.join(FORMS)}.")
    first = next(iter(tensors.values()))
    dtypes = (first.dtype,) if first.dtype in SUFFIX else tuple(SUFFIX)
    given = [operand(what, contiguous(x), dtypes, first.shape) for what, x in tensors.items()]
    out = torch.empty_like(given[0].tensor)
    call(f"{name}_{approximate}_{SUFFIX[out.dtype]}", *given, operand("out", out, out.dtype, out.shape), out.numel())
    return out


def forward(x: Tensor, approximate: str) -> Tensor:
    """GELU of every entry of ``x``, of any shape, in the dtype of x; ``approximate`` is that of PyTorch.

    Raises:
        KernelArgumentError: ``x`` is not fp32 or bf16 on the CPU.
    """
    return _call("gelu", approximate, x=x)


def backward(grad: Tensor, x: Tensor, approximate: str) -> Tensor:
    """``grad`` times the derivative at ``x``, alike in shape and dtype; errors as in `forward`."""
    return _call("gelu_backward", approximate, grad=grad, x=x)


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
