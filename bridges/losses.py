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

import bridges.kernels as kernels
from bridges.kernels import head as head_kernel
from bridges.stack import ResidualStack

# Logits of about so many entries are formed at once: 64 MiB in fp32, and on a GPU, which wants more work in each call,
# 512 MiB.
CHUNK_ENTRIES, GPU_CHUNK_ENTRIES = 1 << 24, 1 << 27


def chunk_entries(device: torch.device) -> int:
    """Entries of one chunk of logits on a device."""
    return GPU_CHUNK_ENTRIES if device.type == "cuda" else CHUNK_ENTRIES


# The least squared deviation that a token's error is divided by, as a share of the variance. Ordinary streams have
# hardly a token below it. Where one channel has nearly all of the variance, as in many pretrained models, a quarter of
# them are, and one that is close enough to the mean could outweigh thousands of others.
LEAST_SHARE = 0.1


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products over the last axis, ``[..., d]`` twice to ``[...]``, in the precision of the arguments.

    Autocast counts these as matrix products and would round losses to eight bits.
    """
    with torch.autocast(a.device.type, enabled=False):
        return torch.linalg.vecdot(*torch.broadcast_tensors(a, b))


def _at_least_fp32(x: Tensor) -> Tensor:
    """Half precision as fp32, everything else as it is: losses are sums over thousands of entries."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def kl_from_reference(reference_logp: Tensor, logp: Tensor) -> Tensor:
    """KL(reference ‖ model) per position, in nats.

    Args:
        reference_logp, logp: log-probabilities ``[..., V]``, which broadcast against each other.

    Returns:
        ``[...]``.
    """
    reference_logp, logp = _at_least_fp32(reference_logp), _at_least_fp32(logp)
    p = reference_logp.exp()
    # Entropy and cross term apart, each one pass over the vocabulary; no further tensor of its size is made.
    kl = dot(p, reference_logp) - dot(p, logp)
    if kl.isfinite().all():
        return kl
    # A model that masks logits gives tokens probability 0, and 0 · log 0 counts as 0.
    terms = torch.where(p > 0, p * (reference_logp - logp), 0.0)
    return terms.sum(-1)


def nmse(estimate: Tensor, target: Tensor, mean: Tensor, variance: Tensor | None = None) -> Tensor:
    """Squared error over the target's squared deviation from ``mean``, averaged over tokens.

    The paper does not name its normaliser. Here it is taken per token, so that the few tokens with a very large norm
    that pretrained models have do not decide the whole sum, and the denominator takes no gradient. Nor do the few that
    are close to the mean: a token counts as no closer to it than a tenth of the variance.

    Args:
        estimate, target: ``[B, T, d]``.
        mean: the target's mean over tokens, ``[d]``.
        variance: its mean squared deviation from that mean, summed over channels, a scalar (None: over the tokens given
            here).
    """
    estimate, target, mean = (_at_least_fp32(x) for x in (estimate, target, mean))
    error, deviation = estimate - target, target.detach() - mean
    error, deviation = dot(error, error), dot(deviation, deviation)
    return per_token_nmse(error, deviation, deviation.mean() if variance is None else variance).mean()


def per_token_nmse(error: Tensor, deviation: Tensor, variance: Tensor) -> Tensor:
    """Squared errors of tokens over their squared deviations, floored at `LEAST_SHARE` of the variance; any shape."""
    return error / deviation.clamp_min(LEAST_SHARE * variance)


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


def _position_chunks(n_streams: int, ids: Tensor, vocab: int) -> list[slice]:
    """Slices of the flattened ``B·T`` positions of ``ids`` whose logits fit into one chunk."""
    positions = ids.numel()
    size = max(1, chunk_entries(ids.device) // (n_streams * vocab))
    return [slice(start, min(start + size, positions)) for start in range(0, positions, size)]


def _chunk_values(logits: Tensor, labels: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor]:
    """CE and KL of S streams at one chunk of n positions, ``[S, n]`` each, and the log-probabilities ``[S, n, V]``.

    Args:
        logits: ``[S, n, V]`` in fp32.
        labels: ``[n]``; CE is 0 where a label is negative.
        target: the reference's log-probabilities ``[n, V]``, or None.
    """
    logp = logits.log_softmax(-1)
    ce = -logp.gather(-1, labels.clamp_min(0).expand(len(logits), -1).unsqueeze(-1)).squeeze(-1) * (labels >= 0)
    return ce, None if target is None else kl_from_reference(target, logp), logp


def _chunk_gradient(
    logits: Tensor, labels: Tensor, target: Tensor, ce_weight: Tensor, kl_weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """CE and KL of S streams at a chunk of n positions, ``[S, n]`` each, and the gradient ``[S, n, V]`` of their sums.

    By hand, softmax minus the label, softmax minus the reference: through autograd the same costs several more passes
    over the vocabulary.

    Args:
        logits, labels, target: as in `_chunk_values`. ce_weight, kl_weight: what each stream counts for, ``[S]``.
    """
    if head_kernel.supported(logits, target) and kernels.active():
        return head_kernel.loss_and_gradient(logits, labels, target, ce_weight, kl_weight)
    ce, kl, logp = _chunk_values(logits, labels, target)
    assert kl is not None
    known = (labels >= 0).view(1, -1, 1)
    ce_weight, kl_weight = ce_weight.view(-1, 1, 1) * known, kl_weight.view(-1, 1, 1)
    grad = logp.exp_().mul_(ce_weight + kl_weight)
    grad.sub_(target.exp().unsqueeze(0) * kl_weight)
    index = labels.clamp_min(0).expand(len(logits), -1).unsqueeze(-1)
    return ce, kl, grad.scatter_add_(-1, index, -ce_weight.expand(len(logits), -1, 1).contiguous())


def _target(reference: Reference | None, ids: Tensor, at: slice) -> Tensor | None:
    if reference is None:
        return None
    with torch.no_grad():
        logits = reference.stack.unembed(reference.stream.flatten(0, 1)[at].unsqueeze(0), ids[at].unsqueeze(0))
        return logits.squeeze(0).float().log_softmax(-1)


def _labels(ids: Tensor) -> Tensor:
    """The next token of every position, flattened ``[B·T]``; −1 at the last one."""
    return F.pad(ids[:, 1:], (0, 1), value=-1).flatten()


@torch.no_grad()
def head_values(
    stack: ResidualStack, streams: Sequence[Tensor], ids: Tensor, reference: Reference | None
) -> HeadValues:
    """CE and exact KL of several streams at the last site, without ever holding all their logits.

    Args:
        stack: whose unembedding reads the streams.
        streams: S of ``[B, T, d]``.
        ids: ``[B, T]``.
        reference: what KL is taken from; None for CE alone.
    """
    h, labels, flat = torch.stack(list(streams)).flatten(1, 2), _labels(ids), ids.flatten()
    all_ce, all_kl = [], []
    for at in _position_chunks(len(h), ids, stack.vocab_size):
        logits = stack.unembed(h[:, at], flat[at].expand(len(h), -1)).float()
        ce, kl, _ = _chunk_values(logits, labels[at], _target(reference, flat, at))
        all_ce.append(ce)
        all_kl.append(kl)
    ce = torch.cat(all_ce, dim=1).unflatten(1, ids.shape)[..., :-1]
    if reference is None:
        return HeadValues(ce, None)
    return HeadValues(ce, torch.cat([kl for kl in all_kl if kl is not None], dim=1).unflatten(1, ids.shape))


class _HeadLoss(torch.autograd.Function):
    """Weighted CE and KL of several streams, the gradients formed chunk by chunk in the forward pass."""

    @staticmethod
    def forward(ctx, stack, reference, ids, weights, streams, *params):  # type: ignore[override]
        labels, flat = _labels(ids), ids.flatten()
        n_labels, n_positions = int((labels >= 0).sum()), len(flat)
        h = streams.flatten(1, 2)
        grad_h = torch.empty_like(h)
        grad_params = [torch.zeros_like(p) for p in params]
        values = h.new_zeros(2, len(h), dtype=torch.float32)
        for at in _position_chunks(len(h), ids, stack.vocab_size):
            with torch.enable_grad():
                piece = h[:, at].detach().requires_grad_()
                logits = stack.unembed(piece, flat[at].expand(len(h), -1)).float()
            target = _target(reference, flat, at)
            assert target is not None
            each = (weights[0] / max(1, n_labels), weights[1] / n_positions)
            ce, kl, grad = _chunk_gradient(logits.detach(), labels[at], target, *each)
            values += torch.stack([ce.sum(1) / max(1, n_labels), kl.sum(1) / n_positions])
            grads = torch.autograd.grad(logits, [piece, *params], grad, allow_unused=True)
            grad_h[:, at] = grads[0]
            for total, piece_grad in zip(grad_params, grads[1:], strict=True):
                if piece_grad is not None:
                    total += piece_grad
        ctx.save_for_backward(grad_h.view_as(streams), *grad_params)
        ctx.mark_non_differentiable(values)
        return (values * weights).sum(), values

    @staticmethod
    def backward(ctx, grad, _):  # type: ignore[override]
        grad_h, *grad_params = ctx.saved_tensors
        return None, None, None, None, grad_h * grad, *(g * grad for g in grad_params)


def head_loss(
    stack: ResidualStack,
    streams: Sequence[Tensor],
    ids: Tensor,
    reference: Reference,
    ce: Sequence[float],
    kl: Sequence[float],
) -> tuple[Tensor, Tensor]:
    """Σ_s ce_s·CE_s + kl_s·KL(reference ‖ stream s), differentiable in the streams and in the unembedding.

    Memory is that of one chunk of logits, however large the vocabulary and however many the streams: each chunk's
    gradient is formed at once and its logits forgotten.

    Args:
        stack: whose unembedding reads the streams.
        streams: S of ``[B, T, d]``, in any floating dtype that the unembedding takes.
        ids: ``[B, T]``.
        reference: what KL is taken from.
        ce, kl: S coefficients each.

    Returns:
        the weighted sum (a scalar) and the values, ``[2, S]``: mean CE and mean KL of each stream, no gradient. Both in
        fp32 whatever the streams are in.
    """
    stacked = torch.stack(list(streams))
    weights = torch.tensor([list(ce), list(kl)], dtype=torch.float32, device=stacked.device)
    params = [p for p in _unembedding_parameters(stack) if p.requires_grad]
    return _HeadLoss.apply(stack, reference, ids, weights, stacked, *params)  # type: ignore[no-untyped-call]


def _unembedding_parameters(stack: ResidualStack) -> list[Tensor]:
    """The parameters `unembed` reads, found once by a backward pass through a single position."""
    named = dict(stack.named_parameters())  # type: ignore[attr-defined]
    # Freezing or freeing a parameter changes the answer, and so does a bigram table that does not count yet. Names are
    # kept: sharding puts other parameters in place of a module's own, some of them for the time of a pass.
    key = (tuple(p.requires_grad for p in named.values()), bool(getattr(stack, "bigram_share", 1.0)))
    known, cached = getattr(stack, "_unembedding_parameters", (None, []))
    if known != key:
        candidates = {name: p for name, p in named.items() if p.requires_grad}
        if not candidates:
            return []
        with torch.enable_grad():
            device = next(iter(candidates.values())).device
            ids = torch.zeros(1, 1, dtype=torch.long, device=device)
            out = stack.unembed(torch.ones(1, 1, stack.d_model, device=device), ids).float().square().sum()
            grads = torch.autograd.grad(out, list(candidates.values()), allow_unused=True)
        cached = [name for name, g in zip(candidates, grads, strict=True) if g is not None]
        object.__setattr__(stack, "_unembedding_parameters", (key, cached))
    return [named[name] for name in cached]
