"""The residual stack: the one shape every model here has, dense or sparse.

A stack is ``embed``, a list of sublayers and ``unembed``. Sublayer ``i`` is an attention block, an MLP block, or both
in parallel, *including* its residual addition. Site ``i`` is the residual stream before sublayer ``i``: site 0 is the
embedding, the last site (``n_sublayers``) goes to the final norm and the unembedding.

Shapes: B sequences, T tokens, d width of the stream, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bridges.nodes import NodeBus


@dataclass
class Streams:
    """What a (stacked) run leaves behind.

    Attributes:
        final: for every entry its stream at the last site, ``[B, T, d]``.
        sites: the recorded entry's stream at each site from its own on, ``[B, T, d]`` (empty without ``record``).
    """

    final: dict[int, Tensor] = field(default_factory=dict)
    sites: dict[int, Tensor] = field(default_factory=dict)


class ResidualStack(ABC):
    """A causal language model as a chain of residual sublayers. Mixed into a ``torch.nn.Module``.

    Attributes:
        d_model: width of the stream.
        n_sublayers: number of sublayers; there are ``n_sublayers + 1`` sites.
        n_layers: number of layers (a layer is two sublayers, or one where attention and MLP are parallel).
        vocab_size: number of logits.
        context: the longest sequence the model takes, in tokens.
        nodes: where node activations and streams are read and changed (`bridges.nodes`).
    """

    d_model: int
    n_sublayers: int
    n_layers: int
    vocab_size: int
    context: int
    nodes: NodeBus

    @property
    def parallel(self) -> bool:
        """Whether attention and MLP read the same stream, so that a layer is one sublayer."""
        return self.n_sublayers == self.n_layers

    @abstractmethod
    def embed(self, ids: Tensor) -> Tensor:
        """Token ids ``[B, T]`` to the stream at site 0, ``[B, T, d]``."""

    @abstractmethod
    def sublayer(self, index: int, h: Tensor) -> Tensor:
        """The stream at site ``index`` to the stream at site ``index + 1``; ``[B, T, d]`` both."""

    @abstractmethod
    def unembed(self, h: Tensor, ids: Tensor) -> Tensor:
        """Final norm and unembedding: ``[B, T, d]`` to logits ``[B, T, V]``.

        ``ids`` ``[B, T]`` are the current tokens, which a bigram table reads.
        """

    def run_from(
        self, entries: Mapping[int, Tensor] | Sequence[tuple[int, Tensor]], record: int | None = None
    ) -> Streams:
        """Run several streams at once, each from its own site to the last one.

        A stream joins the *batch* where its site is reached, so that every sublayer is called once however many streams
        there are. Interventions act on all of them, those on streams at every site from a stream's own on.

        Args:
            entries: ``{site: stream [B, T, d]}``, or ``[(site, stream), …]`` where several start at one site. Results
                are keyed by site, or by position in the sequence.
            record: key of the entry whose stream is kept at every site from its own to the last.

        Raises:
            IndexError: a site lies outside ``0 … n_sublayers``.
        """
        keyed = (
            {site: (site, h) for site, h in entries.items()}
            if isinstance(entries, Mapping)
            else dict(enumerate(entries))
        )
        streams = Streams()
        if not keyed:
            return streams
        outside = [site for site, _ in keyed.values() if not 0 <= site <= self.n_sublayers]
        if outside:
            raise IndexError(f"Sites {outside} do not exist; this stack has the sites 0 to {self.n_sublayers}.")
        order: list[int] = []
        parts: list[Tensor] = []
        for site in range(min(site for site, _ in keyed.values()), self.n_sublayers + 1):
            joining = [key for key, (start, _) in keyed.items() if start == site]
            if joining:
                order += joining
                parts = [torch.cat([*parts, *(keyed[key][1] for key in joining)])]
            parts = [self.nodes.stream(site, parts[0])]
            rows = parts[0].shape[0] // len(order)
            if record is not None and record in order:
                at = order.index(record) * rows
                streams.sites[site] = parts[0][at : at + rows]
            if site < self.n_sublayers:
                parts = [self.sublayer(site, parts[0])]
        final = dict(zip(order, parts[0].split(parts[0].shape[0] // len(order)), strict=True))
        streams.final = {key: final[key] for key in keyed}
        return streams

    def run_segment(self, h: Tensor, start: int, stop: int) -> Tensor:
        """The stream at site ``start`` carried to site ``stop``, ``[B, T, d]``.

        Interventions on the stream at ``start`` act, those at ``stop`` do where it is the last site: segments that
        follow one another meet every site once.
        """
        for index in range(start, stop):
            h = self.sublayer(index, self.nodes.stream(index, h))
        return self.nodes.stream(stop, h) if stop == self.n_sublayers else h

    def run(self, ids: Tensor) -> Streams:
        """The plain pass with the stream at every site; ``final[0]`` is the stream at the last one."""
        return self.run_from({0: self.embed(ids)}, record=0)

    def logits(self, ids: Tensor) -> Tensor:
        """The plain pass, ids ``[B, T]`` to logits ``[B, T, V]``."""
        return self.unembed(self.run_segment(self.embed(ids), 0, self.n_sublayers), ids)
