"""Measurements of one circuit's transfer as rows of table ``transfer``.

Shapes: n pairs, b bridges, R draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bridges.behaviours.encoded import EncodedPairs
from bridges.compare.bootstrap import Resampler, estimate, p_above_zero
from bridges.compare.choice import Choice, choose
from bridges.compare.crossing import Transfer, crossings, equal_pairs
from bridges.compare.dense_to_sparse import continued_logit_diffs
from bridges.compare.transfer import (
    NULLS,
    REMOVED,
    WHOLE,
    interchange_margins,
    necessity_margins,
    share_moved,
    steering_chances,
    two_way_loss,
)

Row = dict[str, Any]
# Most of what there is to gain over chance.
WORTH = 0.4


class _Writer:
    """Rows of one measurement of one circuit."""

    def __init__(self, t: Transfer, measurement: str, n_pairs: int, chosen: int):
        self.t, self.measurement, self.chosen = t, measurement, chosen
        self.draws = Resampler(n_pairs, t.config.bootstrap, t.seed)
        self.rows: list[Row] = []

    def put(self, i: int, direction: str, quantity: str, values: np.ndarray, **more: Any) -> None:
        """One row at bridge ``i`` from the value in the data and in every resample."""
        pair = self.t.bridges.pairs[i]
        row: Row = {"behaviour": self.t.circuit.behaviour, "measurement": self.measurement, "pair": i}
        row |= {"dense_site": pair.dense, "sparse_site": pair.sparse, "direction": direction, "strength": 1.0}
        row |= {"quantity": quantity} | estimate(values).columns() | {"n_pairs": self.draws.n, "seed": self.t.seed}
        row |= {"chosen": i == self.chosen, "nodes": "all", "channel": None, "p_value": np.nan}
        self.rows.append(row | more)

    def mean(self, per_prompt: np.ndarray) -> np.ndarray:
        """The mean over draws, pairs and prompts, ``[R, n, 2]`` to the value and its resamples."""
        per_pair = per_prompt.mean((0, 2))
        return self.draws.ratio(per_pair, np.ones(len(per_pair)))


def interchange_rows(
    t: Transfer, plain: np.ndarray, margins: dict[str, np.ndarray], where: Sequence[int], chosen: int
) -> list[Row]:
    """``share_moved`` of every direction at each bridge, and what the circuit moves beyond nulls and baseline.

    Args:
        plain: margins of the dense model ``[n, 2]``. margins: ``{direction: [R, b, n, 2]}`` with the change added.
        where: indices of the b bridges. chosen: the one chosen on training pairs.
    """
    w = _Writer(t, "interchange", len(plain), chosen)
    for k, i in enumerate(where):
        shares = {name: w.draws.ratio(*share_moved(plain, m[:, k])) for name, m in margins.items()}
        for name, values in shares.items():
            w.put(i, name, "share_moved", values)
        w.put(i, "none", "share_moved", np.zeros_like(shares["circuit"]))
        # The best null of every resample, not of the data: which one is best is chance too.
        beyond = shares["circuit"] - np.max([shares[name] for name in NULLS], axis=0)
        w.put(i, "circuit", "share_moved_minus_null", beyond, p_value=p_above_zero(beyond, len(plain)))
        # Who moves the whole difference cannot be beaten by moving more than that.
        whole = {name: np.minimum(shares[name], WHOLE) for name in ("circuit", "difference_of_means")}
        w.put(i, "circuit", "share_moved_minus_baseline", whole["circuit"] - whole["difference_of_means"])
    return w.rows


def necessity_rows(
    t: Transfer, plain: np.ndarray, margins: dict[str, np.ndarray], where: Sequence[int], chosen: int
) -> list[Row]:
    """The dense model's ``loss`` without what the circuit carries, and how much more that is than the worst null's."""
    w = _Writer(t, "necessity", len(plain), chosen)
    for k, i in enumerate(where):
        losses = {name: w.mean(two_way_loss(m[:, k])) for name, m in margins.items()}
        for name, values in losses.items():
            w.put(i, name, "loss", values)
        w.put(i, "none", "loss", w.mean(two_way_loss(plain[None])))
        beyond = losses["circuit"] - np.max([losses[name] for name in REMOVED], axis=0)
        w.put(i, "circuit", "loss_minus_null", beyond, p_value=p_above_zero(beyond, len(plain)))
    return w.rows


def steering_rows(t: Transfer, chances: dict[str, dict[str, np.ndarray]], choice: Choice) -> list[Row]:
    """``p_counterfactual`` at every strength for the whole circuit and for its best channel."""
    rows: list[Row] = []
    for which, curves in chances.items():
        i = choice.bridge if which == "all" else choice.channel_bridge
        w = _Writer(t, "steering", next(iter(curves.values())).shape[2], i)
        more = {"nodes": which, "channel": None if which == "all" else choice.channel}
        for name, curve in curves.items():
            for k, strength in enumerate(t.config.strengths):
                w.put(i, name, "p_counterfactual", w.mean(curve[:, k]), strength=float(strength), **more)
        rows += w.rows
    return rows


def continued_rows(t: Transfer, margins: dict[str, np.ndarray], where: Sequence[int], chosen: int) -> list[Row]:
    """``accuracy`` and ``loss`` of the circuit that goes on from the encoded dense stream."""
    w = _Writer(t, "dense_to_sparse", margins["circuit"].shape[2], chosen)
    for k, i in enumerate(where):
        for name, m in margins.items():
            w.put(i, name, "accuracy", w.mean((m[:, k] > 0).astype(float)))
            w.put(i, name, "loss", w.mean(two_way_loss(m[:, k])))
    return w.rows


def best_continued(t: Transfer, train: EncodedPairs) -> int:
    """The inner bridge from which the circuit decides most training prompts rightly that no circuit at all does not, of
    equal ones with least loss.

    Where the dense stream has the answer at all of them, as behind a circuit that lies in the first sublayer, the first
    bridge: from there all of the work is the circuit's.
    """
    where = range(len(t.bridges))
    margins = continued_logit_diffs(t, train, where)
    own, none = margins["circuit"][0], margins["empty_circuit"][0]
    gains = (own > 0).mean((1, 2)) - (none > 0).mean((1, 2))
    losses = two_way_loss(own).mean((1, 2))
    best = max(t.inner, key=lambda i: (gains[i], -losses[i]))
    return best if gains[best] >= WORTH else 0


def _in_order(rows: list[Row]) -> list[Row]:
    """The chosen bridge's rows were measured apart; they take their place among the others."""
    return sorted(rows, key=lambda row: row["pair"])


def transfer_rows(t: Transfer, train: EncodedPairs, heldout: EncodedPairs) -> list[Row]:
    """Every row of table ``transfer`` of one circuit; what is chosen is chosen on the training pairs.

    The chosen bridge is measured on ``config.pairs`` held-out pairs, the others on ``config.site_pairs``. Interchange,
    necessity and steering need pairs of two equally long prompts; where a split has none they are left out.
    """
    config = t.config
    rows: list[Row] = []
    few, many = equal_pairs(train, config.train_pairs), equal_pairs(heldout, config.pairs)
    if len(few) and len(many):
        choice = choose(t, few)
        moved: list[Row] = []
        needed: list[Row] = []
        for where, pairs in _plan(t, choice.bridge):
            batches = list(crossings(t, equal_pairs(heldout, pairs)))
            plain, margins = interchange_margins(t, batches, choice.directions, where)
            moved += interchange_rows(t, plain, margins, where, choice.bridge)
            needed += necessity_rows(t, plain, necessity_margins(t, batches, where), where, choice.bridge)
        steered = list(crossings(t, equal_pairs(heldout, config.steering_pairs)))
        rows = [*_in_order(moved), *_in_order(needed), *steering_rows(t, steering_chances(t, steered, choice), choice)]
    chosen = best_continued(t, _first(train, config.train_pairs))
    continued: list[Row] = []
    for where, pairs in _plan(t, chosen):
        continued += continued_rows(t, continued_logit_diffs(t, _first(heldout, pairs), where), where, chosen)
    return rows + _in_order(continued)


def _plan(t: Transfer, chosen: int) -> list[tuple[list[int], int]]:
    """Which bridges are measured on how many held-out pairs."""
    others = [i for i in range(len(t.bridges)) if i != chosen]
    return [([chosen], t.config.pairs), (others, t.config.site_pairs)] if others else [([chosen], t.config.pairs)]


def _first(encoded: EncodedPairs, count: int) -> EncodedPairs:
    return encoded.take(range(min(count, len(encoded))))
