"""Measurements of one circuit across the bridges as rows of table ``transfer``.

Shapes: n pairs, b bridges, R draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bridges.behaviours.encoded import EncodedPairs
from bridges.circuits.bootstrap import Resampler, estimate, p_above_zero
from bridges.circuits.bridge_context import PromptBatch
from bridges.compare.case import LogitDiffs, TransferCase, equal_pairs
from bridges.compare.dense_to_sparse import circuit_diffs, dense_to_sparse, null_dense_to_sparse
from bridges.compare.interchange import baseline_interchange, interchange, null_interchange, plain_diffs
from bridges.compare.necessity import NULLS as ABLATED
from bridges.compare.necessity import necessity
from bridges.compare.selection import label_directions, select_bridge
from bridges.compare.steering import STRENGTHS, steering

Row = dict[str, Any]


def two_way_loss(diffs: np.ndarray) -> np.ndarray:
    """Cross-entropy of the two candidates in nats, of any shape."""
    with np.errstate(invalid="ignore"):  # NaN stands for what could not be measured, and stays NaN
        return np.logaddexp(0.0, -diffs)


class _Writer:
    """Rows of one measurement of one circuit."""

    def __init__(self, case: TransferCase, measurement: str, draws: Resampler, selected: int | None):
        self.case, self.measurement, self.draws, self.selected = case, measurement, draws, selected
        self.rows: list[Row] = []

    def put(self, i: int, direction: str, quantity: str, values: np.ndarray, **more: Any) -> None:
        """One row at bridge ``i`` from the value in the data and in every resample."""
        pair = self.case.context.bridges.pairs[i]
        row: Row = {"behaviour": self.case.circuit.behaviour, "measurement": self.measurement, "bridge": i}
        row |= {"dense_site": pair.dense, "sparse_site": pair.sparse, "direction": direction, "strength": 1.0}
        row |= {"quantity": quantity} | estimate(values).columns() | {"n_pairs": self.draws.n, "seed": self.case.seed}
        row |= {"selected": i == self.selected, "p_value": np.nan}
        self.rows.append(row | more)

    def mean(self, per_prompt: np.ndarray) -> np.ndarray:
        """The mean over draws, pairs and prompts, ``[R, n, 2]`` to the value and its resamples."""
        per_pair = per_prompt.mean((0, 2))
        return self.draws.ratio(per_pair, np.ones(len(per_pair)))

    def shares(
        self,
        where: Sequence[int],
        plain: np.ndarray,
        moved: LogitDiffs,
        ceiling: str,
        mover: str,
        nulls: LogitDiffs,
        context: LogitDiffs,
    ) -> None:
        """``share_moved`` of everything, ``share_of_ceiling`` of who moves, and at the selected bridge how much more
        that is than the best null.

        Args:
            plain: ``[n, 2]``. moved: ``{direction: [R, b, n, 2]}`` at the bridges ``where``.
            ceiling, mover: directions in ``moved``. nulls, context: ``{direction: [R, 1, n, 2]}`` at the selected one.
        """
        whole = 2 * plain.sum(1)
        sums = {name: (plain - m.mean(0)).sum(-1) for name, m in moved.items()}
        for k, i in enumerate(where):
            for name, each in sums.items():
                self.put(i, name, "share_moved", self.draws.ratio(each[k], whole))
            self.put(i, mover, "share_of_ceiling", self.draws.ratio(sums[mover][k], sums[ceiling][k]))
            if i != self.selected:
                continue
            beside = {name: self.draws.ratio((plain - m[:, 0].mean(0)).sum(1), whole) for name, m in nulls.items()}
            for name, values in beside.items():
                self.put(i, name, "share_moved", values)
            for name, m in context.items():
                self.put(i, name, "share_moved", self.draws.ratio((plain - m[:, 0].mean(0)).sum(1), whole))
            # The best null of every resample, not of the data: which one is best is chance too. One that could not be
            # made, as other channels of a circuit that uses all, is none.
            best = np.max([np.nan_to_num(v, nan=-np.inf) for v in beside.values()], axis=0)
            beyond = self.draws.ratio(sums[mover][k], whole) - best
            self.put(i, mover, "share_moved_minus_null", beyond, p_value=p_above_zero(beyond, len(plain)))


def transfer_rows(case: TransferCase, train: EncodedPairs, heldout: EncodedPairs, ceiling: float) -> list[Row]:
    """Every row of table ``transfer`` of one circuit; the bridge is selected on the training pairs.

    Only pairs of equally long prompts that end in the same token count; without any there are no rows.

    Args:
        ceiling: what the dense model's own exchange has to move at a bridge that is selected.
    """
    config, context = case.config, case.context
    few, many = equal_pairs(train, config.train_pairs), equal_pairs(heldout, config.pairs)
    if not len(few) or not len(many):
        return []
    shown, judged = context.batches(few), context.batches(many)
    # `batches` sorts the pairs by length.
    order = np.argsort(many.lengths.amax(1).numpy(), kind="stable")
    frames = tuple(many.pairs[int(i)].template for i in order)
    draws = Resampler(len(frames), config.bootstrap, case.seed, frames)
    selected = select_bridge(case, shown, ceiling)
    every = range(len(context.bridges))
    w = _Writer(case, "interchange", draws, selected)
    nulls: LogitDiffs = {}
    beside: LogitDiffs = {}
    if selected is not None:
        nulls = null_interchange(case, judged, selected)
        beside = baseline_interchange(case, judged, selected, label_directions(shown, selected))
    plain = plain_diffs(judged)
    w.shares(every, plain, interchange(case, judged, every), "dense", "circuit", nulls, beside)
    back = _Writer(case, "dense_to_sparse", draws, selected)
    nulls = {} if selected is None else null_dense_to_sparse(case, judged, selected)
    back.shares(every, circuit_diffs(case, judged), dense_to_sparse(case, judged, every), "circuit", "dense", nulls, {})
    rows = w.rows + back.rows
    return rows if selected is None else rows + _beside(case, judged, draws, selected, plain)


def _beside(
    case: TransferCase, judged: Sequence[PromptBatch], draws: Resampler, selected: int, plain: np.ndarray
) -> list[Row]:
    """Necessity and steering at the selected bridge: shown beside the verdict, which does not hang on them."""
    w = _Writer(case, "necessity", draws, selected)
    losses = {name: w.mean(two_way_loss(m[:, 0])) for name, m in necessity(case, judged, selected).items()}
    for name, values in losses.items():
        w.put(selected, name, "loss", values)
    w.put(selected, "none", "loss", w.mean(two_way_loss(plain[None])))
    beyond = losses["circuit"] - np.max([np.nan_to_num(losses[name], nan=-np.inf) for name in ABLATED], axis=0)
    w.put(selected, "circuit", "loss_minus_null", beyond, p_value=p_above_zero(beyond, len(plain)))
    steered = _Writer(case, "steering", draws, selected)
    for name, curve in steering(case, judged, selected).items():
        for k, strength in enumerate(STRENGTHS):
            steered.put(selected, name, "p_counterfactual", steered.mean(curve[:, k]), strength=strength)
    return w.rows + steered.rows
