"""Cross-entropy, KL and their gradient from logits, see ``head.cpp``."""

from __future__ import annotations

import torch
from torch import Tensor

from bridges.kernels.call import KernelArgumentError, call, contiguous, indices, operand, parameter


def supported(logits: Tensor, target: Tensor) -> bool:
    """Whether there is a kernel for these logits and log-probabilities."""
    fp32 = logits.dtype == target.dtype == torch.float32
    cpu = logits.device.type == target.device.type == "cpu"
    return fp32 and cpu and logits.ndim == 3 and logits.shape[-1] > 0 and logits.shape[1:] == target.shape


def loss_and_gradient(
    logits: Tensor, labels: Tensor, target: Tensor, ce: Tensor, kl: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """CE and KL of S streams at n positions, ``[S, n]`` each, and the gradient of their weighted sum, ``[S, n, V]``.

    Args:
        logits: ``[S, n, V]`` in fp32.
        labels: whole numbers below V, ``[n]``; CE is 0 where one is negative.
        target: the reference's log-probabilities ``[n, V]`` in fp32.
        ce, kl: what each stream's values count for, ``[S]``; of any floating dtype.

    Raises:
        KernelArgumentError: an argument is of another dtype, shape or device, or a label does not exist.
    """
    if logits.ndim != 3 or logits.shape[-1] == 0:
        raise KernelArgumentError(f"logits are [streams, positions, vocabulary], not {list(logits.shape)}.")
    logits = contiguous(logits)
    streams, n, width = logits.shape
    fp32, lowest = torch.float32, torch.iinfo(torch.int64).min
    source = operand("logits", logits, fp32, logits.shape)
    grad, values = torch.empty_like(logits), torch.empty(2, streams, n)
    call(
        "head_loss_f32",
        source,
        operand("gradient", grad, fp32, logits.shape),
        operand("target", contiguous(target), fp32, (n, width)),
        operand("labels", indices("labels", labels, lowest, width), torch.int64, (n,)),
        operand("ce", parameter(ce), fp32, (streams,)),
        operand("kl", parameter(kl), fp32, (streams,)),
        operand("CE", values[0], fp32, (streams, n)),
        operand("KL", values[1], fp32, (streams, n)),
        *logits.shape,
    )
    return values[0], values[1], grad
