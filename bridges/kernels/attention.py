"""Causal attention with an optional sink on the CPU: PyTorch's flash forward, a backward of our own.

PyTorch's flash backward in bf16 was measured to be several times slower than its forward; see ``attention.cpp``.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from bridges.kernels.build import library

_SUFFIX = {torch.float32: "f32", torch.bfloat16: "bf16"}


def supported(q: Tensor) -> bool:
    """Whether there is a kernel for this tensor."""
    return q.device.type == "cpu" and q.dtype in _SUFFIX


def backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v.

    Args:
        grad, q, k, v, out: ``[B, heads, T, d_head]``, fp32 or bf16 alike.
        lse: log-sum-exp of every query's scores, ``[B, heads, T]`` in fp32.
        scale: factor on q·k.
    """
    q, k, v, out, grad = (t.contiguous() for t in (q, k, v, out, grad))
    lse = lse.contiguous()
    grads = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    heads, tokens, width = q[..., 0, 0].numel(), *q.shape[-2:]
    pointers = (ctypes.c_void_p(t.data_ptr()) for t in (q, k, v, out, grad, lse, *grads))
    kernel = getattr(library(), f"attention_backward_{_SUFFIX[q.dtype]}")
    kernel(*pointers, *(ctypes.c_int64(n) for n in (heads, tokens, width)), ctypes.c_float(scale))
    return grads


class CausalAttention(torch.autograd.Function):
    """Softmax attention without a sink."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:  # type: ignore[override]
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, True, scale=scale)
        ctx.save_for_backward(q, k, v, out, lse.float())
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        q, k, v, out, lse = ctx.saved_tensors
        return *backward(grad, q, k, v, out, lse, ctx.scale), None


def register() -> str:
    """Make ``attn_implementation="bridges"`` known to transformers; returns the name.

    It serves plain causal self-attention of whole sequences (what a residual stack runs) and leaves everything else
    to PyTorch's own.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def forward(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **kwargs):
        plain = attention_mask is None and not dropout and query.shape == key.shape and supported(query)
        if not plain or not query.requires_grad:
            return sdpa_attention_forward(
                module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
            )
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        return CausalAttention.apply(query, key, value, scale).transpose(1, 2).contiguous(), None

    ALL_ATTENTION_FUNCTIONS.register("bridges", forward)
    ALL_MASK_ATTENTION_FUNCTIONS.register("bridges", sdpa_mask)
    return "bridges"
