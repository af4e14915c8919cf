"""What each part of the two models is stepped by: which optimizer, at which peak rate."""

from __future__ import annotations

from bridges.bridge import Bridges
from bridges.config import TrainConfig
from bridges.sparse import SparseTransformer
from bridges.training.optimizers import OptimizerSet, ParameterGroup, build_optimizer

# The number of inputs that the bridges' learning rate is meant for. What one step of Adam changes in an output grows
# with it: beyond, the rate falls as one over the width (Yang et al. 2022, "Tensor Programs V").
RATE_WIDTH = 256


def optimizer_for(train: TrainConfig, sparse: SparseTransformer, bridges: Bridges) -> OptimizerSet:
    """The optimizer of a run: AdamW or Muon on the blocks' matrices, AdamW on the rest, bridges at a rate of their own.

    Args:
        sparse: with what ``freeze_sparse`` and ``train_bigram`` leave out already frozen.
    """
    covered = sparse.sparse_matrices()
    blocks = [p for name, p in covered.items() if name.startswith("blocks.")]
    ends = [p for name, p in covered.items() if not name.startswith("blocks.")]
    inside = {id(p) for p in covered.values()}
    rest = [p for p in sparse.parameters() if p.requires_grad and id(p) not in inside]
    muon = train.optimizer == "muon"
    groups = [
        ParameterGroup(blocks, train.muon_lr if muon else train.lr, muon=muon, boosted=True),
        ParameterGroup(ends, train.lr, boosted=True),
        ParameterGroup(rest, train.lr),
    ]
    groups = [] if train.freeze_sparse else groups
    # Biases have one input, whatever the width.
    shape, rate = bridges.config, train.bridge_lr or train.lr
    for part, width in (("encoder", shape.d_dense), ("decoder", shape.d_sparse)):
        params = [p for name, p in bridges.named_parameters() if f".{part}." in name]
        matrices, biases = ([p for p in params if (p.ndim > 1) == wanted] for wanted in (True, False))
        groups.append(ParameterGroup(matrices, rate * min(1.0, RATE_WIDTH / width)))
        groups.append(ParameterGroup(biases, rate))
    return build_optimizer(groups, betas=(train.beta1, train.beta2), eps=train.eps, weight_decay=train.weight_decay)
