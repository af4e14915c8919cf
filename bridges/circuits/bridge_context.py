"""Two models, the bridges between them, and what both do with a behaviour's prompts at every bridge.

A change of a stream is moved at *shared positions* only: those whose token is the same in both prompts of a pair. At
the others the prompts' own tokens differ, and a change there would hand over the cue instead of what was computed from
it.

Shapes: n pairs, B = 2n prompts (clean and counterfactual of each pair one after the other), T tokens, d and s widths of
the dense and sparse streams, K changes, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bridges.behaviours.encoded import EncodedPairs
from bridges.bridge import Bridge, Bridges
from bridges.circuits.task import Prompts, logit_diff_of, prompts
from bridges.stack import ResidualStack

# Tokens in one stacked pass: enough to keep two cores busy, little enough for their caches.
TOKENS = 16_384


def device_of(stack: ResidualStack) -> torch.device:
    """Where a stack's weights are."""
    return next(stack.parameters()).device  # type: ignore[attr-defined]


def on_other(x: Tensor) -> Tensor:
    """The value on the other prompt of each pair, ``[B, …]`` both."""
    return x[torch.arange(len(x), device=x.device) ^ 1]


def shared_positions(some: Prompts) -> Tensor:
    """Positions whose token is the same in both prompts of a pair, padding left out, ``bool [B, T]``.

    Of pairs whose prompts differ in length there are none: their positions do not correspond.
    """
    real = torch.arange(some.ids.shape[1], device=some.ids.device) <= some.last[:, None]
    aligned = some.last == on_other(some.last)
    return (some.ids == on_other(some.ids)) & real & aligned[:, None]


def map_through_bridge(bridge: Bridge, delta: Tensor) -> Tensor:
    """What a change of the sparse stream is in the dense one: ``decode(h + delta) - decode(h)``, whatever h is.

    The decoder's linear part alone, with the two streams' scales: the paper's ratio of mean residual RMS (section A.4),
    here one for every dense channel.

    Args:
        delta: ``[B, T, s]``.

    Returns:
        ``[B, T, d]`` in fp32.
    """
    return bridge.decode_change(delta)


def share_moved(plain: Tensor, moved: Tensor) -> float:
    """How far a change moved the logit differences, as a share of a full swap of the two prompts' answers.

    A swap turns a prompt's logit difference into minus that of the other prompt, so that a pair has twice its sum to
    move. NaN where there is nothing to move.

    Args:
        plain, moved: logit differences without and with the change, ``[B]``.
    """
    whole = 2 * float(plain.double().sum())
    return float((plain - moved).double().sum()) / whole if whole > 0 else float("nan")


@dataclass(frozen=True)
class PromptBatch:
    """Prompts with both whole models' streams at every bridge.

    Attributes:
        some: the prompts. shared: `shared_positions`, ``bool [B, T]``.
        dense, sparse: streams by bridge, ``{i: [B, T, d]}`` and ``{i: [B, T, s]}``.
        dense_diff, sparse_diff: logit differences of the whole models, ``[B]``.
    """

    some: Prompts
    shared: Tensor
    dense: dict[int, Tensor]
    sparse: dict[int, Tensor]
    dense_diff: Tensor
    sparse_diff: Tensor

    def __len__(self) -> int:
        return len(self.some)

    @property
    def aligned(self) -> bool:
        """Whether every pair has a shared position behind its first difference, where something can be moved to."""
        last = self.shared[torch.arange(len(self), device=self.shared.device), self.some.last]
        return bool(last.all())

    def take(self, rows: Tensor) -> PromptBatch:
        """The prompts at the indices ``[m]``, no wider than the longest of them; pairs have to stay together."""
        some = self.some.take(rows)
        width = some.ids.shape[1]
        dense, sparse = ({i: h[rows, :width] for i, h in of.items()} for of in (self.dense, self.sparse))
        shared = self.shared[rows, :width]
        return PromptBatch(some, shared, dense, sparse, self.dense_diff[rows], self.sparse_diff[rows])

    def exchange(self, h: Tensor) -> Tensor:
        """The stream on the other prompt minus that on this one at shared positions, 0 elsewhere, ``[B, T, …]``."""
        return (on_other(h) - h) * self.shared.unsqueeze(-1)


def last_logits(stack: ResidualStack, streams: Sequence[Tensor], some: Prompts) -> Tensor:
    """Logits at every prompt's last token from K streams ``[B, T, …]`` at the last site, ``[K, B, V]``."""
    at = torch.arange(len(some), device=some.ids.device)
    h = torch.cat([s[at, some.last] for s in streams]).unsqueeze(1)
    now = some.ids[at, some.last].repeat(len(streams)).unsqueeze(1)
    return stack.unembed(h, now)[:, 0].float().unflatten(0, (len(streams), len(some)))


@dataclass(frozen=True)
class BridgeContext:
    """A dense and a sparse stack and the bridges between them.

    Attributes:
        dense, sparse: the stacks, in evaluation mode. bridges: between them.
        untrained: bridges of random weights with the trained ones' scales, as a null; None to do without.
    """

    dense: ResidualStack
    sparse: ResidualStack
    bridges: Bridges
    untrained: Bridges | None = None

    @property
    def inner(self) -> range:
        """The bridges that may be selected: at the first one tokens are moved, at the last the answer itself."""
        count = len(self.bridges)
        return range(1, count - 1) if count > 2 else range(count)

    @torch.no_grad()
    def batch(self, pairs: EncodedPairs | Prompts) -> PromptBatch:
        """Both whole models run once on some pairs."""
        some = pairs if isinstance(pairs, Prompts) else prompts(pairs, device_of(self.dense))
        dense, sparse = self.dense.run(some.ids), self.sparse.run(some.ids)
        diffs = [
            logit_diff_of(last_logits(stack, [streams.final[0]], some), some)[0]
            for stack, streams in ((self.dense, dense), (self.sparse, sparse))
        ]
        return PromptBatch(
            some,
            shared_positions(some),
            {i: dense.sites[pair.dense] for i, pair in enumerate(self.bridges.pairs)},
            {i: sparse.sites[pair.sparse] for i, pair in enumerate(self.bridges.pairs)},
            *diffs,
        )

    def batches(self, pairs: EncodedPairs) -> list[PromptBatch]:
        """The pairs in batches whose stacked hybrids have about `TOKENS` tokens, shortest prompts first."""
        order = torch.argsort(pairs.lengths.amax(1), stable=True).tolist()
        whole = prompts(pairs.take(order), device_of(self.dense))
        size = max(1, TOKENS // (2 * len(self.bridges) * whole.ids.shape[1]))
        return [self.batch(whole.take(slice(2 * i, 2 * (i + size)))) for i in range(0, len(pairs), size)]

    def dense_logits(self, batch: PromptBatch, changes: Mapping[int, Tensor] | Sequence[tuple[int, Tensor]]) -> Tensor:
        """Logits of the dense model at the last token with K changes, each added at its bridge, ``[K, B, V]``.

        Args:
            changes: ``{bridge: [B, T, d]}``, or ``[(bridge, change), …]`` where several act at one bridge.
        """
        items = list(changes.items()) if isinstance(changes, Mapping) else list(changes)
        entries = [(self.bridges.pairs[i].dense, batch.dense[i] + change.to(batch.dense[i])) for i, change in items]
        return last_logits(self.dense, list(self.dense.run_from(entries).final.values()), batch.some)

    def dense_diff(self, batch: PromptBatch, changes: Mapping[int, Tensor] | Sequence[tuple[int, Tensor]]) -> Tensor:
        """The same as logit differences, ``[K, B]``; differentiable with respect to the changes.

        Where nothing changes, as at the embeddings of shared positions, no pass is made.
        """
        items = list(changes.items()) if isinstance(changes, Mapping) else list(changes)
        moving = [k for k, (_, change) in enumerate(items) if change.requires_grad or bool(change.any())]
        if not moving:
            return batch.dense_diff.expand(len(items), -1)
        found = logit_diff_of(self.dense_logits(batch, [items[k] for k in moving]), batch.some)
        if len(moving) == len(items):
            return found
        whole = batch.dense_diff.repeat(len(items), 1)
        whole[moving] = found
        return whole

    @torch.no_grad()
    def ceilings(self, batch: PromptBatch) -> dict[int, float]:
        """`share_moved` by the dense model's own exchange at shared positions, by bridge: what there is to move."""
        found = self.dense_diff(batch, {i: batch.exchange(h) for i, h in batch.dense.items()})
        return {i: share_moved(batch.dense_diff, diff) for i, diff in zip(batch.dense, found, strict=True)}

    @torch.no_grad()
    def whole_sparse(self, batch: PromptBatch, where: Sequence[int] | None = None) -> dict[int, Tensor]:
        """Logit differences of the dense model with the whole sparse model's exchange, ``{bridge: [B]}``.

        Args:
            where: the bridges (None: all).
        """
        some = range(len(self.bridges)) if where is None else where
        changes = {i: map_through_bridge(self.bridges[i], batch.exchange(batch.sparse[i])) for i in some}
        if not changes:
            return {}
        return dict(zip(changes, self.dense_diff(batch, changes), strict=True))
