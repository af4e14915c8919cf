"""One circuit between two models, and batches of prompt pairs with both models' streams.

Shapes: n pairs, B = 2n prompts (clean and counterfactual of each pair one after the other), T tokens, b bridges, K
changes, d and s widths of the two streams, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bridges.behaviours.encoded import EncodedPairs
from bridges.bridge import Bridges
from bridges.circuits.circuit import Circuit
from bridges.circuits.task import Prompts, prompts
from bridges.compare.agreement import device_of
from bridges.compare.channels import live_channels
from bridges.config import CompareConfig
from bridges.stack import ResidualStack, Streams

# Tokens per stacked pass: enough to keep two cores busy, little enough for their caches.
TOKENS = 16_384


@dataclass
class Transfer:
    """One circuit and the models it is carried between.

    Attributes:
        dense, sparse: the stacks. bridges: between them. ridge: ridge-regressed ones, or None to leave them out.
        circuit: of the sparse stack.
        means: mean of the sparse stream over text at every bridge, ``[b, s]``.
        config: sizes. seed: of every draw.
    """

    dense: ResidualStack
    sparse: ResidualStack
    bridges: Bridges
    ridge: Bridges | None
    circuit: Circuit
    means: Tensor
    config: CompareConfig
    seed: int = 0

    @cached_property
    def live(self) -> Tensor:
        """Channels that the circuit uses at every bridge, ``bool [b, s]``."""
        sites = [pair.sparse for pair in self.bridges.pairs]
        return live_channels(self.sparse, self.circuit)[sites].to(device_of(self.sparse))

    @property
    def inner(self) -> range:
        """The bridges that may be chosen.

        At the first one the change of the tokens themselves is carried, and at the last the answer: neither says
        anything about the way between, so they are measured and never chosen.
        """
        count = len(self.bridges)
        return range(1, count - 1) if count > 2 else range(count)

    def generator(self, name: str) -> torch.Generator:
        """Random state of one measurement of this behaviour: none of them changes what another one draws."""
        digest = hashlib.blake2b(f"{self.seed} {self.circuit.behaviour} {name}".encode(), digest_size=6).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


def equal_pairs(encoded: EncodedPairs, count: int) -> EncodedPairs:
    """At most ``count`` pairs whose prompts are equally long, the shortest pairs first."""
    index = encoded.equal_length.nonzero()[:, 0][:count]
    order = torch.argsort(encoded.lengths[index, 0], stable=True)
    return encoded.take(index[order].tolist())


@dataclass(frozen=True)
class Crossing:
    """The streams of one batch of prompts.

    Attributes:
        some: the prompts. dense, sparse: their streams at every bridge. margins: of the plain dense model, ``[B]``.
    """

    some: Prompts
    dense: Streams
    sparse: Streams
    margins: Tensor

    @property
    def real(self) -> Tensor:
        """Which tokens are no padding, ``bool [B, T]``."""
        return torch.arange(self.some.ids.shape[1], device=self.some.ids.device) <= self.some.last[:, None]


def last_logits(stack: ResidualStack, streams: Sequence[Tensor], some: Prompts) -> Tensor:
    """Logits at every prompt's last token from K streams at the last site, ``[K, B, V]``."""
    at = torch.arange(len(some), device=some.ids.device)
    h = torch.cat([s[at, some.last] for s in streams]).unsqueeze(1)
    now = some.ids[at, some.last].repeat(len(streams)).unsqueeze(1)
    return stack.unembed(h, now)[:, 0].float().unflatten(0, (len(streams), len(some)))


def logit_diff_of(logits: Tensor, some: Prompts) -> Tensor:
    """The right candidate's logit minus the other's, ``[K, B, V]`` to ``[K, B]``."""
    pair = logits.gather(-1, some.choice.expand(len(logits), -1, -1))
    return pair[..., 0] - pair[..., 1]


def crossings(t: Transfer, encoded: EncodedPairs) -> Iterator[Crossing]:
    """The pairs in batches, both models run once on each."""
    whole = prompts(encoded, device_of(t.dense))
    start = 0
    while start < len(encoded):
        # Pairs are sorted by length, so that the last one of a batch is the longest.
        stop = start + 1
        while stop < len(encoded) and (stop + 1 - start) * 2 * int(whole.last[2 * stop] + 1) * len(t.bridges) <= TOKENS:
            stop += 1
        some = whole.take(slice(2 * start, 2 * stop))
        dense, sparse = t.dense.run(some.ids), t.sparse.run(some.ids)
        margins = logit_diff_of(last_logits(t.dense, [dense.final[0]], some), some)[0]
        # Streams between the bridges would only take memory.
        dense.sites = {pair.dense: dense.sites[pair.dense] for pair in t.bridges.pairs}
        sparse.sites = {pair.sparse: sparse.sites[pair.sparse] for pair in t.bridges.pairs}
        yield Crossing(some, dense, sparse, margins)
        start = stop


def added(t: Transfer, crossing: Crossing, changes: Mapping[int, Tensor] | Sequence[tuple[int, Tensor]]) -> Tensor:
    """Logits of the dense model with a change added to its stream, one stacked run, ``[K, B, V]``.

    Args:
        changes: bridge to ``[B, T, d]``, or K pairs of them.
    """
    items = list(changes.items()) if isinstance(changes, Mapping) else list(changes)
    entries = []
    for i, change in items:
        h = crossing.dense.sites[t.bridges.pairs[i].dense]
        entries.append((t.bridges.pairs[i].dense, (h.float() + change).to(h.dtype)))
    return last_logits(t.dense, list(t.dense.run_from(entries).final.values()), crossing.some)


def differences(t: Transfer, crossing: Crossing) -> list[Tensor]:
    """The sparse stream on the other prompt of the pair minus on this one, ``[B, T, s]`` of every bridge."""
    return [on_other(crossing.sparse.sites[pair.sparse].float()) for pair in t.bridges.pairs]


def on_other(h: Tensor) -> Tensor:
    """A stream on the other prompt of the pair minus on this one, ``[B, T, s]``."""
    return h[torch.arange(len(h), device=h.device) ^ 1] - h
