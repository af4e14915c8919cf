"""Configuration of the weight-sparse transformer: every switch that decides its forward pass."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PretrainedConfig

from bridges.config.literals import (
    ACTIVATIONS,
    BIGRAMS,
    NODE_KINDS,
    NORMS,
    POSITIONS,
    RESIDUAL_ACTIVATIONS,
    STREAM_POINTS,
    one_of,
)
from bridges.errors import ConfigError


def kept(fraction: float | None, width: int) -> int:
    """How many entries AbsTopK keeps of a vector of ``width``; at least one, all of them where there is no fraction."""
    return width if fraction is None else max(1, int(fraction * width))


class SparseTransformerConfig(PretrainedConfig):
    """Gao et al. 2025, sections 2.1 and A.1.

    Attributes:
        vocab_size: number of tokens.
        n_layer: layers; each is an attention and an MLP sublayer.
        d_model: width of the residual stream.
        d_mlp: neurons per MLP (None: 4·d_model).
        d_head: width of a head. n_head: heads (None: d_model / d_head).
        context: longest sequence in tokens.
        activation: nonlinearity of the MLP: ``gelu`` (exact), ``gelu_tanh`` (as in GPT-2) or ``relu``.
        activation_fraction: share of each vector that AbsTopK keeps (None or 1: no AbsTopK).
        activation_points: node kinds AbsTopK acts on; ``resid_post_attn`` and ``resid_post_mlp`` may be added.
        bias: biases on every linear map and on the logits.
        head_bias: bias on the logits (None: as ``bias``).
        norm: ``rms``, or ``layer`` for LayerNorm.
        norm_gain: learned gain in each norm (foldable into the weights that follow). norm_bias: learned bias in each
            LayerNorm.
        norm_eps: ε of the norms (None: machine epsilon, as in the released checkpoints; RMSNorm only). At high sparsity
            some tokens keep no embedding weight at all; the gradient of a norm at zero is 1/√ε.
        residual_activation: ``relu`` acts on the stream after every sublayer, before any AbsTopK on it.
        attention_sink: a learned logit with value zero in each head's softmax.
        position: ``none`` (the paper's default), ``learned`` (added to the embedding), or ``d_position`` channels
            beside what attention and MLP read, which are never written to: a table for each read (``concat``), or one
            table of which each read has a norm of its own, learned (``concat_shared``) or fixed (``sinusoidal``).
        d_position: channels of concatenated positions.
        bigram: ``full`` (a vocab × vocab table whose row of the current token is added to the logits), ``low_rank``
            (the product of two tables of rank ``bigram_rank``) or ``none``.
        weight_fraction: share of nonzero weights the model was trained to; informative.
        initializer_range: standard deviation of the initial weights.
    """

    model_type = "sparse_transformer"

    def __init__(
        self,
        vocab_size: int = 2048,
        n_layer: int = 4,
        d_model: int = 1024,
        d_mlp: int | None = None,
        d_head: int = 16,
        n_head: int | None = None,
        context: int = 256,
        activation: str = "gelu",
        activation_fraction: float | None = 0.25,
        activation_points: Sequence[str] = NODE_KINDS,
        bias: bool = True,
        head_bias: bool | None = None,
        norm: str = "rms",
        norm_gain: bool = False,
        norm_bias: bool = False,
        norm_eps: float | None = 1e-5,
        residual_activation: str = "identity",
        attention_sink: bool = True,
        position: str = "none",
        d_position: int = 32,
        bigram: str = "full",
        bigram_rank: int = 256,
        weight_fraction: float = 1.0,
        initializer_range: float = 0.02,
        **kwargs,
    ):
        self.vocab_size = vocab_size
        self.n_layer = n_layer
        self.d_model = d_model
        self.d_mlp = 4 * d_model if d_mlp is None else d_mlp
        self.d_head = d_head
        self.n_head = max(1, d_model // max(1, d_head)) if n_head is None else n_head
        self.context = context
        self.activation = one_of("sparse.activation", activation, ACTIVATIONS)
        self.activation_fraction = activation_fraction
        self.activation_points = [
            one_of("sparse.activation_points", p, (*NODE_KINDS, *STREAM_POINTS)) for p in activation_points
        ]
        self.bias = bias
        self.head_bias = bias if head_bias is None else head_bias
        self.norm = one_of("sparse.norm", norm, NORMS)
        self.norm_gain = norm_gain
        self.norm_bias = norm_bias
        self.norm_eps = norm_eps
        self.residual_activation = one_of("sparse.residual_activation", residual_activation, RESIDUAL_ACTIVATIONS)
        self.attention_sink = attention_sink
        self.position = one_of("sparse.position", position, POSITIONS)
        self.d_position = d_position if position not in ("none", "learned") else 0
        self.bigram = one_of("sparse.bigram", bigram, BIGRAMS)
        self.bigram_rank = bigram_rank
        self.weight_fraction = weight_fraction
        self.initializer_range = initializer_range
        if activation_fraction is not None and not 0 < activation_fraction <= 1:
            raise ConfigError(f"sparse.activation_fraction={activation_fraction} must lie in (0, 1], or be null.")
        for name in ("vocab_size", "n_layer", "d_model", "d_mlp", "d_head", "n_head", "context"):
            if getattr(self, name) < 1:
                raise ConfigError(f"sparse.{name}={getattr(self, name)} must be at least 1.")
        if position not in ("none", "learned") and d_position < 1:
            raise ConfigError(f"sparse.d_position={d_position} must be at least 1.")
        if norm_eps is not None and not norm_eps > 0:
            raise ConfigError(f"sparse.norm_eps={norm_eps} must be greater than 0.")
        if norm == "layer" and norm_eps is None:
            raise ConfigError("sparse.norm=layer needs a number as sparse.norm_eps, such as 1e-5.")
        if norm_bias and not (norm == "layer" and norm_gain):
            raise ConfigError("sparse.norm_bias=true needs sparse.norm=layer and sparse.norm_gain=true.")
        # Set: the unembedding is the embedding's matrix.
        kwargs.setdefault("tie_word_embeddings", False)
        super().__init__(**kwargs)

    def kept(self, width: int) -> int:
        """How many entries AbsTopK keeps of a vector of ``width``; at least one."""
        return kept(self.activation_fraction, width)

    def node_widths(self) -> dict[str, int]:
        """Channels of every node point in forward order, ``{"0.attn_in": d_model + d_position, …}``."""
        read, heads = self.d_model + self.d_position, self.n_head * self.d_head
        by_kind = dict(
            zip(NODE_KINDS, (read, heads, heads, heads, self.d_model, read, self.d_mlp, self.d_model), strict=True)
        )
        return {f"{layer}.{kind}": width for layer in range(self.n_layer) for kind, width in by_kind.items()}
