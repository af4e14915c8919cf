"""Which bridge a circuit is judged at: chosen on training pairs.

Shapes: n pairs, b bridges.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bridges.circuits.bridge_context import PromptBatch
from bridges.compare.case import TransferCase
from bridges.compare.dense_to_sparse import circuit_diffs, dense_to_sparse
from bridges.compare.directions import baseline_directions
from bridges.compare.interchange import interchange, plain_diffs


def shares(plain: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Share of the logit differences that is moved at each bridge, ``[n, 2]`` and ``[R, b, n, 2]`` to ``[b]``; NaN
    where there is nothing to move."""
    whole = 2 * plain.sum()
    return (plain - moved.mean(0)).sum((1, 2)) / whole if whole > 0 else np.full(moved.shape[1], np.nan)


@torch.no_grad()
def select_bridge(case: TransferCase, batches: Sequence[PromptBatch], ceiling: float) -> int | None:
    """The inner bridge where the weaker of the two ways is strongest, each as a share of its ceiling; None where no
    bridge has a ceiling.

    Args:
        batches: training pairs. ceiling: what the dense model's own exchange has to move at a bridge that is selected.
    """
    every = list(case.context.inner)
    plain = plain_diffs(batches)
    tops = shares(plain, interchange(case, batches, every, ["dense"])["dense"])
    where = [i for i, top in zip(every, tops, strict=True) if top >= ceiling]
    if not where:
        return None
    tops = tops[tops >= ceiling]
    moved = shares(plain, interchange(case, batches, where, ["circuit"])["circuit"])
    back, own = dense_to_sparse(case, batches, where), circuit_diffs(case, batches)
    share, top = shares(own, back["dense"]), shares(own, back["circuit"])
    with np.errstate(invalid="ignore", divide="ignore"):
        # Where the circuit itself has moved nothing yet there is no way back to speak of.
        ways = np.minimum(moved / tops, 1.0), np.where(top >= ceiling, np.minimum(share / top, 1.0), -np.inf)
    worth = np.minimum(*ways)
    if not np.isfinite(worth).any():
        worth = moved / tops
    return where[int((worth + 1e-6 * moved).argmax())]


def label_directions(batches: Sequence[PromptBatch], i: int) -> dict[str, Tensor]:
    """Directions of the dense stream at a bridge that linear methods find with the labels of training pairs."""
    last = [b.dense[i][torch.arange(len(b)), b.some.last] for b in batches]
    return baseline_directions(torch.cat(last).float(), torch.cat([b.some.sign for b in batches]))
