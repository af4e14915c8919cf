"""A sparse transformer that begins as a copy of the dense model: at step 0 both compute the same function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from bridges.errors import ConfigError
from bridges.sparse.folded import Folded
from bridges.sparse.model import SparseTransformer

# All scores of a pretrained head may lie tens below zero, and a sink above them would take its attention.
NO_SINK = -100.0
# The projection keeps the largest weights: spare ones must not push out those that do the dense model's work.
SPARE_SIZE = 0.1


@torch.no_grad()
def start_from_dense(sparse: SparseTransformer, folded: Folded, seed: int) -> None:
    """Write a dense model's weights into a sparse transformer at least as large, in place.

    The dense stream takes the first channels, the dense heads and neurons come first in theirs. What is left over is
    read by small random weights and written by none: it changes nothing at first, and the first gradients reach it. The
    bigram table counts for nothing yet (`bigram_share` 0). AbsTopK must let everything pass for the two models to
    agree (`activation_fraction` 1), and the dense model's positions must be no fewer than the context.

    Args:
        sparse: with learned positions, the dense model's activation and heads of the same width.
        folded: the dense model.
        seed: of the random weights.

    Raises:
        ConfigError: the sparse model is smaller than the dense one or of another form.
    """
    config = sparse.config
    d, wide = folded.tokens.shape[1], config.d_model
    heads = folded.layers[0].q[0].shape[0]
    for key, have, need in (
        ("sparse.n_layer", config.n_layer, len(folded.layers)),
        ("sparse.d_head", config.d_head, folded.d_head),
    ):
        if have != need:
            raise ConfigError(f"{key}={have}: sparse.init=dense needs the dense model's {need}.")
    for key, have, need in (
        ("sparse.d_model", wide, d),
        ("sparse.d_mlp", config.d_mlp, folded.d_mlp),
        ("heads × d_head", config.n_head * config.d_head, heads),
    ):
        if have < need:
            raise ConfigError(f"{key}={have}: sparse.init=dense needs at least the dense model's {need}.")
    if config.position != "learned" or sparse.positions is None or config.activation != folded.activation:
        raise ConfigError(f"sparse.init=dense needs sparse.position=learned and sparse.activation={folded.activation}.")
    generator = torch.Generator().manual_seed(seed)
    # The norm divides by the RMS over all channels, of which more are zero in a wider stream.
    narrow = (d / wide) ** 0.5

    def fill(linear: nn.Linear, part: tuple[Tensor, Tensor], reads_stream: bool, random: bool) -> None:
        weight, bias = part
        weight = weight * narrow if reads_stream else weight
        rows, columns = weight.shape
        linear.weight.zero_()
        if random:
            spare = torch.randn(linear.weight.shape, generator=generator)
            linear.weight.copy_(SPARE_SIZE * float(weight.std()) * spare)
        linear.weight[:rows, :columns] = weight.to(linear.weight)
        if linear.bias is not None:
            linear.bias.zero_()
            linear.bias[:rows] = bias.to(linear.bias)

    def place(table: Tensor, rows: Tensor) -> None:
        table.zero_()
        table[: len(rows), :d] = rows[: len(table)].to(table)

    place(cast(nn.Embedding, sparse.tokens).weight, folded.tokens)
    place(sparse.positions.weight, folded.positions)
    for index, layer in enumerate(folded.layers):
        attention, mlp = (cast(Mapping, sparse.blocks[2 * index + i]._modules) for i in (0, 1))
        for kind in ("q", "k", "v"):
            fill(attention[kind], getattr(layer, kind), True, True)
        fill(attention["out"], layer.out, False, False)
        fill(mlp["up"], layer.up, True, True)
        fill(mlp["down"], layer.down, False, False)
        sink = sparse.blocks[2 * index]._parameters.get("sink")
        if sink is not None:
            sink.fill_(NO_SINK)
    fill(cast(nn.Linear, sparse.head), folded.head, True, True)
    sparse.bigram_share = 0.0
