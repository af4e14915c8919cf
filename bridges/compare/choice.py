"""What the training pairs choose: a bridge, a channel, and the directions that the circuit is measured against.

Shapes: B prompts, T tokens, b bridges, d and s widths of the two streams.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bridges.behaviours.encoded import EncodedPairs
from bridges.compare.carry import carried
from bridges.compare.crossing import Crossing, Transfer, added, crossings, differences, margins_of
from bridges.compare.directions import baseline_directions
from bridges.compare.transfer import (
    NULLS,
    REMOVED,
    WHOLE,
    Margins,
    interchange_margins,
    necessity_margins,
    two_way_loss,
)


@dataclass(frozen=True)
class Choice:
    """What the training pairs chose.

    Attributes:
        bridge: where the circuit's channels are most clearly what moves the dense model and what it needs (`gain`).
        channel_bridge, channel: the best single channel.
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
    directions = []
    for pair in t.bridges.pairs:
        last = [c.dense.sites[pair.dense][torch.arange(len(c.some)), c.some.last] for c in batches]
        directions.append(baseline_directions(torch.cat(last).float(), torch.cat([c.some.sign for c in batches])))
    # No more than what `gain` asks for.
    rival = [{"difference_of_means": d["difference_of_means"]} for d in directions]
    plain, moved = interchange_margins(replace(t, ridge=None), batches, rival, t.inner)
    gains = gain(plain, moved, necessity_margins(t, batches, t.inner))
    return Choice(t.inner[int(gains.argmax())], *_best_channel(t, batches), directions)


def gain(plain: np.ndarray, moved: Margins, needed: Margins) -> np.ndarray:
    """How clearly each bridge's channels are both what moves the dense model and what it needs, ``[b]``.

    The least of what the verdict asks for: the share moved beyond the best null, that beyond the difference of means,
    and the rise of the loss by removal beyond that of the nulls, as a share of ln 2, the loss of not knowing.

    Args:
        plain: margins of the dense model ``[n, 2]``. moved, needed: with the changes of interchange and removal,
            ``{direction: [R, b, n, 2]}``.
    """
    whole = 2 * plain.sum()
    if not whole > 0:
        return np.zeros(moved["circuit"].shape[1])
    share = {name: (plain - m.mean(0)).sum((1, 2)) / whole for name, m in moved.items()}
    loss = {name: two_way_loss(m).mean((0, 2, 3)) for name, m in needed.items()}
    beyond_nulls = share["circuit"] - np.max([share[name] for name in NULLS], axis=0)
    # Who moves the whole difference cannot be beaten.
    best = share["difference_of_means"].clip(max=WHOLE)
    beyond_means = np.where(share["circuit"] < WHOLE, share["circuit"] - best, np.inf)
    lost = (loss["circuit"] - np.max([loss[name] for name in REMOVED], axis=0)) / math.log(2)
    # Where there is no null to compare with nothing is shown.
    return np.nan_to_num(np.min([beyond_nulls, beyond_means, lost], axis=0), nan=-np.inf)


def _best_channel(t: Transfer, batches: Sequence[Crossing]) -> tuple[int, int]:
    """Bridge and channel of the single channel whose interchange moves most; channel -1 where none is live."""
    tried = _candidates(t, batches)
    moved = torch.zeros(len(t.bridges), t.config.channels, dtype=torch.float64)
    for crossing in batches:
        deltas = differences(t, crossing)
        for k in range(t.config.channels):
            changes = {}
            for i in t.inner:
                if k < len(tried[i]):
                    only = torch.zeros_like(t.live[i])
                    only[tried[i][k]] = True
                    changes[i] = carried(t.bridges[i], deltas[i] * only)
            if changes:
                steered = margins_of(added(t, crossing, changes), crossing.some)
                moved[list(changes), k] += (crossing.margins - steered).double().cpu().sum(1)
    for i, channels in enumerate(tried):
        moved[i, len(channels) if i in t.inner else 0 :] = -torch.inf
    at, k = divmod(int(moved.argmax()), t.config.channels)
    return (at, tried[at][k]) if k < len(tried[at]) and at in t.inner else (t.inner[0], -1)


def _candidates(t: Transfer, batches: Sequence[Crossing]) -> list[list[int]]:
    """At every bridge the live channels whose carried change is longest on average over tokens, longest first."""
    total = torch.zeros(t.live.shape, dtype=torch.float64)
    for crossing in batches:
        for i, delta in enumerate(differences(t, crossing)):
            total[i] += (delta.abs() * crossing.real.unsqueeze(-1)).double().sum((0, 1)).cpu()
    found = []
    for i, bridge in enumerate(t.bridges):
        each = torch.eye(total.shape[1], device=bridge.decoder.weight.device)
        length = total[i] * bridge.decode_change(each).double().norm(dim=1).cpu()
        order = torch.argsort(length.masked_fill(~t.live[i].cpu(), -1), descending=True, stable=True)
        found.append(order[: min(t.config.channels, int(t.live[i].sum()))].tolist())
    return found
