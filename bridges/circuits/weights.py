"""Edge matrices: the weight matrices of a stack and the node points each of them joins (paper, section 2.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from bridges.dense.base import DenseStack
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
        weight: ``[target channels, source channels]``, a view of the parameter where the layout allows.
        bias: ``[target channels]``, or None.
        attention: the block whose heads mix the source over tokens with weights that may sum to less than 1 (a sink),
            or None.
    """

    name: str
    source: str
    target: str
    weight: Tensor
    bias: Tensor | None
    attention: Any = None


_INSIDE = (
    ("q", "attn_in", "q"),
    ("k", "attn_in", "k"),
    ("v", "attn_in", "v"),
    ("out", "v", "attn_out"),
    ("up", "mlp_in", "mlp_neuron"),
    ("down", "mlp_neuron", "mlp_out"),
)


def edge_matrices(stack: ResidualStack) -> list[EdgeMatrix]:
    """Every weight matrix inside the blocks in forward order, then embedding and unembedding.

    Attention's output matrix reads the channels of ``v``: what a head mixes over tokens are its value channels.

    Raises:
        BridgesError: there is no such list for this architecture yet.
    """
    if isinstance(stack, SparseTransformer):
        return _sparse(stack)
    model = getattr(stack, "model", None)
    if isinstance(stack, DenseStack) and model is not None and model.config.model_type == "gpt2":
        return _gpt2(stack)
    kind = type(stack).__name__ if model is None else repr(model.config.model_type)
    raise BridgesError(f"The edges of {kind} cannot be listed: circuits are cut out of sparse transformers and gpt2.")


def _sparse(stack: SparseTransformer) -> list[EdgeMatrix]:
    found = []
    for layer in range(stack.n_layers):
        parts: dict[str, nn.Module] = {}
        attention = stack.blocks[2 * layer]
        for block in (attention, stack.blocks[2 * layer + 1]):
            parts |= cast(Mapping[str, nn.Module], block._modules)
        for name, source, target in _INSIDE:
            linear = cast(nn.Linear, parts[name])
            points = f"{layer}.{source}", f"{layer}.{target}"
            mixing = attention if name == "out" else None
            found.append(EdgeMatrix(f"{layer}.{name}", *points, linear.weight, linear.bias, mixing))
    tokens = cast(nn.Embedding, stack.tokens)
    found.append(EdgeMatrix("tokens", EMBEDDING, "stream", tokens.weight.T, None))
    return [*found, EdgeMatrix("head", "stream", LOGITS, stack.head.weight, stack.head.bias)]


def _gpt2(stack: DenseStack) -> list[EdgeMatrix]:
    found = []
    for layer, block in enumerate(cast(Any, stack).layers):
        # Conv1D keeps its weight as [in, out].
        fused, bias = block.attn.c_attn.weight.T.chunk(3), block.attn.c_attn.bias.chunk(3)
        named = dict(zip(("q", "k", "v"), zip(fused, bias, strict=True), strict=True))
        for name, module in (("out", block.attn.c_proj), ("up", block.mlp.c_fc), ("down", block.mlp.c_proj)):
            named[name] = (module.weight.T, module.bias)
        for name, source, target in _INSIDE:
            weight, offset = named[name]
            found.append(EdgeMatrix(f"{layer}.{name}", f"{layer}.{source}", f"{layer}.{target}", weight, offset))
    found.append(EdgeMatrix("tokens", EMBEDDING, "stream", stack.model.transformer.wte.weight.T, None))
    return [*found, EdgeMatrix("head", "stream", LOGITS, stack.model.lm_head.weight, None)]
