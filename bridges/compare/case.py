"""One circuit between two models: what every measurement across the bridges starts from.

Shapes: n pairs, B = 2n prompts, T tokens, b bridges, R draws, s width of the sparse stream.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from bridges.behaviours.encoded import EncodedPairs
from bridges.bridge import Bridges
from bridges.circuits.bridge_context import BridgeContext, PromptBatch, device_of
from bridges.circuits.circuit import Circuit, only
from bridges.circuits.task import logit_diff_from
from bridges.compare.channels import live_channels
from bridges.config import CompareConfig

# Logit differences by direction, ``{direction: [R, b, n, 2]}``.
LogitDiffs = dict[str, np.ndarray]


@dataclass(frozen=True)
class CircuitRun:
    """The circuit alone on a batch: its stream at every bridge, ``{i: [B, T, s]}``, and its logit differences."""

    streams: dict[int, Tensor]
    logit_diff: Tensor


@dataclass
class TransferCase:
    """One circuit and the models it stands between.

    Attributes:
        context: models and bridges, untrained ones among them. circuit: of the sparse stack.
        means: mean of the sparse stream over text at every bridge, ``[b, s]``.
        config: sizes. seed: of every draw.
    """

    context: BridgeContext
    circuit: Circuit
    means: Tensor
    config: CompareConfig
    seed: int = 0
    _runs: dict[int, CircuitRun] = field(default_factory=dict)

    @cached_property
    def live(self) -> Tensor:
        """Channels that the circuit uses at every bridge, ``bool [b, s]``."""
        sites = [pair.sparse for pair in self.context.bridges.pairs]
        return live_channels(self.context.sparse, self.circuit)[sites].to(device_of(self.context.sparse))

    @property
    def untrained(self) -> Bridges:
        """Bridges of random weights."""
        assert self.context.untrained is not None
        return self.context.untrained

    def generator(self, name: str) -> torch.Generator:
        """Random state of one measurement of this behaviour: none of them changes what another one draws."""
        digest = hashlib.blake2b(f"{self.seed} {self.circuit.behaviour} {name}".encode(), digest_size=6).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest, "big"))

    @torch.no_grad()
    def run(self, batch: PromptBatch) -> CircuitRun:
        """The circuit alone on a batch, run once."""
        if id(batch) not in self._runs:
            sparse, pairs = self.context.sparse, self.context.bridges.pairs
            with only(sparse, self.circuit):
                streams = sparse.run(batch.some.ids)
            found = logit_diff_from(sparse, streams.final[0], batch.some, sparse.n_sublayers)
            self._runs[id(batch)] = CircuitRun({i: streams.sites[p.sparse] for i, p in enumerate(pairs)}, found)
        return self._runs[id(batch)]


def equal_pairs(encoded: EncodedPairs, count: int) -> EncodedPairs:
    """At most ``count`` pairs whose prompts are equally long and end in the same token."""
    index = (encoded.equal_length & encoded.shared_last).nonzero()[:, 0][:count]
    return encoded.take(index.tolist())


def gather(parts: Mapping[str, Sequence[Tensor]]) -> LogitDiffs:
    """Batches of ``[R, b, B]`` joined to ``[R, b, n, 2]``; R draws of a null, or 1."""
    return {k: torch.cat(list(v), -1).double().cpu().unflatten(-1, (-1, 2)).numpy() for k, v in parts.items()}
