"""Carrying a change of the sparse stream into the dense one, and changes of equal size that mean nothing (paper, A.4).

Shapes: B prompts (clean and counterfactual of each pair one after the other), T tokens, d and s widths of the two
streams.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bridges.bridge import Bridge


def carried(bridge: Bridge, delta: Tensor) -> Tensor:
    """What a change of the sparse stream is in the dense one: ``decode(h + delta) - decode(h)``, whatever h is.

    The decoder's linear part alone, with the two streams' typical sizes: the paper's ratio of mean residual RMS.

    Args:
        delta: ``[B, T, s]``.

    Returns:
        ``[B, T, d]``.
    """
    return bridge.decode_change(delta)


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


def random_channels(used: Tensor, count: int, pairs: int, generator: torch.Generator) -> Tensor:
    """For every pair ``count`` channels outside those used, or as many as there are, ``bool [2·pairs, 1, s]``.

    Args:
        used: ``bool [s]``.
    """
    free = int((~used).sum())
    order = torch.rand(pairs, len(used), generator=generator).masked_fill(used.cpu(), -1.0).argsort(1, descending=True)
    chosen = torch.zeros(pairs, len(used), dtype=torch.bool).scatter(1, order[:, : min(count, free)], True)
    return chosen.repeat_interleave(2, 0).unsqueeze(1).to(used.device)


def other_channels(bridge: Bridge, delta: Tensor, used: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """The change of ``count`` channels that the circuit does not use, carried, ``[B, T, d]``; NaN where it uses all.

    Args:
        delta: the whole stream's change ``[B, T, s]``. used: ``bool [s]``.
    """
    chosen = random_channels(used, count, len(delta) // 2, generator)
    change = carried(bridge, delta * chosen)
    return torch.full_like(change, torch.nan) if bool(used.all()) else change


def random_nodes(bridge: Bridge, delta: Tensor, used: Tensor, count: int, like: Tensor, generator: torch.Generator):
    """`other_channels`, as long as ``like`` at every token."""
    return matched(other_channels(bridge, delta, used, count, generator), like)


def channel_orders(pairs: int, width: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """A random order of the channels for every pair, ``[2·pairs, 1, width]``: what shuffles a bridge's channels."""
    order = torch.rand(pairs, width, generator=generator).argsort(1)
    return order.repeat_interleave(2, 0).unsqueeze(1).to(device)


def shuffled_bridge(bridge: Bridge, delta: Tensor, like: Tensor, generator: torch.Generator) -> Tensor:
    """The change carried by a decoder whose columns stand in random order, as long as ``like`` at every token."""
    order = channel_orders(len(delta) // 2, delta.shape[-1], generator, delta.device)
    return matched(carried(bridge, delta.gather(-1, order.expand_as(delta))), like)
