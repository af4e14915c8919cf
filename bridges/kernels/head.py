"""Cross-entropy, KL and their gradient from logits, see ``head.cpp``."""

from __future__ import annotations

import torch
from torch import Tensor

from bridges.kernels.call import call


def supported(logits: Tensor, target: Tensor) -> bool:
    """Whether there is a kernel for these logits and log-probabilities."""
    fp32 = logits.dtype == target.dtype == torch.float32
    return fp32 and logits.device.type == "cpu" and logits.ndim == 3 and logits.shape[1:] == target.shape


def loss_and_gradient(
    logits: Tensor, labels: Tensor, target: Tensor, ce: Tensor, kl: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """CE and KL of S streams at n positions, ``[S, n]`` each, and the gradient of their weighted sum, ``[S, n, V]``.

    Args:
        logits: ``[S, n, V]`` in fp32.
        labels: ``[n]``; CE is 0 where one is negative.
        target: the reference's log-probabilities ``[n, V]``.
        ce, kl: what each stream's values count for, ``[S]``.
    """
    logits = logits.contiguous()
    grad, values = torch.empty_like(logits), logits.new_empty(2, *logits.shape[:2])
    given = (logits, grad, target.contiguous(), labels.contiguous(), ce.contiguous(), kl.contiguous())
    call("head_loss_f32", *given, values[0], values[1], *logits.shape)
    return values[0], values[1], grad
