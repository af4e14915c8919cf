"""Causal attention with an optional sink on the CPU, see ``attention.cpp``.

PyTorch's flash attention was measured to be slow here in bf16: its forward on short prompts with narrow heads, its
backward always.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bridges.kernels.call import SUFFIX, KernelArgumentError, Operand, call, contiguous, on_cpu, operand, parameter


def supported(q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None = None) -> bool:
    """Whether there is a kernel for these tensors; shapes that do not fit are left to PyTorch's error."""
    alike = q.shape == k.shape == v.shape and q.dtype == k.dtype == v.dtype and q.ndim == 4
    if not (alike and all(on_cpu(part) for part in (q, k, v))):
        return False
    return sink is None or (sink.shape == q.shape[1:2] and sink.device == q.device and sink.is_floating_point())


def _tokens_first(name: str, part: Tensor, like: Tensor) -> Operand:
    """``[B, heads, T, d_head]`` as contiguous ``[B, T, heads, d_head]``: no copy where a linear map made it."""
    if like.ndim != 4:
        raise KernelArgumentError(f"q has shape {list(like.shape)}; attention takes [batch, heads, tokens, width].")
    batch, heads, tokens, width = like.shape
    turned = contiguous(part.transpose(1, 2)) if part.ndim == 4 else part
    return operand(name, turned, like.dtype if like.dtype in SUFFIX else tuple(SUFFIX), (batch, tokens, heads, width))


def _sink(sink: Tensor | None, heads: int) -> Operand | None:
    return None if sink is None else operand("sink", parameter(sink), torch.float32, (heads,))


def forward(q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """Attention's output ``[B, heads, T, d_head]`` and the log-sum-exp of every query, ``[B, heads, T]`` in fp32.

    Args:
        q, k, v: ``[B, heads, T, d_head]``, fp32 or bf16 alike.
        sink: ``[heads]``, a logit without a value that counts in the log-sum-exp; or None.
        scale: factor on q·k.

    Raises:
        KernelArgumentError: a tensor is of another dtype, shape or device than that.
    """
    given = [_tokens_first(name, part, q) for name, part in (("q", q), ("k", k), ("v", v))]
    batch, heads, tokens, width = q.shape
    out, lse = torch.empty_like(given[0].tensor), torch.empty(batch, heads, tokens)
    results = operand("out", out, q.dtype, out.shape), operand("lse", lse, torch.float32, lse.shape)
    name = f"attention_forward_{SUFFIX[q.dtype]}"
    call(name, *given, _sink(sink, heads), *results, batch, heads, tokens, width, float(scale))
    return out.transpose(1, 2), lse


def backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, sink: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients of q, k, v and the sink; shapes, dtypes and errors as in `forward`."""
    parts = {"q": q, "k": k, "v": v, "out": out, "grad": grad}
    given = [_tokens_first(name, part, q) for name, part in parts.items()]
    batch, heads, tokens, width = q.shape
    lse = contiguous(lse)
    grads = [torch.empty_like(given[0].tensor) for _ in range(3)]
    of_sink = torch.zeros(batch, heads)
    results = [operand("gradient", part, q.dtype, given[0].tensor.shape) for part in grads]
    results.append(operand("gradient of the sink", of_sink, torch.float32, (batch, heads)))
    scores = operand("lse", lse, torch.float32, (batch, heads, tokens))
    name = f"attention_backward_{SUFFIX[q.dtype]}"
    call(name, *given, scores, _sink(sink, heads), *results, batch, heads, tokens, width, float(scale))
    dq, dk, dv = (part.transpose(1, 2) for part in grads)
    return dq, dk, dv, None if sink is None else of_sink.sum(0).to(sink.dtype)


class CausalAttention(torch.autograd.Function):
    """Softmax attention without a sink."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:  # type: ignore[override]
        out, lse = forward(q, k, v, None, scale)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        q, k, v, out, lse = ctx.saved_tensors
        return backward(grad, q, k, v, out, lse, None, ctx.scale)


def register() -> str:
    """Make ``attn_implementation="bridges"`` known to transformers; returns the name.

    It serves plain causal self-attention of whole sequences (what a residual stack runs) and leaves everything else
    to PyTorch's own.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def forward(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **kwargs):
        plain = attention_mask is None and not dropout and supported(query, key, value)
        if not plain or not query.requires_grad:
            return sdpa_attention_forward(
                module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
            )
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        return CausalAttention.apply(query, key, value, scale).transpose(1, 2).contiguous(), None

    ALL_ATTENTION_FUNCTIONS.register("bridges", forward)
    ALL_MASK_ATTENTION_FUNCTIONS.register("bridges", sdpa_mask)
    return "bridges"
