"""A dense model rewritten without LayerNorm, as the weights of a stack whose norms are plain RMS norms.

LayerNorm is centring, RMS normalisation, a gain and a bias. Centring can be done by whatever writes to the stream,
since a mean that is never written need not be removed; gain and bias belong to the linear map that reads. What is left
is an RMS norm without parameters, and the function is the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class FoldedLayer:
    """One layer; every weight ``[out, in]``, every bias ``[out]``. Norms are folded into what reads, centring into
    what writes."""

    q: tuple[Tensor, Tensor]
    k: tuple[Tensor, Tensor]
    v: tuple[Tensor, Tensor]
    out: tuple[Tensor, Tensor]
    up: tuple[Tensor, Tensor]
    down: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Folded:
    """A dense model as folded weights.

    Attributes:
        tokens: ``[V, d]``. positions: ``[T, d]``, added to the tokens.
        layers: from first to last.
        head: weight ``[V, d]`` and bias ``[V]``.
        d_head: width of a head. d_mlp: neurons per MLP.
        activation: the MLP's nonlinearity, by `bridges.config.literals.ACTIVATIONS`.
        eps: of the norms.
    """

    tokens: Tensor
    positions: Tensor
    layers: tuple[FoldedLayer, ...]
    head: tuple[Tensor, Tensor]
    d_head: int
    d_mlp: int
    activation: str
    eps: float


def read(norm: nn.Module, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """``weight [out, in]`` and bias behind a LayerNorm, with the norm's gain and bias folded in."""
    gain, offset = norm.weight.detach().float(), norm.bias.detach().float()  # type: ignore[union-attr, operator]
    weight = weight.detach().float()
    shift = weight @ offset
    return weight * gain, shift if bias is None else shift + bias.detach().float()


def write(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """``weight [d, in]`` and bias that write to the stream, with the mean over channels taken out."""
    weight = weight.detach().float()
    bias = weight.new_zeros(len(weight)) if bias is None else bias.detach().float()
    return weight - weight.mean(0), bias - bias.mean()


def embedding(rows: Tensor) -> Tensor:
    """``[n, d]`` rows that are added to the stream, each with its mean taken out."""
    rows = rows.detach().float()
    return rows - rows.mean(1, keepdim=True)
