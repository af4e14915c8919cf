"""RMSNorm with an optional gain, see ``norm.cpp``."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bridges.kernels.call import SUFFIX, KernelArgumentError, Operand, call, contiguous, on_cpu, operand, parameter

# Dtypes of input and output.
_PAIRS = ((torch.float32, torch.float32), (torch.float32, torch.bfloat16), (torch.bfloat16, torch.bfloat16))
# Rows whose part of the gain's gradient is summed in one go.
_PIECE = 64


def supported(x: Tensor, weight: Tensor | None, dtype: torch.dtype) -> bool:
    """Whether there is a kernel for this input, gain and output dtype; not for shapes that PyTorch refuses."""
    if weight is not None and not on_cpu(weight):
        return False
    fits = x.ndim > 0 and x.shape[-1] > 0 and (weight is None or weight.shape == x.shape[-1:])
    return fits and on_cpu(x) and (x.dtype, dtype) in _PAIRS


def _given(x: Tensor, weight: Tensor | None, dtype: torch.dtype) -> tuple[Operand, Operand | None]:
    """Input and gain as the kernel reads them."""
    if x.ndim == 0 or x.shape[-1] == 0:
        raise KernelArgumentError(f"RMSNorm has no channels to work on in a tensor of shape {list(x.shape)}.")
    dtypes = [a for a, b in _PAIRS if b == dtype]
    if not dtypes:
        raise KernelArgumentError(f"RMSNorm gives fp32 or bf16, not {dtype}.")
    source = operand("x", contiguous(x), dtypes, x.shape)
    return source, None if weight is None else operand("gain", parameter(weight), torch.float32, x.shape[-1:])


def _call(name: str, x: Tensor, out: torch.dtype, tensors: list[Operand | None], last: int | float) -> None:
    call(f"{name}_{SUFFIX[x.dtype]}_{SUFFIX[out]}", *tensors, x.numel() // x.shape[-1], x.shape[-1], last)


def forward(x: Tensor, weight: Tensor | None, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """``x / sqrt(mean(x²) + eps) · weight`` over the last dimension, and the factor of each row in fp32.

    Args:
        x: ``[..., width]``, fp32 or bf16; computed in fp32.
        weight: ``[width]`` or None.
        dtype: of the output: that of x, or bf16.

    Raises:
        KernelArgumentError: an argument is of another dtype, shape or device than that.
    """
    source, gain = _given(x, weight, dtype)
    out, scale = torch.empty_like(source.tensor, dtype=dtype), torch.empty(x.shape[:-1])
    results = operand("out", out, dtype, x.shape), operand("factor", scale, torch.float32, x.shape[:-1])
    _call("rms_norm", x, dtype, [source, gain, *results], float(eps))
    return out, scale


def backward(
    grad: Tensor, x: Tensor, weight: Tensor | None, scale: Tensor, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of x and of the weight, each where ``wanted``; ``scale`` is the factor from `forward`."""
    grad, scale = contiguous(grad), contiguous(scale)
    source, gain = _given(x, weight, grad.dtype)
    rows, width = scale.numel(), x.shape[-1]
    of_x = torch.empty_like(source.tensor) if wanted[0] else None
    parts = torch.empty(-(-rows // _PIECE), width) if wanted[1] else None
    tensors = [
        operand("grad", grad, grad.dtype, x.shape),
        source,
        gain,
        operand("factor", scale, torch.float32, x.shape[:-1]),
        None if of_x is None else operand("gradient of x", of_x, x.dtype, x.shape),
        None if parts is None else operand("gradient of the gain", parts, torch.float32, parts.shape),
    ]
    _call("rms_norm_backward", x, grad.dtype, tensors, _PIECE)
    return of_x, None if parts is None or weight is None else parts.sum(0).to(weight.dtype)


class RMSNorm(torch.autograd.Function):
    """RMSNorm with both passes by the kernel."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor | None, eps: float, dtype: torch.dtype):  # type: ignore[override]
        out, scale = forward(x, weight, eps, dtype)
        ctx.save_for_backward(x, weight, scale)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        x, weight, scale = ctx.saved_tensors
        wanted = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        return *backward(grad, x, weight, scale, wanted), None, None
