"""How alike two streams are: linear CKA (Kornblith et al. 2019) and cross-validated ridge regression.

Shapes: N tokens, d and s widths of the two streams.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from torch import Tensor

from bridges.bridge import Bridges
from bridges.compare.agreement import device_of
from bridges.data.blocks import Text, in_batches
from bridges.stack import ResidualStack

Row = dict[str, Any]


def linear_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Linear centred kernel alignment of ``[N, d]`` and ``[N, s]``: 1 for streams equal up to rotation and scale.

    ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖) in Frobenius norms of centred values (Kornblith et al. 2019, equation 5); NaN where one of
    them is constant.
    """
    x, y = x - x.mean(0), y - y.mean(0)
    size = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(y.T @ x) ** 2 / size) if size > 0 else float("nan")


def cross_validated_r2(x: np.ndarray, y: np.ndarray, sequence: np.ndarray, ridge: float, folds: int) -> float:
    """Share of y's variance that a ridge regression on x predicts in sequences it was not fitted to.

    Args:
        x: ``[N, d]``. y: ``[N, s]``. sequence: ``[N]``, which sequence a token stands in.
        ridge: penalty relative to the mean square of the inputs.
        folds: of the sequences, or as many as there are sequences.

    Returns:
        R² pooled over y's channels; NaN for fewer than two sequences or a constant y.
    """
    groups = len(np.unique(sequence))
    if groups < 2 or not y.var(0).any():
        return float("nan")
    x = x - x.mean(0)
    x = x / (np.sqrt((x * x).mean()) or 1.0)
    y = y / np.abs(y).max()
    model = Ridge(alpha=ridge * len(x))
    guess = cross_val_predict(model, x, y, groups=sequence, cv=GroupKFold(min(folds, groups)))
    return float(r2_score(y, guess, multioutput="variance_weighted"))


@torch.no_grad()
def similarity_rows(
    dense: ResidualStack,
    sparse: ResidualStack,
    bridges: Bridges,
    text: Text,
    ridge: float,
    folds: int,
    batch: int = 8,
) -> list[Row]:
    """Rows of table ``similarity``: the streams of every site pair on text.

    Args:
        text: held-out token ids.
    """
    device = device_of(dense)
    seen: dict[tuple[str, int], list[Tensor]] = {}
    batches = in_batches(text, batch)
    for ids in batches:
        d, s = dense.run(ids.to(device)).sites, sparse.run(ids.to(device)).sites
        for pair in bridges.pairs:
            seen.setdefault(("dense", pair.dense), []).append(d[pair.dense].flatten(0, 1).double().cpu())
            seen.setdefault(("sparse", pair.sparse), []).append(s[pair.sparse].flatten(0, 1).double().cpu())
    lengths = np.concatenate([np.full(len(ids), ids.shape[1]) for ids in batches])
    sequence = np.repeat(np.arange(len(lengths)), lengths)
    rows: list[Row] = []
    for i, pair in enumerate(bridges.pairs):
        x, y = (torch.cat(seen[key]).numpy() for key in (("dense", pair.dense), ("sparse", pair.sparse)))
        values = {
            "linear_cka": linear_cka(x, y),
            "r2_dense_to_sparse": cross_validated_r2(x, y, sequence, ridge, folds),
            "r2_sparse_to_dense": cross_validated_r2(y, x, sequence, ridge, folds),
        }
        for quantity, value in values.items():
            row: Row = {"bridge": i, "dense_site": pair.dense, "sparse_site": pair.sparse}
            rows.append(row | {"quantity": quantity, "value": value, "n": len(x)})
    return rows
