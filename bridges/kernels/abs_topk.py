"""AbsTopK of the rows of a matrix, see ``abs_topk.cpp``."""

from __future__ import annotations

import torch
from torch import Tensor

from bridges.kernels.call import SUFFIX, KernelArgumentError, call, contiguous, operand, whole_number
from bridges.kernels.call import on_cpu as supported

__all__ = ["backward", "forward", "supported"]


def forward(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """``x [n, width]`` with all but the ``k`` largest magnitudes of each row zeroed, and the mask of what stayed.

    Raises:
        KernelArgumentError: ``x`` is no matrix of fp32 or bf16 on the CPU, or ``k`` not in 1 … width.
    """
    if x.ndim != 2:
        raise KernelArgumentError(f"AbsTopK takes a matrix, not a tensor of shape {list(x.shape)}.")
    x, k = contiguous(x), whole_number("k", k, 1, x.shape[1])
    source = operand("x", x, tuple(SUFFIX), x.shape)
    out, mask = torch.empty_like(x), torch.empty(x.shape, dtype=torch.bool)
    target, kept = operand("out", out, x.dtype, x.shape), operand("mask", mask, torch.bool, x.shape)
    call(f"abs_topk_{SUFFIX[x.dtype]}", source, target, kept, x.shape[0], x.shape[1], k)
    return out, mask


def backward(grad: Tensor, mask: Tensor) -> Tensor:
    """``grad`` where the bool ``mask``, of the same shape, holds; zero elsewhere.

    Raises:
        KernelArgumentError: ``grad`` is not fp32 or bf16 on the CPU, or the two do not belong together.
    """
    grad, mask = contiguous(grad), contiguous(mask)
    source, kept = operand("grad", grad, tuple(SUFFIX), grad.shape), operand("mask", mask, torch.bool, grad.shape)
    out = torch.empty_like(grad)
    call(f"select_{SUFFIX[grad.dtype]}", source, kept, operand("out", out, grad.dtype, grad.shape), grad.numel())
    return out
