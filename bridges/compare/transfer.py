"""The circuit's change carried through the bridges: does the dense model do what the sparse circuit says (paper, A.4)?

At every bridge the sparse stream's difference between the two prompts of a pair, on the channels that the circuit uses
there, is decoded and added to the dense stream. Beside it stand changes of equal size at every token: random
directions, channels that the circuit does not use, a bridge whose channels are shuffled, a ridge-regressed bridge, and
directions that linear methods find in the dense stream alone. One more is the change of the tokens' embeddings alone,
in the same channels: where it moves as much, the sparse model has computed nothing that is carried.

Shapes: n pairs, B = 2n prompts, T tokens, b bridges, d and s widths of the two streams.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bridges.compare.carry import (
    carried,
    matched,
    other_channels,
    random_directions,
    random_nodes,
    shortened,
    shuffled_bridge,
)
from bridges.compare.crossing import Crossing, Transfer, added, differences, last_logits, logit_diff_of, on_other

if TYPE_CHECKING:
    from bridges.compare.choice import Choice

DRAWN = ("random_directions", "random_nodes", "shuffled_bridge")
# `tokens` is not drawn: what the prompts' own tokens bring along in the circuit's channels, before anything is
# computed.
NULLS = (*DRAWN, "tokens")
REMOVED = ("random_directions", "random_nodes")


def null_change(
    t: Transfer, name: str, i: int, delta: Tensor, nodes: Tensor, like: Tensor, generator: torch.Generator
) -> Tensor:
    """A change as long as ``like`` at every token that says nothing about the circuit, ``[B, T, d]``.

    Args:
        delta: the whole sparse stream's change ``[B, T, s]``. nodes: the channels carried, ``bool [s]``.
    """
    if name == "random_directions":
        return random_directions(like, generator)
    if name == "random_nodes":
        return random_nodes(t.bridges[i], delta, t.live[i], int(nodes.sum()), like, generator)
    return shuffled_bridge(t.bridges[i], delta * nodes, like, generator)


# Who moves so much of the difference moves all of it: more cannot be told from the bridges' own errors.
WHOLE = 0.95

Margins = dict[str, np.ndarray]


def gather(parts: Mapping[str, list[Tensor]]) -> Margins:
    """Batches of ``[R, b, B]`` joined to ``[R, b, n, 2]``; R draws of a null, or 1."""
    return {k: torch.cat(v, -1).double().cpu().unflatten(-1, (-1, 2)).numpy() for k, v in parts.items()}


def draws_of(t: Transfer, run: Callable[[], Tensor]) -> Tensor:
    """One null as often as the config asks for, ``[R, …]``.

    Draws are kept apart, since a loss or an accuracy of averaged margins is not the average one.
    """
    return torch.stack([run() for _ in range(t.config.draws)])


@torch.no_grad()
def interchange_margins(
    t: Transfer, crossing_list: Sequence[Crossing], directions: Sequence[Mapping[str, Tensor]], where: Sequence[int]
) -> tuple[np.ndarray, Margins]:
    """Margins of the dense model, plain ``[n, 2]`` and with every direction added at each bridge, ``[R, b, n, 2]``.

    Args:
        directions: of the baselines that are wanted, ``{name: [d]}`` of every bridge.
        where: indices of the b bridges.
    """
    generators = {name: t.generator(f"interchange {name}") for name in DRAWN}
    parts: dict[str, list[Tensor]] = {}
    for crossing in crossing_list:
        deltas = differences(t, crossing)
        own = {i: carried(t.bridges[i], deltas[i] * t.live[i]) for i in where}

        def run(changes: Mapping[int, Tensor], crossing: Crossing = crossing) -> Tensor:
            return logit_diff_of(added(t, crossing, changes), crossing.some)

        parts.setdefault("circuit", []).append(run(own)[None])
        embedded = on_other(t.sparse.embed(crossing.some.ids).float())
        tokens = {i: carried(t.bridges[i], embedded * t.live[i]) for i in where}
        parts.setdefault("tokens", []).append(run(tokens)[None])
        for name in DRAWN:

            def null(name: str = name, own=own, deltas=deltas, run=run) -> Tensor:
                g = generators[name]
                return run({i: null_change(t, name, i, deltas[i], t.live[i], own[i], g) for i in own})

            parts.setdefault(name, []).append(draws_of(t, null))
        if t.ridge is not None:
            ridge = {i: matched(carried(t.ridge[i], deltas[i] * t.live[i]), own[i]) for i in own}
            parts.setdefault("ridge_bridge", []).append(run(ridge)[None])
        sign = crossing.some.sign[:, None, None]
        for name in directions[0]:
            # The first candidate's direction: away from it where it is this prompt's own.
            toward = {i: -sign * directions[i][name].to(own[i]) * own[i].norm(dim=-1, keepdim=True) for i in own}
            parts.setdefault(name, []).append(run(toward)[None])
    plain = torch.cat([c.margins for c in crossing_list]).double().cpu().numpy().reshape(-1, 2)
    return plain, gather(parts)


@torch.no_grad()
def necessity_margins(t: Transfer, crossing_list: Sequence[Crossing], where: Sequence[int]) -> Margins:
    """Margins of the dense model when the circuit's channels are moved to their mean over text, ``[R, b, n, 2]``.

    Beside the circuit's, ``random_nodes``: as many other channels moved to their means, no longer than the circuit's.
    They say little as a rule; made longer they would be driven past their means, which is no removal. What a change
    of that length does wherever it points is said by ``random_directions``.
    """
    generators = {name: t.generator(f"necessity {name}") for name in REMOVED}
    parts: dict[str, list[Tensor]] = {}
    for crossing in crossing_list:
        deltas = {
            i: t.means[i].to(crossing.margins) - crossing.sparse.sites[t.bridges.pairs[i].sparse].float() for i in where
        }
        own = {i: carried(t.bridges[i], delta * t.live[i]) for i, delta in deltas.items()}
        parts.setdefault("circuit", []).append(logit_diff_of(added(t, crossing, own), crossing.some)[None])
        for name, g in generators.items():

            def null(name: str = name, g=g, crossing: Crossing = crossing, deltas=deltas, own=own) -> Tensor:
                changes = {}
                for i, like in own.items():
                    if name == "random_directions":
                        changes[i] = random_directions(like, g)
                    else:
                        others = other_channels(t.bridges[i], deltas[i], t.live[i], int(t.live[i].sum()), g)
                        changes[i] = shortened(others, like)
                return logit_diff_of(added(t, crossing, changes), crossing.some)

            parts.setdefault(name, []).append(draws_of(t, null))
    return gather(parts)


def share_moved(plain: np.ndarray, steered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a change moved and what a swap of the two prompts would move, summed over each pair, ``[n]`` both.

    The dense model's margin on the other prompt, turned to this prompt's candidate, is minus the other prompt's own.

    Args:
        plain: ``[n, 2]``. steered: ``[R, n, 2]``, whose mean over draws counts.
    """
    return (plain - steered.mean(0)).sum(1), 2 * plain.sum(1)


def two_way_loss(margins: np.ndarray) -> np.ndarray:
    """Cross-entropy of the two candidates in nats, of any shape."""
    with np.errstate(invalid="ignore"):  # NaN stands for what could not be measured, and stays NaN
        return np.logaddexp(0.0, -margins)


@torch.no_grad()
def steering_chances(t: Transfer, crossing_list: Sequence[Crossing], choice: Choice) -> dict[str, Margins]:
    """P(the other prompt's candidate) over the full vocabulary (paper, Fig. 9).

    Returns:
        ``{"all" or "best": {direction: [R, strengths, n, 2]}}``; without a live channel there is no ``best``.
    """
    found: dict[str, Margins] = {}
    moving = [strength for strength in t.config.strengths if strength]
    for which in ("all", "best"):
        i = choice.bridge if which == "all" else choice.channel_bridge
        nodes = t.live[i]
        if which == "best":
            if choice.channel < 0:
                continue
            nodes = torch.zeros_like(nodes)
            nodes[choice.channel] = True
        generators = {name: t.generator(f"steering {which} {name}") for name in DRAWN}
        parts: dict[str, list[Tensor]] = {}
        for crossing in crossing_list:
            delta = differences(t, crossing)[i]
            own = carried(t.bridges[i], delta * nodes)

            plain = last_logits(t.dense, [crossing.dense.final[0]], crossing.some).softmax(-1)
            untouched = plain[0].gather(-1, crossing.some.choice[:, 1:])[:, 0]

            def curve(
                change: Tensor, i: int = i, crossing: Crossing = crossing, untouched: Tensor = untouched
            ) -> Tensor:
                chances = added(t, crossing, [(i, strength * change) for strength in moving]).softmax(-1)
                moved = iter(chances.gather(-1, crossing.some.choice[:, 1:].expand(len(chances), -1, -1))[..., 0])
                return torch.stack([next(moved) if strength else untouched for strength in t.config.strengths])

            parts.setdefault("circuit", []).append(curve(own)[None])
            parts.setdefault("none", []).append(untouched.expand(1, len(t.config.strengths), -1))
            for name in DRAWN:

                def null(name=name, i=i, delta=delta, nodes=nodes, own=own, curve=curve, generators=generators):
                    return curve(null_change(t, name, i, delta, nodes, own, generators[name]))

                parts.setdefault(name, []).append(draws_of(t, null))
        found[which] = gather(parts)
    return found
