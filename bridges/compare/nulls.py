"""Changes of a stream that say nothing about a circuit, each as long as the circuit's own at every token.

Shapes: n pairs, B = 2n prompts, T tokens, d and s widths of the dense and sparse streams.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bridges.bridge import Bridge
from bridges.circuits.bridge_context import map_through_bridge

# Nulls of the interchange from sparse to dense, and of the one from dense to sparse.
TO_DENSE = ("random_directions", "other_channels", "shuffled_bridge", "untrained_bridge")
TO_SPARSE = ("random_directions", "shuffled_bridge", "untrained_bridge")


def matched(x: Tensor, like: Tensor) -> Tensor:
    """``x`` with each token's length made that of ``like``, ``[B, T, d]`` all; a token of length 0 stays 0."""
    length = x.norm(dim=-1, keepdim=True)
    return x * torch.where(length > 0, like.norm(dim=-1, keepdim=True) / length.clamp_min(1e-30), 0.0)


def shortened(x: Tensor, like: Tensor) -> Tensor:
    """``x`` with the tokens that are longer than those of ``like`` made as long, ``[B, T, d]`` all."""
    return x * (like.norm(dim=-1, keepdim=True) / x.norm(dim=-1, keepdim=True).clamp_min(1e-30)).clamp(max=1)


def random_directions(like: Tensor, generator: torch.Generator) -> Tensor:
    """A random direction for each token, as long as that token of ``like``."""
    return matched(torch.randn(like.shape, generator=generator).to(like), like)


def random_channels(used: Tensor, pairs: int, generator: torch.Generator) -> Tensor:
    """For every pair as many channels as are used, drawn from the others, ``bool [2·pairs, 1, s]``.

    Where fewer are left, those.

    Args:
        used: ``bool [s]``.
    """
    count = min(int(used.sum()), int((~used).sum()))
    order = torch.rand(pairs, len(used), generator=generator).masked_fill(used.cpu(), -1.0).argsort(1, descending=True)
    drawn = torch.zeros(pairs, len(used), dtype=torch.bool).scatter(1, order[:, :count], True)
    return drawn.repeat_interleave(2, 0).unsqueeze(1).to(used.device)


def shuffled_channels(x: Tensor, generator: torch.Generator) -> Tensor:
    """The channels in an order drawn for every pair, ``[B, T, s]`` both."""
    order = torch.rand(len(x) // 2, x.shape[-1], generator=generator).argsort(1)
    return x.gather(-1, order.repeat_interleave(2, 0).unsqueeze(1).to(x.device).expand_as(x))


def null_to_dense(
    name: str,
    own: Tensor,
    change: Tensor,
    whole: Tensor,
    used: Tensor,
    bridge: Bridge,
    untrained: Bridge,
    generator: torch.Generator,
) -> Tensor:
    """A change of the dense stream as long as the circuit's at every token, ``[B, T, d]``; NaN where there is none.

    Args:
        name: of `TO_DENSE`: a random direction; as many channels that the circuit does not use, with the whole sparse
            model's change; the circuit's change decoded by a bridge with shuffled channels, or by an untrained one.
        own: the circuit's change, decoded, ``[B, T, d]``. change: the same in the sparse stream, ``[B, T, s]``.
        whole: the whole sparse model's. used: channels the circuit uses, ``bool [s]``.
        bridge, untrained: at this place.
    """
    if name == "random_directions":
        return random_directions(own, generator)
    if name == "other_channels":
        if bool(used.all()):
            return torch.full_like(own, torch.nan)
        drawn = random_channels(used, len(whole) // 2, generator)
        return matched(map_through_bridge(bridge, whole * drawn), own)
    if name == "shuffled_bridge":
        return matched(map_through_bridge(bridge, shuffled_channels(change, generator)), own)
    return matched(map_through_bridge(untrained, change), own)


def null_to_sparse(name: str, own: Tensor, exchanged: Tensor, generator: torch.Generator, shared: Tensor) -> Tensor:
    """A change of the sparse stream as long as the dense model's, encoded, at every token, ``[B, T, s]``.

    Args:
        name: of `TO_SPARSE`. own: the dense model's change, encoded, ``[B, T, s]``.
        exchanged: the same by an untrained encoder. shared: positions that may change, ``bool [B, T]``.
    """
    if name == "random_directions":
        return random_directions(own, generator)
    if name == "shuffled_bridge":
        return shuffled_channels(own, generator)
    return matched(exchanged * shared.unsqueeze(-1), own)
