"""The weight-sparse transformer, its AbsTopK, the L0 projection and its schedule."""

from bridges.sparse.config import SparseTransformerConfig
from bridges.sparse.model import SparseTransformer, load_sparse
from bridges.sparse.projection import Projector, budget
from bridges.sparse.schedule import Schedule

__all__ = ["Projector", "Schedule", "SparseTransformer", "SparseTransformerConfig", "budget", "load_sparse"]
