"""The four operations a faster backend may replace: AbsTopK, sink attention, linear maps and the L0 projection.

Everything else in the sparse transformer is ordinary PyTorch. Each operation is one function with one meaning; what a
backend may change is how long it takes, never what comes out.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

# --- AbsTopK ----------------------------------------------------------------------------------------------------------


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, torch.get_num_threads()), thread_name_prefix="abs_topk")


def _kth_largest_bits(magnitude: Tensor, k: int) -> Tensor:
    """The k-th largest of each row of non-negative fp32 ``[n, width]``, ``[n, 1]``.

    Non-negative floats order like their bit patterns, and NumPy partitions 32-bit integers with vector instructions:
    about six times faster than ``torch.topk`` here.
    """
    bits = magnitude.numpy().view(np.int32)
    n, width = bits.shape
    out = np.empty((n, 1), dtype=np.int32)

    def rows(start: int, stop: int) -> None:
        part = bits[start:stop].copy()
        part.partition(width - k, axis=-1)
        out[start:stop, 0] = part[:, width - k]

    # Pieces that stay in the second-level cache; NumPy lets go of the interpreter lock while it partitions.
    size = max(1, 131_072 // width)
    starts = range(0, n, size)
    list(_pool().map(lambda s: rows(s, min(n, s + size)), starts))
    return torch.from_numpy(out.view(np.float32))


def _top_k_mask(x: Tensor, k: int) -> Tensor:
    """Boolean mask of the k largest magnitudes of each row ``[n, width]``; of equal ones the lowest index stays."""
    magnitude = x.detach().abs()
    if x.device.type != "cpu":
        index = magnitude.topk(k, dim=-1, sorted=False).indices
        return torch.zeros_like(magnitude, dtype=torch.bool).scatter_(-1, index, True)
    magnitude = magnitude.float().contiguous()
    threshold = _kth_largest_bits(magnitude, k)
    mask = magnitude >= threshold
    crowded = ((mask.sum(-1) > k) & (threshold[:, 0] > 0)).nonzero()[:, 0]
    if len(crowded):
        # Rows with equal magnitudes at the threshold: keep the strictly larger ones and the first of the equal ones.
        rows, bar = magnitude[crowded], threshold[crowded]
        larger, equal = rows > bar, rows == bar
        room = k - larger.sum(-1, keepdim=True)
        mask[crowded] = larger | (equal & (equal.cumsum(-1) <= room))
    return mask


class _AbsTopK(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, k: int) -> Tensor:  # type: ignore[override]
        mask = _top_k_mask(x.reshape(-1, x.shape[-1]), k).view(x.shape)
        ctx.save_for_backward(mask)
        return x * mask

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        (mask,) = ctx.saved_tensors
        return grad * mask, None


def abs_topk(x: Tensor, k: int) -> Tensor:
    """Keep the ``k`` largest magnitudes of the last dimension and zero the rest (paper, section 2.1).

    Args:
        x: ``[..., width]``.
        k: how many stay, ``1 ≤ k``; at ``k ≥ width`` nothing changes. Of equal magnitudes the lowest index stays on
            the CPU; on other devices the choice between them is the device's.

    Returns:
        ``[..., width]``; the gradient flows through the kept entries only.
    """
    return x if k >= x.shape[-1] else _AbsTopK.apply(x, k)


# --- attention --------------------------------------------------------------------------------------------------------


class _SinkAttention(torch.autograd.Function):
    """Flash attention with the sink put in afterwards.

    With l the log-sum-exp of a query's scores and s the sink's logit, the sink turns the output o into o·σ(l − s) and
    l into log(e^l + e^s); flash attention's own backward is exact for the new pair, since it rebuilds the
    probabilities from the log-sum-exp and its row term from the output.
    """

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None) -> Tensor:  # type: ignore[override]
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, True)
        lse = lse.float()
        if sink is not None:
            logit = sink.float().view(1, -1, 1)
            out = out * torch.sigmoid(lse - logit).unsqueeze(-1).to(out.dtype)
            lse = torch.logaddexp(lse, logit)
        ctx.save_for_backward(q, k, v, out, lse, sink)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        q, k, v, out, lse, sink = ctx.saved_tensors
        grad_sink = None
        if sink is not None:
            share = torch.exp(sink.float().view(1, -1, 1) - lse)
            grad_sink = -(share * (grad.float() * out.float()).sum(-1)).sum((0, 2)).to(sink.dtype)
        grads = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad.contiguous(), q, k, v, out, lse, 0.0, True
        )
        return *grads, grad_sink


def sink_attention(q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None) -> Tensor:
    """Causal attention whose softmax has one more term, a learned logit per head with value zero (paper, A.1).

    Args:
        q, k, v: ``[B, heads, T, d_head]``. Scores are scaled by ``1/√d_head``.
        sink: ``[heads]``, or None for plain causal attention.

    Returns:
        ``[B, heads, T, d_head]``.
    """
    if q.device.type == "cpu":
        return _SinkAttention.apply(q, k, v, sink)
    if sink is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    tokens = q.shape[-2]
    scores = (q @ k.mT).float() / math.sqrt(q.shape[-1])
    future = torch.ones(tokens, tokens, dtype=torch.bool, device=q.device).triu(1)
    scores = scores.masked_fill(future, -math.inf)
    column = sink.float().view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
    return torch.cat([scores, column], -1).softmax(-1)[..., :-1].to(v.dtype) @ v


# --- linear -----------------------------------------------------------------------------------------------------------


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x [..., in]`` through a weight-sparse ``weight [out, in]`` to ``[..., out]``; here by dense matmul."""
    return F.linear(x, weight, bias)


# --- projection -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def top_k_threshold(magnitude: Tensor, k: int, guess: float | None = None) -> tuple[Tensor, float]:
    """Mask of exactly the ``k`` largest of a non-negative tensor, and the threshold for the next call's ``guess``.

    Args:
        magnitude: any shape.
        k: entries that stay; of equal ones those with the lowest index.
        guess: the last threshold of the same tensor. Entries below 0.95 of it are passed over when enough stand above,
            which changes the time and never the answer.
    """
    flat = magnitude.reshape(-1)
    if k >= flat.numel():
        return torch.ones_like(magnitude, dtype=torch.bool), 0.0
    if k <= 0:
        return torch.zeros_like(magnitude, dtype=torch.bool), math.inf
    survivors = None
    if guess is not None and 0 < guess < math.inf:
        survivors = (flat > 0.95 * guess).nonzero()[:, 0]
        if len(survivors) < k:
            survivors = None
    values = flat if survivors is None else flat[survivors]
    if values.device.type == "cpu" and values.dtype == torch.float32:
        threshold = float(_kth_largest_bits(values.contiguous().view(1, -1), k)[0, 0])
    else:
        threshold = float(values.kthvalue(values.numel() - k + 1).values)
    mask = flat > threshold
    equal = (flat == threshold).nonzero()[:, 0]
    mask[equal[: k - int(mask.sum())]] = True
    return mask.view_as(magnitude), threshold
