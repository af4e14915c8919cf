"""Causal attention with an optional sink on the CPU, see ``attention.cpp``.

PyTorch's flash attention was measured to be slow here in bf16: its forward on short prompts with narrow heads, its
backward always.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bridges.kernels.call import SUFFIX, call, on_cpu


def supported(q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None = None) -> bool:
    """Whether there is a kernel for these tensors; shapes that do not fit are left to PyTorch's error."""
    alike = q.shape == k.shape == v.shape and q.dtype == k.dtype == v.dtype and q.ndim == 4
    return alike and on_cpu(q) and (sink is None or sink.shape == q.shape[1:2])


def _tokens_first(*parts: Tensor) -> list[Tensor]:
    """``[B, heads, T, d_head]`` as contiguous ``[B, T, heads, d_head]``: no copy where a linear map made them."""
    return [part.transpose(1, 2).contiguous() for part in parts]


def _call(name: str, tensors: list[Tensor | None], scale: float) -> None:
    q = tensors[0]
    assert q is not None
    batch, tokens, heads, width = q.shape
    call(f"attention_{name}_{SUFFIX[q.dtype]}", *tensors, batch, heads, tokens, width, float(scale))


def forward(q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """Attention's output ``[B, heads, T, d_head]`` and the log-sum-exp of every query, ``[B, heads, T]`` in fp32.

    Args:
        q, k, v: ``[B, heads, T, d_head]``, fp32 or bf16 alike.
        sink: ``[heads]``, a logit without a value that counts in the log-sum-exp; or None.
        scale: factor on q·k.
    """
    q, k, v = _tokens_first(q, k, v)
    sink = None if sink is None else sink.detach().float().contiguous()
    out = torch.empty_like(q)
    lse = torch.empty(q.shape[0], q.shape[2], q.shape[1])
    _call("forward", [q, k, v, sink, out, lse], scale)
    return out.transpose(1, 2), lse


def backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, sink: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients of q, k, v and the sink; shapes as in `forward`."""
    q, k, v, out, grad = _tokens_first(q, k, v, out, grad)
    lse = lse.contiguous()
    grads = [torch.empty_like(part) for part in (q, k, v)]
    of_sink = torch.zeros(lse.shape[:2])
    logit = None if sink is None else sink.detach().float().contiguous()
    _call("backward", [q, k, v, out, grad, lse, logit, *grads, of_sink], scale)
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
