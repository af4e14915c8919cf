"""Directions in the dense stream that a linear method finds without a sparse model: what a circuit is measured against.

Shapes: n training pairs, d width of the dense stream. Every direction points from the candidate with the larger token
id to the one with the smaller, and has length 1 (0 where there is none).
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from torch import Tensor

BASELINES = ("difference_of_means", "probe", "pca")


def _unit(v: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(v)
    return v / length if length > 0 else v


def difference_of_means(x: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Mean of the prompts whose right candidate is the first minus the mean of the others.

    Args:
        x: last-token activations ``[2n, d]``. first: ``[2n]`` whether the right candidate has the smaller token id.
    """
    return _unit(x[first].mean(0) - x[~first].mean(0))


def probe(x: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Weights of a logistic regression that tells the two candidates apart."""
    if not x.std(0).any():
        return np.zeros(x.shape[1])
    # One size for all channels: the penalty then means the same at every site, and the direction stays the stream's.
    scaled = (x - x.mean(0)) / x.std()
    return _unit(LogisticRegression(max_iter=1000).fit(scaled, first).coef_[0])


def pca(x: np.ndarray, first: np.ndarray) -> np.ndarray:
    """First principal component of the differences within pairs, turned to the first candidate.

    Every difference is taken both ways round, so that centring removes nothing of what they have in common.
    """
    one, two = x[0::2], x[1::2]
    turned = np.where(first[0::2, None], one - two, two - one)
    if not turned.any():
        return np.zeros(x.shape[1])
    axis = PCA(1, svd_solver="full").fit(np.concatenate([turned, -turned])).components_[0]
    return _unit(axis if axis @ turned.mean(0) >= 0 else -axis)


def baseline_directions(last: Tensor, sign: Tensor) -> dict[str, Tensor]:
    """All of them at one site, ``{name: [d]}`` in fp32.

    Args:
        last: the dense stream at the last tokens of training prompts, clean and counterfactual of each pair one after
            the other, ``[2n, d]``.
        sign: ``[2n]`` of `bridges.circuits.task.Prompts`.
    """
    x, first = last.double().cpu().numpy(), (sign > 0).cpu().numpy()
    made = {"difference_of_means": difference_of_means, "probe": probe, "pca": pca}
    return {name: torch.from_numpy(made[name](x, first)).float() for name in BASELINES}
