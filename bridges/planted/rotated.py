"""A stack seen in another basis: the "dense" model of a planted world."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bridges.errors import ModelError
from bridges.sparse.folded import Folded
from bridges.stack import ResidualStack


def random_rotation(width: int, seed: int) -> Tensor:
    """An orthogonal matrix ``[width, width]``, uniformly distributed."""
    generator = torch.Generator().manual_seed(seed)
    q, r = torch.linalg.qr(torch.randn(width, width, dtype=torch.float64, generator=generator))
    # Without this the distribution would be the algorithm's.
    return (q * r.diagonal().sign()).float()


class Rotated(nn.Module, ResidualStack):
    """A frozen stack conjugated by a rotation R of its stream: the same logits, every stream h as h·R.

    An RMS norm without gain commutes with R, so that this is again a stack of the same form whose weights are those of
    the inner one times R: no sparse weight is left on the stream. Nodes are the inner stack's.

    Args:
        stack: what is rotated; it is frozen in place.
        rotation: R, ``[d, d]``.
    """

    rotation: Tensor

    def __init__(self, stack: ResidualStack, rotation: Tensor):
        super().__init__()
        self.stack = stack
        self.register_buffer("rotation", rotation)
        self.d_model, self.n_sublayers, self.n_layers = stack.d_model, stack.n_sublayers, stack.n_layers
        self.vocab_size, self.context, self.nodes = stack.vocab_size, stack.context, stack.nodes
        self.requires_grad_(False).eval()

    def embed(self, ids: Tensor) -> Tensor:
        return self.stack.embed(ids) @ self.rotation

    def sublayer(self, index: int, h: Tensor) -> Tensor:
        return self.stack.sublayer(index, h @ self.rotation.T) @ self.rotation

    def unembed(self, h: Tensor, ids: Tensor) -> Tensor:
        return self.stack.unembed(h @ self.rotation.T, ids)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids ``[B, T]`` to logits ``[B, T, V]``."""
        return self.logits(ids)

    def folded(self) -> Folded:
        """Refused: a world has a sparse model of its own.

        Raises:
            ModelError: always.
        """
        raise ModelError("sparse.init=dense: a planted model has no weights to start from; use planted or random.")

    def train(self, mode: bool = True) -> Rotated:
        """Stay in evaluation mode, as pretrained models do."""
        super().train(False)
        return self
