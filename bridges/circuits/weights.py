"""Edge matrices: the weight matrices of a stack and the node points each of them joins (paper, section 2.2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from bridges.dense.base import DenseStack
from bridges.dense.points import NodeWeight
from bridges.errors import BridgesError
from bridges.sparse import SparseTransformer
from bridges.stack import ResidualStack

EMBEDDING, LOGITS = "embedding", "logits"


@dataclass(frozen=True)
class EdgeMatrix:
    """One weight matrix between two node points.

    Attributes:
        name: unique in the stack.
        source: the point it reads, or ``embedding`` (columns are then tokens).
        target: the point it writes, ``logits`` (rows are tokens), or for the embedding the stream.
        held: where the model keeps it.
        attention: the block whose heads mix the source over tokens with weights that may sum to less than 1 (a sink),
            or None.
    """

    name: str
    source: str
    target: str
    held: NodeWeight
    attention: Any = None

    @property
    def weight(self) -> Tensor:
        """``[target channels, source channels]``, a view of the parameter where the layout allows."""
        return self.held.weight

    @property
    def bias(self) -> Tensor | None:
        """``[target channels]``, or None."""
        return self.held.bias

    def put(self, weight: Tensor, bias: Tensor | None) -> None:
        """Write other values into the model, in the shapes that both have."""
        self.held.put(weight, bias)


# What each kind of matrix reads and writes.
_ENDS = {
    "q": ("attn_in", "q"),
    "k": ("attn_in", "k"),
    "v": ("attn_in", "v"),
    "out": ("v", "attn_out"),
    "gate": ("mlp_in", "mlp_neuron"),
    "up": ("mlp_in", "mlp_neuron"),
    "down": ("mlp_neuron", "mlp_out"),
}


def edge_matrices(stack: ResidualStack) -> list[EdgeMatrix]:
    """Every weight matrix inside the blocks in forward order, then embedding and unembedding.

    Attention's output matrix reads the channels of ``v``: what a head mixes over tokens are its value channels. Where
    n heads share a head of values there are n output matrices, ``out.i`` of the i-th head of each group, and a gated
    MLP has two matrices into its neurons, from the same nodes to the same nodes: every weight is an edge.

    Raises:
        BridgesError: there is no such list for this stack.
    """
    if isinstance(stack, SparseTransformer):
        return _sparse(stack)
    if isinstance(stack, DenseStack):
        return _dense(stack)
    raise BridgesError(f"The edges of {type(stack).__name__} cannot be listed, so that no circuit is cut out of it.")


def _sparse(stack: SparseTransformer) -> list[EdgeMatrix]:
    found = []
    for layer in range(stack.n_layers):
        parts: dict[str, nn.Module] = {}
        attention = stack.blocks[2 * layer]
        for block in (attention, stack.blocks[2 * layer + 1]):
            parts |= cast(Mapping[str, nn.Module], block._modules)
        for name, (source, target) in _ENDS.items():
            if name not in parts:
                continue
            linear = cast(nn.Linear, parts[name])
            points = f"{layer}.{source}", f"{layer}.{target}"
            mixing = attention if name == "out" else None
            found.append(EdgeMatrix(f"{layer}.{name}", *points, NodeWeight(linear), mixing))
    return [*found, *_outer(cast(nn.Module, stack.tokens), stack.head)]


def _dense(stack: DenseStack) -> list[EdgeMatrix]:
    found = []
    for layer in range(stack.n_layers):
        for name, held in stack.node_weights(layer).items():
            source, target = (f"{layer}.{kind}" for kind in _ENDS[name.split(".")[0]])
            found.append(EdgeMatrix(f"{layer}.{name}", source, target, held))
    return [*found, *_outer(stack.model.get_input_embeddings(), stack.model.get_output_embeddings())]


def _outer(tokens: nn.Module, head: nn.Module) -> list[EdgeMatrix]:
    return [
        EdgeMatrix("tokens", EMBEDDING, "stream", NodeWeight(tokens)),
        EdgeMatrix("head", "stream", LOGITS, NodeWeight(head)),
    ]


@contextmanager
def with_biases(stack: Any) -> Iterator[None]:
    """Give every linear map without a bias one of zeros while the block runs."""
    with ExitStack() as undo:
        for module in stack.modules():
            if isinstance(module, nn.Linear) and module.bias is None:
                module.bias = nn.Parameter(torch.zeros(module.out_features).to(module.weight), requires_grad=False)
                undo.callback(setattr, module, "bias", None)
        yield
