"""Pretrained Hugging Face causal language models as residual stacks."""

from bridges.dense.base import DenseStack
from bridges.dense.load import load_dense, wrap_dense
from bridges.dense.parity import check_parity
from bridges.dense.points import NodePoint
from bridges.dense.registry import FAMILIES, family_of, register

__all__ = [
    "FAMILIES",
    "DenseStack",
    "NodePoint",
    "check_parity",
    "family_of",
    "load_dense",
    "register",
    "wrap_dense",
]
