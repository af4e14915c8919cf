"""What the training pairs choose: a bridge, a channel, and the directions that the circuit is measured against.

Shapes: B prompts, T tokens, b bridges, d and s widths of the two streams.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bridges.behaviours.encoded import EncodedPairs
from bridges.compare.carry import carried
from bridges.compare.crossing import Crossing, Transfer, added, crossings, differences, margins_of
from bridges.compare.directions import baseline_directions


@dataclass(frozen=True)
class Choice:
    """What the training pairs chose.

    Attributes:
        bridge: where the circuit's interchange moves most. channel_bridge, channel: the best single channel.
        directions: the baselines' directions, ``{name: [d]}`` of every bridge.
    """

    bridge: int
    channel_bridge: int
    channel: int
    directions: list[dict[str, Tensor]]


@torch.no_grad()
def choose(t: Transfer, train: EncodedPairs) -> Choice:
    """Bridge, channel and the baselines' directions, from training pairs alone.

    Args:
        train: pairs of equally long prompts.
    """
    batches = list(crossings(t, train))
    tried = _candidates(t, batches)
    moved = torch.zeros(len(t.bridges), 1 + t.config.channels, dtype=torch.float64)
    for crossing in batches:
        deltas = differences(t, crossing)
        for k in range(1 + t.config.channels):
            changes = {}
            for i in t.inner:
                if k == 0:
                    changes[i] = carried(t.bridges[i], deltas[i] * t.live[i])
                elif k <= len(tried[i]):
                    only = torch.zeros_like(t.live[i])
                    only[tried[i][k - 1]] = True
                    changes[i] = carried(t.bridges[i], deltas[i] * only)
            if changes:
                steered = margins_of(added(t, crossing, changes), crossing.some)
                moved[list(changes), k] += (crossing.margins - steered).double().cpu().sum(1)
    inner = list(t.inner)
    bridge = inner[int(moved[inner, 0].argmax())]
    single = moved[inner, 1:]
    for row, i in enumerate(inner):
        single[row, len(tried[i]) :] = -torch.inf
    flat = int(single.argmax())
    at, k = inner[flat // single.shape[1]], flat % single.shape[1]
    channel = tried[at][k] if k < len(tried[at]) else -1
    directions = []
    for pair in t.bridges.pairs:
        last = [c.dense.sites[pair.dense][torch.arange(len(c.some)), c.some.last] for c in batches]
        directions.append(baseline_directions(torch.cat(last).float(), torch.cat([c.some.sign for c in batches])))
    return Choice(bridge, at, channel, directions)


def _candidates(t: Transfer, batches: Sequence[Crossing]) -> list[list[int]]:
    """At every bridge the live channels whose carried change is longest on average over tokens, longest first."""
    total = torch.zeros(t.live.shape, dtype=torch.float64)
    for crossing in batches:
        for i, delta in enumerate(differences(t, crossing)):
            total[i] += (delta.abs() * crossing.real.unsqueeze(-1)).double().sum((0, 1)).cpu()
    found = []
    for i, bridge in enumerate(t.bridges):
        length = total[i] * bridge.decoder.weight.detach().double().norm(dim=0).cpu()
        order = torch.argsort(length.masked_fill(~t.live[i].cpu(), -1), descending=True, stable=True)
        found.append(order[: min(t.config.channels, int(t.live[i].sum()))].tolist())
    return found
