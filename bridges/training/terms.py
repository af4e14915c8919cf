"""The objective: loss terms over one batch, every hybrid in one stacked pass (paper, sections 2.3 and A.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bridges.bridge import Bridges, token_sizes
from bridges.hybrid import keep_prefix, prefix_streams
from bridges.losses import Reference, head_loss, nmse
from bridges.stack import ResidualStack, Streams
from bridges.training.crossings import Crossings
from bridges.training.moments import Moments

TERMS = ("ce", "kl", "nmse_encoder", "nmse_decoder", "kl_d2s", "kl_s2d")


@dataclass(frozen=True)
class StreamMoments:
    """Moments of both models' streams at every bridge's sites, in the bridges' order."""

    dense: list[Moments]
    sparse: list[Moments]


@dataclass
class Losses:
    """One batch's losses.

    Attributes:
        total: Σ coefficient · value, the tensor that is back-propagated.
        values: each term's raw value, summed over sites; detached.
        weighted: each term times its coefficient; they add up to ``total``.
        sizes: mean size of the sparse stream at each bridge's site, ``[bridges]``.
        crossed: KL of every crossing that was computed, by direction, in the order of the crossings; detached.
    """

    total: Tensor
    values: dict[str, Tensor] = field(default_factory=dict)
    weighted: dict[str, Tensor] = field(default_factory=dict)
    sizes: Tensor | None = None
    crossed: dict[str, Tensor] = field(default_factory=dict)


class Objective:
    """CE(sparse) + KL(dense ‖ sparse) + Σ_i NMSE both ways + Σ_i KL of the single crossings both ways.

    The site sums of the two crossing terms may be estimated from a few sampled sites; the estimate is unbiased. At the
    bridges' constant prefix hybrids keep the receiving model's own stream, and the NMSEs do not look there.

    Args:
        dense: the frozen dense stack.
        sparse, bridges: what is trained.
        coefficients: ``{term: coefficient}`` over `TERMS`; an absent term is not computed, one at 0 is only logged.
        detach_encoder_target: the encoder is drawn to the sparse stream, not the other way round.
        moments_of: how the moments of one stream are taken for the NMSE's normaliser; several processes share theirs.
        answer: how much more each KL counts at the position before a prompt's answer, where a batch has one.
    """

    def __init__(
        self,
        dense: ResidualStack,
        sparse: ResidualStack,
        bridges: Bridges,
        coefficients: Mapping[str, float],
        detach_encoder_target: bool = True,
        moments_of: Callable[[Tensor], Moments] = Moments.of,
        answer: float = 0.0,
    ):
        self.dense, self.sparse, self.bridges = dense, sparse, bridges
        self.coefficients = dict(coefficients)
        self.detach_encoder_target = detach_encoder_target
        self.moments_of, self.answer = moments_of, answer

    @property
    def normalises(self) -> bool:
        """Whether a term needs the streams' moments."""
        return "nmse_encoder" in self.coefficients or "nmse_decoder" in self.coefficients

    @property
    def reaches_every_bridge(self) -> bool:
        """Whether every encoder and decoder has a gradient at each step, whatever is crossed."""
        return all(self.coefficients.get(term) for term in ("nmse_encoder", "nmse_decoder"))

    @torch.no_grad()
    def moments(self, batches: Sequence[Tensor]) -> StreamMoments:
        """The moments over several equally large batches ``[B, T]``, by a pass of each model over each of them."""
        each = [self._moments(self.dense.run(ids).sites, self.sparse.run(ids).sites) for ids in batches]
        dense = [Moments.average(parts) for parts in zip(*(m.dense for m in each), strict=True)]
        sparse = [Moments.average(parts) for parts in zip(*(m.sparse for m in each), strict=True)]
        return StreamMoments(dense, sparse)

    def _moments(self, dense: Mapping[int, Tensor], sparse: Mapping[int, Tensor]) -> StreamMoments:
        pairs, start = self.bridges.pairs, self.bridges.constant_prefix
        return StreamMoments(
            [self.moments_of(dense[pair.dense][:, start:]) for pair in pairs],
            [self.moments_of(sparse[pair.sparse][:, start:]) for pair in pairs],
        )

    def __call__(
        self,
        ids: Tensor,
        d2s: Crossings | Sequence[int],
        s2d: Crossings | Sequence[int],
        moments: StreamMoments | None = None,
        answered: bool = False,
        dense: Streams | None = None,
    ) -> Losses:
        """All terms on one batch.

        Args:
            ids: ``[B, T]``.
            d2s, s2d: the crossings that are computed in each direction, whose sum stands for that over all; bridges
                without weights count alike.
            moments: of the whole batch where ``ids`` is a part of it, see `moments`; None: of these streams.
            answered: whether every sequence is a prompt and its answer, the last token.
            dense: the dense stack's streams at the bridges' sites where they are known already; None: it is run.
        """
        answer = self.answer if answered else 0.0
        d2s, s2d = (c if isinstance(c, Crossings) else Crossings.alike(c, len(self.bridges)) for c in (d2s, s2d))
        if dense is None:
            with torch.no_grad():
                dense = self.dense.run(ids)
        reference = Reference(self.dense, dense.final[0])
        parts: list[Tensor] = []
        losses = Losses(total=ids.new_zeros((), dtype=torch.float32))

        h_sparse = self._sparse_pass(ids, dense, reference, d2s, answer, losses, parts)
        if self.normalises:
            self._bridge_terms(dense.sites, h_sparse, moments or self._moments(dense.sites, h_sparse), losses, parts)
        start = self.bridges.constant_prefix
        losses.sizes = torch.stack(
            [token_sizes(h_sparse[pair.sparse][:, start:]).mean() for pair in self.bridges.pairs]
        )
        self._dense_pass(ids, dense.sites, h_sparse, reference, s2d, answer, losses, parts)
        losses.total = torch.stack(parts).sum()
        return losses

    def _put(self, losses: Losses, term: str, value: Tensor) -> None:
        losses.values[term] = value.detach()
        losses.weighted[term] = value.detach() * self.coefficients[term]

    def _put_crossed(self, losses: Losses, term: str, values: Tensor, crossings: Crossings) -> None:
        losses.crossed[term] = values.detach()
        # Not as a matrix product, which autocast would round to eight bits.
        self._put(losses, term, (values * values.new_tensor(crossings.weights)).sum())

    def _put_answer(
        self,
        stack: ResidualStack,
        streams: Sequence[Tensor],
        ids: Tensor,
        reference: Reference,
        kl: Sequence[float],
        answer: float,
        losses: Losses,
        parts: list[Tensor],
    ) -> None:
        """The KLs of some streams once more at the position before the last token alone."""
        if not answer:
            return
        there = slice(ids.shape[1] - 2, ids.shape[1] - 1)
        target = Reference(reference.stack, reference.stream[:, there])
        weighted, _ = head_loss(
            stack, [h[:, there] for h in streams], ids[:, there], target, [0.0] * len(streams), [answer * w for w in kl]
        )
        parts.append(weighted)
        before = losses.weighted.get("answer")
        losses.weighted["answer"] = weighted.detach() + (0 if before is None else before)

    def _sparse_pass(
        self,
        ids: Tensor,
        dense: Streams,
        reference: Reference,
        d2s: Crossings,
        answer: float,
        losses: Losses,
        parts: list[Tensor],
    ) -> dict[int, Tensor]:
        """The sparse model's own pass with the dense→sparse hybrids stacked onto it; its own stream at every site."""
        coefficient = self.coefficients
        entries = [(0, self.sparse.embed(ids))]
        counts = d2s.weights if "kl_d2s" in coefficient else ()
        if counts:
            own = prefix_streams(self.sparse, ids, self.bridges.constant_prefix)
            for b in d2s.bridges:
                pair = self.bridges.pairs[b]
                crossed = self.bridges[b].encode(dense.sites[pair.dense])
                entries.append((pair.sparse, keep_prefix(crossed, own.get(pair.sparse))))
        run = self.sparse.run_from(entries, record=0)
        ce = [coefficient.get("ce", 0.0)] + [0.0] * len(counts)
        kl = [coefficient.get("kl", 0.0)] + [coefficient.get("kl_d2s", 0.0) * w for w in counts]
        weighted, values = head_loss(self.sparse, list(run.final.values()), ids, reference, ce, kl)
        parts.append(weighted)
        self._put_answer(self.sparse, list(run.final.values()), ids, reference, kl, answer, losses, parts)
        for term, value in (("ce", values[0, 0]), ("kl", values[1, 0])):
            if term in coefficient:
                self._put(losses, term, value)
        if counts:
            self._put_crossed(losses, "kl_d2s", values[1, 1:], d2s)
        return run.sites

    def _bridge_terms(
        self,
        dense: dict[int, Tensor],
        sparse: dict[int, Tensor],
        moments: StreamMoments,
        losses: Losses,
        parts: list[Tensor],
    ) -> None:
        for term in ("nmse_encoder", "nmse_decoder"):
            if term not in self.coefficients:
                continue
            total = torch.zeros((), device=next(iter(dense.values())).device)
            of_sites = moments.sparse if term == "nmse_encoder" else moments.dense
            start = self.bridges.constant_prefix
            for pair, bridge, m in zip(self.bridges.pairs, self.bridges, of_sites, strict=True):
                x, y = dense[pair.dense][:, start:], sparse[pair.sparse][:, start:]
                if term == "nmse_encoder":
                    target = y.detach() if self.detach_encoder_target else y
                    total = total + nmse(bridge.encode(x), target, m.mean, m.variance)
                else:
                    total = total + nmse(bridge.decode(y), x, *bridge.text_moments(m.mean, m.variance))
            self._put(losses, term, total)
            if self.coefficients[term]:
                parts.append(total * self.coefficients[term])

    def _dense_pass(
        self,
        ids: Tensor,
        dense: dict[int, Tensor],
        sparse: dict[int, Tensor],
        reference: Reference,
        s2d: Crossings,
        answer: float,
        losses: Losses,
        parts: list[Tensor],
    ) -> None:
        """The sparse→dense hybrids, stacked."""
        if "kl_s2d" not in self.coefficients or not s2d.bridges:
            return
        entries = {}
        for b in s2d.bridges:
            pair = self.bridges.pairs[b]
            crossed = self.bridges[b].decode(sparse[pair.sparse])
            entries[pair.dense] = keep_prefix(crossed, dense[pair.dense], self.bridges.constant_prefix)
        final = self.dense.run_from(entries).final
        weights = [self.coefficients["kl_s2d"] * w for w in s2d.weights]
        weighted, values = head_loss(self.dense, list(final.values()), ids, reference, [0.0] * len(entries), weights)
        parts.append(weighted)
        self._put_answer(self.dense, list(final.values()), ids, reference, weights, answer, losses, parts)
        self._put_crossed(losses, "kl_s2d", values[1], s2d)
