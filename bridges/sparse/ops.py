"""What a faster backend may replace: AbsTopK, sink attention, linear maps, RMSNorm, GELU and the L0 projection.

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

import bridges.kernels as kernels
from bridges.kernels import abs_topk as topk_kernel
from bridges.kernels import attention, gpu_topk
from bridges.kernels import gelu as gelu_kernel
from bridges.kernels import norm as norm_kernel
from bridges.kernels import sparse as sparse_kernel

# --- AbsTopK ----------------------------------------------------------------------------------------------------------


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, torch.get_num_threads()), thread_name_prefix="abs_topk")


# Floats without their sign order like their bit patterns, and NumPy partitions integers with vector instructions: about
# six times faster than torch.topk.
_BITS = {torch.float32: (torch.int32, 0x7FFFFFFF), torch.bfloat16: (torch.int16, 0x7FFF)}
# Rows are worked on in pieces that stay in the second-level cache.
_PIECE = 1 << 16


def _keep_rows(bits: np.ndarray, sign: int, k: int, out: np.ndarray, mask: np.ndarray) -> None:
    """AbsTopK of rows of bit patterns ``[n, width]`` into ``out`` and ``mask``."""
    magnitude = bits & bits.dtype.type(sign)
    ordered = magnitude.copy()
    width = bits.shape[1]
    ordered.partition(width - k, axis=-1)
    bar = ordered[:, width - k, None]
    np.greater_equal(magnitude, bar, out=mask)
    crowded = ordered[:, : width - k].max(axis=1) == bar[:, 0]
    if crowded.any():
        # Equal magnitudes on both sides of the bar: the strictly larger ones stay, and the first of the equal ones.
        rows, level = magnitude[crowded], bar[crowded]
        equal = rows == level
        room = k - (rows > level).sum(axis=1, keepdims=True)
        mask[crowded] = (rows > level) | (equal & (equal.cumsum(axis=1) <= room))
    np.multiply(bits, mask, out=out)


def _abs_topk_cpu(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """AbsTopK and its mask for ``[n, width]`` of fp32 or bf16."""
    integer, sign = _BITS[x.dtype]
    x = x.contiguous()
    out, mask = torch.empty_like(x), torch.empty(x.shape, dtype=torch.bool)
    source, target, kept = x.view(integer).numpy(), out.view(integer).numpy(), mask.numpy()
    size = max(1, _PIECE // x.shape[1])
    # NumPy lets go of the interpreter lock in all of these operations.
    list(
        _pool().map(
            lambda at: _keep_rows(source[at : at + size], sign, k, target[at : at + size], kept[at : at + size]),
            range(0, len(x), size),
        )
    )
    return out, mask


class _AbsTopK(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, k: int) -> Tensor:  # type: ignore[override]
        rows = x.reshape(-1, x.shape[-1])
        if kernels.active() and topk_kernel.supported(x):
            out, mask = topk_kernel.forward(rows, k)
        elif x.device.type == "cpu" and x.dtype in _BITS:
            out, mask = _abs_topk_cpu(rows, k)
        elif gpu_topk.supported(rows):
            out, mask = gpu_topk.forward(rows, k)
        else:
            index = rows.abs().topk(k, dim=-1, sorted=False).indices
            mask = torch.zeros_like(rows, dtype=torch.bool).scatter_(-1, index, True)
            out = torch.where(mask, rows, 0)
        ctx.save_for_backward(mask.view(x.shape))
        return out.view(x.shape)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        (mask,) = ctx.saved_tensors
        if kernels.active() and topk_kernel.supported(grad):
            return topk_kernel.backward(grad, mask), None
        return torch.where(mask, grad, 0), None


def abs_topk(x: Tensor, k: int) -> Tensor:
    """Keep the ``k`` largest magnitudes of the last dimension and zero the rest (paper, section 2.1).

    Args:
        x: ``[..., width]``.
        k: how many stay, ``1 ≤ k``; at ``k ≥ width`` nothing changes. Of equal magnitudes the lowest index stays on
            the CPU and on a GPU with Triton; elsewhere the choice between them is the device's.

    Returns:
        ``[..., width]``; the gradient flows through the kept entries only.
    """
    return x if k >= x.shape[-1] else _AbsTopK.apply(x, k)


# --- attention --------------------------------------------------------------------------------------------------------


class _SinkAttention(torch.autograd.Function):
    """Attention with a sink: by the C++ kernels, or flash attention with the sink put in afterwards.

    With l the log-sum-exp of a query's scores and s the sink's logit, the sink turns the output o into o·σ(l − s) and
    l into log(e^l + e^s); flash attention's own backward is exact for the new pair, since it rebuilds the
    probabilities from the log-sum-exp and its row term from the output.
    """

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None) -> Tensor:  # type: ignore[override]
        ctx.gpu = None
        if q.device.type == "cpu" and kernels.active():
            out, lse = attention.forward(q, k, v, sink, 1 / math.sqrt(q.shape[-1]))
            ctx.save_for_backward(q, k, v, out, lse, sink)
            return out
        if q.device.type == "cpu":
            out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, True)
        else:
            out, lse, *ctx.gpu, _ = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, True)
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
        if ctx.gpu is None and kernels.active():
            return attention.backward(grad, q, k, v, out, lse, sink, 1 / math.sqrt(q.shape[-1]))
        grad_sink = None
        if sink is not None:
            share = torch.exp(sink.float().view(1, -1, 1) - lse)
            grad_sink = -(share * (grad.float() * out.float()).sum(-1)).sum((0, 2)).to(sink.dtype)
        if ctx.gpu is not None:
            q_ends, k_ends, q_longest, k_longest, *random = ctx.gpu
            grads = torch.ops.aten._scaled_dot_product_flash_attention_backward(
                grad, q, k, v, out, lse, q_ends, k_ends, q_longest, k_longest, 0.0, True, *random
            )
        else:
            grads = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                grad.contiguous(), q, k, v, out, lse, 0.0, True
            )
        return *grads, grad_sink


def _flash_on_gpu(q: Tensor, k: Tensor, v: Tensor, sink: Tensor) -> bool:
    """Whether PyTorch's flash attention for GPUs takes these tensors: half precision, narrow heads of whole eights."""
    alike = q.shape == k.shape == v.shape and q.dtype == k.dtype == v.dtype and q.ndim == 4
    fits = alike and q.device.type == "cuda" and q.dtype in (torch.bfloat16, torch.float16)
    return fits and q.shape[-1] % 8 == 0 and q.shape[-1] <= 256 and sink.shape == q.shape[1:2]


def sink_attention(q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None) -> Tensor:
    """Causal attention whose softmax has one more term, a learned logit per head with value zero (paper, A.1).

    Args:
        q, k, v: ``[B, heads, T, d_head]``. Scores are scaled by ``1/√d_head``.
        sink: ``[heads]``, or None for plain causal attention.

    Returns:
        ``[B, heads, T, d_head]``.
    """
    if attention.supported(q, k, v, sink) or (sink is not None and _flash_on_gpu(q, k, v, sink)):
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


def autocast_once(x: Tensor) -> Tensor:
    """``x`` as autocast rounds what a linear map reads, for several maps that read it."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x [..., in]`` through a weight-sparse ``weight [out, in]`` to ``[..., out]``.

    Where few weights are left, products by the nonzeros alone; a dense product everywhere else. Autocast counts as it
    does for any linear map.
    """
    if x.device.type == "cpu" and kernels.active():
        x = autocast_once(x)
        nonzeros = sparse_kernel.packed(weight, x.dtype) if sparse_kernel.supported(x, weight, bias) else None
        if nonzeros is not None:
            return sparse_kernel.SparseProduct.apply(x, weight, bias, nonzeros)
    return F.linear(x, weight, bias)


# --- norm and activation ----------------------------------------------------------------------------------------------


def rms_norm(x: Tensor, weight: Tensor | None, eps: float | None, into_linear: bool = False) -> Tensor:
    """``x / √(mean(x²) + ε)`` over the last dimension, times a gain.

    Args:
        x: ``[..., width]``.
        weight: ``[width]`` or None.
        eps: ε; None: machine epsilon of fp32, or of fp64 for an ``x`` of that.
        into_linear: linear maps alone read the result: under autocast it may come in the dtype they round it to.

    Returns:
        ``[..., width]`` in the dtype of ``x``, under autocast too unless ``into_linear``.
    """
    if x.device.type == "cpu" and kernels.active():
        rounded = into_linear and torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if rounded else x.dtype
        if norm_kernel.supported(x, weight, dtype):
            eps = torch.finfo(torch.float32).eps if eps is None else eps
            return norm_kernel.RMSNorm.apply(x, weight, eps, dtype)
    return F.rms_norm(x, x.shape[-1:], weight, eps)


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """``x Φ(x)``, or its approximation through ``tanh``; any shape."""
    if gelu_kernel.supported(x) and approximate in gelu_kernel.FORMS and kernels.active():
        return gelu_kernel.GELU.apply(x, approximate)
    return F.gelu(x, approximate=approximate)


# --- projection -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def top_k_threshold(magnitude: Tensor, k: int, guess: float | None = None) -> tuple[Tensor, float]:
    """Mask of exactly the ``k`` largest of a non-negative tensor, and the threshold for the next call's ``guess``.

    Args:
        magnitude: any shape.
        k: entries that stay; of equal ones those with the lowest index.
        guess: the last threshold of the same tensor. Entries below 0.95 of it are passed over when enough stand above,
            which changes the time and never the answer. On a GPU there is no use for one, and 0 comes back.
    """
    flat = magnitude.reshape(-1)
    if k >= flat.numel():
        return torch.ones_like(magnitude, dtype=torch.bool), 0.0
    if k <= 0:
        return torch.zeros_like(magnitude, dtype=torch.bool), math.inf
    if flat.device.type == "cuda":
        # A number that the CPU learns is a wait for the GPU: none is asked for here.
        bar = flat.topk(k, sorted=False).values.amin()
        above, equal = flat > bar, flat == bar
        mask = above | (equal & (equal.cumsum(0) <= k - above.sum()))
        return mask.view_as(magnitude), 0.0
    survivors = None
    if guess is not None and 0 < guess < math.inf:
        survivors = (flat > 0.95 * guess).nonzero()[:, 0]
        if len(survivors) < k:
            survivors = None
    values = flat.contiguous() if survivors is None else flat[survivors]
    if values.device.type == "cpu" and values.dtype == torch.float32:
        bits = values.view(torch.int32).numpy().copy()
        bits.partition(bits.size - k)
        threshold = float(bits[bits.size - k : bits.size - k + 1].view(np.float32)[0])
    else:
        threshold = float(values.kthvalue(values.numel() - k + 1).values)
    mask = flat > threshold
    equal = (flat == threshold).nonzero()[:, 0]
    mask[equal[: k - int(mask.sum())]] = True
    return mask.view_as(magnitude), threshold
