"""The bed of a planted model: its channels, heads and neurons, each given away once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from bridges.errors import BridgesError
from bridges.sparse import SparseTransformer, SparseTransformerConfig


@dataclass(frozen=True)
class Weight:
    """One nonzero weight, or a bias where there is no source.

    Attributes:
        matrix: ``<layer>.<q|k|v|out|up|down>`` as in `bridges.circuits.weights`, or ``head``.
        target: row of the matrix. source: its column.
    """

    matrix: str
    target: int
    source: int | None
    value: float

    @property
    def edge(self) -> bool:
        """Whether it counts as an edge of a circuit: a weight inside the blocks."""
        return self.source is not None and self.matrix != "head"


@torch.no_grad()
def write(model: SparseTransformer, weights: list[Weight]) -> None:
    """Put weights and biases into a model, in place."""
    for weight in weights:
        linear = matrix(model, weight.matrix)
        if weight.source is None:
            linear.bias[weight.target] = weight.value
        else:
            linear.weight[weight.target, weight.source] = weight.value


def matrix(model: SparseTransformer, name: str) -> nn.Linear:
    """The linear map of this name."""
    if name == "head":
        return model.head
    layer, part = name.split(".")
    block = model.blocks[2 * int(layer) + (part in ("up", "down"))]
    return getattr(block, part)


class Bed:
    """What of a model is still free, in a random order.

    Args:
        shape: of the model. rng: of every draw.
    """

    def __init__(self, shape: SparseTransformerConfig, rng: np.random.Generator):
        self.shape, self.rng = shape, rng
        self._channels = rng.permutation(shape.d_model).tolist()
        self._heads = [rng.permutation(shape.n_head).tolist() for _ in range(shape.n_layer)]
        self._neurons = [rng.permutation(shape.d_mlp).tolist() for _ in range(shape.n_layer)]

    def channel(self) -> int:
        """A channel of the stream that nothing else uses."""
        return self._take(self._channels, "channel of the stream", "d_model")

    def head(self, layer: int) -> list[int]:
        """The channels of a free head of a layer, shuffled."""
        head, width = self._take(self._heads[layer], f"head in layer {layer}", "d_model"), self.shape.d_head
        return (head * width + self.rng.permutation(width)).tolist()

    def neuron(self, layer: int) -> int:
        """A free neuron of a layer."""
        return self._take(self._neurons[layer], f"neuron in layer {layer}", "d_mlp")

    def layer(self, lowest: int = 0) -> int:
        """A layer from ``lowest`` on."""
        return int(self.rng.integers(lowest, self.shape.n_layer))

    def about(self, value: float) -> float:
        """A value within a tenth of this one."""
        return float(value * self.rng.uniform(0.9, 1.1))

    def sign(self) -> float:
        """+1 or −1."""
        return float(self.rng.choice((-1.0, 1.0)))

    def rest(self) -> list[int]:
        """All channels that are still free; they are taken by this."""
        rest, self._channels = self._channels, []
        return rest

    def heads_left(self, layer: int) -> int:
        return len(self._heads[layer])

    def neurons_left(self, layer: int) -> int:
        return len(self._neurons[layer])

    def _take(self, free: list[int], what: str, key: str) -> int:
        if not free:
            raise BridgesError(f"No {what} is free any more: plant fewer behaviours, or make {key} larger.")
        return free.pop()
