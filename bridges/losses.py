"""Divergences and the loss heads that form logits piece by piece.

KL is written once, its direction in its name: `kl_from_reference` is KL(reference ‖ model), the expectation taken under
the reference, over the full vocabulary.

Shapes: S streams at the last site, B sequences, T tokens, d width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from bridges.stack import ResidualStack

# Logits of about so many entries are formed at once: 64 MiB in fp32.
CHUNK_ENTRIES = 1 << 24


def kl_from_reference(reference_logp: Tensor, logp: Tensor) -> Tensor:
    """KL(reference ‖ model) per position, in nats.

    Args:
        reference_logp, logp: log-probabilities ``[..., V]``, which broadcast against each other.

    Returns:
        ``[...]``.
    """
    return (reference_logp.exp() * (reference_logp - logp)).sum(-1)


def nmse(estimate: Tensor, target: Tensor, mean: Tensor) -> Tensor:
    """Squared error over the target's squared deviation from ``mean``, averaged over tokens.

    The paper does not name its normaliser. Here it is taken per token, so that the few tokens with a very large norm
    that pretrained models have do not decide the whole sum, and the denominator takes no gradient.

    Args:
        estimate, target: ``[B, T, d]``.
        mean: the target's mean over tokens, ``[d]``.
    """
    error = (estimate - target).square().sum(-1)
    deviation = (target.detach() - mean).square().sum(-1)
    return (error / deviation.clamp_min(1e-6 * deviation.mean())).mean()


@dataclass
class HeadValues:
    """Per-position values of S streams.

    Attributes:
        ce: next-token cross-entropy ``[S, B, T - 1]``.
        kl: KL(reference ‖ stream's logits) ``[S, B, T]``; None where no reference was given.
    """

    ce: Tensor
    kl: Tensor | None


@dataclass(frozen=True)
class Reference:
    """The distribution KL is taken from: a stack, and its stream at the last site ``[B, T, d]``."""

    stack: ResidualStack
    stream: Tensor


def _position_chunks(n_streams: int, shape: torch.Size, vocab: int) -> list[slice]:
    """Slices of the flattened ``B·T`` positions whose logits fit into one chunk."""
    positions = shape[0] * shape[1]
    size = max(1, CHUNK_ENTRIES // (n_streams * vocab))
    return [slice(start, min(start + size, positions)) for start in range(0, positions, size)]


def _chunk_values(
    stack: ResidualStack, h: Tensor, ids: Tensor, labels: Tensor, reference: Reference | None, at: slice
) -> tuple[Tensor, Tensor | None]:
    """CE and KL of the streams ``h [S, n, d]`` at one chunk of positions, ``[S, n]`` each; CE is 0 where no label is."""
    logits = stack.unembed(h, ids[at].expand(len(h), -1)).float()
    logp = logits.log_softmax(-1)
    known = labels[at] >= 0
    ce = -logp.gather(-1, labels[at].clamp_min(0).expand(len(h), -1).unsqueeze(-1)).squeeze(-1) * known
    if reference is None:
        return ce, None
    with torch.no_grad():
        target = reference.stack.unembed(reference.stream.flatten(0, 1)[at].unsqueeze(0), ids[at].unsqueeze(0))
        target = target.float().log_softmax(-1)
    return ce, kl_from_reference(target, logp)


def _labels(ids: Tensor) -> Tensor:
    """The next token of every position, flattened ``[B·T]``; −1 at the last one."""
    return F.pad(ids[:, 1:], (0, 1), value=-1).flatten()


@torch.no_grad()
def head_values(stack: ResidualStack, streams: Sequence[Tensor], ids: Tensor, reference: Reference | None) -> HeadValues:
    """CE and exact KL of several streams at the last site, without ever holding all their logits.

    Args:
        stack: whose unembedding reads the streams.
        streams: S of ``[B, T, d]``.
        ids: ``[B, T]``.
        reference: what KL is taken from; None for CE alone.
    """
    h, labels, flat = torch.stack(list(streams)).flatten(1, 2), _labels(ids), ids.flatten()
    parts = [
        _chunk_values(stack, h[:, at], flat, labels, reference, at)
        for at in _position_chunks(len(h), ids.shape, stack.vocab_size)
    ]
    ce = torch.cat([ce for ce, _ in parts], dim=1).unflatten(1, ids.shape)[..., :-1]
    if reference is None:
        return HeadValues(ce, None)
    return HeadValues(ce, torch.cat([kl for _, kl in parts if kl is not None], dim=1).unflatten(1, ids.shape))


class _HeadLoss(torch.autograd.Function):
    """Weighted CE and KL of several streams, the gradients formed chunk by chunk in the forward pass."""

    @staticmethod
    def forward(ctx, stack, reference, ids, weights, streams, *params):  # type: ignore[override]
        labels, flat = _labels(ids), ids.flatten()
        n_labels, n_positions = int((labels >= 0).sum()), len(flat)
        h = streams.flatten(1, 2)
        grad_h = torch.empty_like(h)
        grad_params = [torch.zeros_like(p) for p in params]
        values = h.new_zeros(2, len(h))
        for at in _position_chunks(len(h), ids.shape, stack.vocab_size):
            with torch.enable_grad():
                piece = h[:, at].detach().requires_grad_()
                ce, kl = _chunk_values(stack, piece, flat, labels, reference, at)
                both = torch.stack([ce.sum(1) / n_labels, kl.sum(1) / n_positions])
                weighted = (both * weights).sum()
            grads = torch.autograd.grad(weighted, [piece, *params], allow_unused=True)
            grad_h[:, at] = grads[0]
            for total, grad in zip(grad_params, grads[1:], strict=True):
                if grad is not None:
                    total += grad
            values += both.detach()
        ctx.save_for_backward(grad_h.view_as(streams), *grad_params)
        ctx.mark_non_differentiable(values)
        return (values * weights).sum(), values

    @staticmethod
    def backward(ctx, grad, _):  # type: ignore[override]
        grad_h, *grad_params = ctx.saved_tensors
        return None, None, None, None, grad_h * grad, *(g * grad for g in grad_params)


def head_loss(
    stack: ResidualStack, streams: Sequence[Tensor], ids: Tensor, reference: Reference, ce: Sequence[float],
    kl: Sequence[float],
) -> tuple[Tensor, Tensor]:
    """Σ_s ce_s·CE_s + kl_s·KL(reference ‖ stream s), differentiable in the streams and in the unembedding.

    Memory is that of one chunk of logits, however large the vocabulary and however many the streams: each chunk's
    gradient is formed at once and its logits forgotten.

    Args:
        stack: whose unembedding reads the streams.
        streams: S of ``[B, T, d]``.
        ids: ``[B, T]``.
        reference: what KL is taken from.
        ce, kl: S coefficients each.

    Returns:
        the weighted sum (a scalar) and the values, ``[2, S]``: mean CE and mean KL of each stream, no gradient.
    """
    stacked = torch.stack(list(streams))
    weights = torch.tensor([list(ce), list(kl)], dtype=stacked.dtype, device=stacked.device)
    params = [p for p in _unembedding_parameters(stack) if p.requires_grad]
    return _HeadLoss.apply(stack, reference, ids, weights, stacked, *params)  # type: ignore[no-untyped-call]


def _unembedding_parameters(stack: ResidualStack) -> list[Tensor]:
    """The parameters `unembed` reads, found once by a backward pass through a single position."""
    cached = getattr(stack, "_unembedding_parameters", None)
    if cached is None:
        candidates = [p for p in stack.parameters() if p.requires_grad]  # type: ignore[attr-defined]
        if not candidates:
            return []
        with torch.enable_grad():
            device = candidates[0].device
            ids = torch.zeros(1, 1, dtype=torch.long, device=device)
            out = stack.unembed(torch.ones(1, 1, stack.d_model, device=device), ids).float().square().sum()
            grads = torch.autograd.grad(out, candidates, allow_unused=True)
        cached = [p for p, g in zip(candidates, grads, strict=True) if g is not None]
        object.__setattr__(stack, "_unembedding_parameters", cached)
    return cached
