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
    where = list(case.context.inner)
    moved = interchange(case, batches, where)
    back = dense_to_sparse(case, batches, where)
    plain, own = plain_diffs(batches), circuit_diffs(case, batches)
    with np.errstate(invalid="ignore", divide="ignore"):
        ways = [
            (shares(plain, moved["circuit"]), shares(plain, moved["dense"])),
            (shares(own, back["dense"]), shares(own, back["circuit"])),
        ]
        # Where the circuit itself has moved nothing yet there is no way back to speak of.
        ratios = [np.where(top >= ceiling, share / top, -np.inf) for share, top in ways]
        # Not by `nan_to_num`, which would make a finite number of −inf and a candidate of every bridge.
        worth = np.minimum(*(np.where(np.isnan(r), -np.inf, np.minimum(r, 1.0)) for r in ratios))
        best = np.where(np.isfinite(worth), worth + 1e-6 * ways[0][0], -np.inf)
        if not np.isfinite(best).any():
            best = np.where(np.isfinite(ratios[0]), ratios[0], -np.inf)
    return where[int(best.argmax())] if np.isfinite(best).any() else None


def label_directions(batches: Sequence[PromptBatch], i: int) -> dict[str, Tensor]:
    """Directions of the dense stream at a bridge that linear methods find with the labels of training pairs."""
    last = [b.dense[i][torch.arange(len(b)), b.some.last] for b in batches]
    return baseline_directions(torch.cat(last).float(), torch.cat([b.some.sign for b in batches]))
