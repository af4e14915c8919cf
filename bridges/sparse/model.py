"""The weight-sparse transformer as a Hugging Face model and a residual stack."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from bridges.errors import CheckpointError, in_brief
from bridges.nodes import NodeBus
from bridges.sparse.config import SparseTransformerConfig, kept
from bridges.sparse.ops import abs_topk, autocast_once, gelu, linear, rms_norm, sink_attention
from bridges.stack import ResidualStack

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": gelu,
    "gelu_tanh": partial(gelu, approximate="tanh"),
    "relu": F.relu,
}


class SparseLinear(nn.Linear):
    """A linear map whose weight the trainer keeps sparse; its product is the replaceable `ops.linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class _RMSNorm(nn.RMSNorm):
    """RMSNorm by the replaceable `ops.rms_norm`."""

    def forward(self, x: Tensor, into_linear: bool = False) -> Tensor:
        return rms_norm(x, self.weight, self.eps, into_linear)


class _LayerNorm(nn.LayerNorm):
    def forward(self, x: Tensor, into_linear: bool = False) -> Tensor:
        return super().forward(x)


def _norm(config: SparseTransformerConfig, width: int) -> nn.Module:
    if config.norm == "rms":
        return _RMSNorm(width, eps=config.norm_eps, elementwise_affine=config.norm_gain)
    assert config.norm_eps is not None  # the configuration sees to it
    return _LayerNorm(width, config.norm_eps, elementwise_affine=config.norm_gain, bias=config.norm_bias)


def sinusoids(context: int, width: int) -> Tensor:
    """Fixed positions ``[context, width]``: sines, then cosines, of periods spread evenly on a logarithmic scale from 4
    tokens to ``context``; an odd last channel is zero."""
    periods = torch.logspace(math.log10(4.0), math.log10(max(4.0, float(context))), max(1, width // 2))
    angles = torch.arange(context)[:, None] * (2 * math.pi / periods)
    table = torch.zeros(context, width)
    waves = torch.cat([angles.sin(), angles.cos()], 1)[:, :width]
    table[:, : waves.shape[1]] = waves
    return table


class _Reader(nn.Module):
    """What a sublayer reads: the normalised stream, with the position channels beside it where there are any."""

    def __init__(self, config: SparseTransformerConfig):
        super().__init__()
        self.norm = _norm(config, config.d_model)
        own = config.position == "concat"
        self.positions = nn.Embedding(config.context, config.d_position) if own else None
        self.position_norm = _norm(config, config.d_position) if config.d_position and not own else None

    def forward(self, h: Tensor, table: Tensor | None = None) -> Tensor:
        """``[B, T, d_model]`` to ``[B, T, d_model + d_position]``; ``table`` ``[context, d_position]`` holds the
        positions that all reads share."""
        x = self.norm(h)
        if self.positions is not None:
            p = rms_norm(self.positions.weight[: h.shape[1]], None, None)
        elif self.position_norm is not None and table is not None:
            p = self.position_norm(table[: h.shape[1]])
        else:
            return x
        return torch.cat([x, p.to(x.dtype).expand(h.shape[0], -1, -1)], dim=-1)


class _Attention(nn.Module):
    def __init__(self, config: SparseTransformerConfig):
        super().__init__()
        read, heads = config.d_model + config.d_position, config.n_head * config.d_head
        self.n_head = config.n_head
        self.read = _Reader(config)
        self.q = SparseLinear(read, heads, bias=config.bias)
        self.k = SparseLinear(read, heads, bias=config.bias)
        self.v = SparseLinear(read, heads, bias=config.bias)
        self.out = SparseLinear(heads, config.d_model, bias=config.bias)
        self.sink = nn.Parameter(torch.zeros(config.n_head)) if config.attention_sink else None
        # While edges are ablated: weights [d_model, heads] and values [heads] that are mixed for every token instead.
        self.constant: tuple[Tensor, Tensor] | None = None

    def forward(self, h: Tensor, node, table: Tensor | None = None) -> Tensor:
        x = autocast_once(node("attn_in", self.read(h, table)))
        q, k, v = (
            node(kind, part(x)).unflatten(-1, (self.n_head, -1)).transpose(1, 2)
            for kind, part in (("q", self.q), ("k", self.k), ("v", self.v))
        )
        mixed = sink_attention(q, k, v, self.sink).transpose(1, 2).flatten(2)
        written = self.out(mixed)
        if self.constant is not None:
            weight, value = self.constant
            value = value.to(v.dtype).expand(*h.shape[:2], -1).unflatten(-1, (self.n_head, -1)).transpose(1, 2)
            same = sink_attention(q, k, value.contiguous(), self.sink).transpose(1, 2).flatten(2)
            written = written + F.linear(same, weight.to(same.dtype))
        return node("attn_out", written)


class _MLP(nn.Module):
    def __init__(self, config: SparseTransformerConfig):
        super().__init__()
        self.read = _Reader(config)
        self.up = SparseLinear(config.d_model + config.d_position, config.d_mlp, bias=config.bias)
        self.down = SparseLinear(config.d_mlp, config.d_model, bias=config.bias)
        self.activation = _ACTIVATIONS[config.activation]

    def forward(self, h: Tensor, node, table: Tensor | None = None) -> Tensor:
        x = node("mlp_in", self.read(h, table))
        return node("mlp_out", self.down(node("mlp_neuron", self.activation(self.up(x)))))


class SparseTransformer(ResidualStack, PreTrainedModel):
    """GPT-2-like, pre-norm, untied, AbsTopK at every node kind (paper, sections 2.1 and A.1).

    A residual stack of ``2·n_layer`` sublayers, attention and MLP in turn. Node interventions act after AbsTopK, so
    that what is recorded is what the model goes on with.
    """

    config_class = SparseTransformerConfig
    base_model_prefix = ""
    # Where `config.tie_word_embeddings` is set.
    _tied_weights_keys = {"head.weight": "tokens.weight"}  # noqa: RUF012
    bigram: nn.Module | None
    config: SparseTransformerConfig

    def __init__(self, config: SparseTransformerConfig):
        super().__init__(config)
        self.d_model, self.vocab_size, self.context = config.d_model, config.vocab_size, config.context
        self.n_layers, self.n_sublayers = config.n_layer, 2 * config.n_layer
        self.tokens = nn.Embedding(config.vocab_size, config.d_model)
        if config.position in ("none", "concat"):
            self.positions = None
        else:
            self.positions = nn.Embedding(config.context, config.d_position or config.d_model)
            self.positions.requires_grad_(config.position != "sinusoidal")
        self.blocks = nn.ModuleList(part(config) for _ in range(config.n_layer) for part in (_Attention, _MLP))
        self.norm = _norm(config, config.d_model)
        self.head = SparseLinear(config.d_model, config.vocab_size, bias=config.head_bias)
        if config.bigram == "full":
            self.bigram = nn.Embedding(config.vocab_size, config.vocab_size)
        elif config.bigram == "low_rank":
            self.bigram = nn.Sequential(
                nn.Embedding(config.vocab_size, config.bigram_rank),
                nn.Linear(config.bigram_rank, config.vocab_size, bias=False),
            )
        else:
            self.bigram = None
        # What AbsTopK keeps at this moment of training; a finished model keeps what its configuration says.
        self.activation_fraction = config.activation_fraction
        # How much of the bigram table counts at this moment of training; in a finished model all of it.
        self.bigram_share = 1.0
        self.nodes = NodeBus(config.node_widths())
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif module is self.positions and self.config.position == "sinusoidal":
            module.weight.copy_(sinusoids(self.config.context, self.config.d_position))
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.0 if module is self.bigram else std)
        elif isinstance(module, nn.RMSNorm | nn.LayerNorm) and module.weight is not None:
            nn.init.ones_(module.weight)
            if isinstance(module, nn.LayerNorm) and module.bias is not None:
                nn.init.zeros_(module.bias)

    # --- the stack ------------------------------------------------------------------------------------------------

    def _top_k(self, kind: str, x: Tensor) -> Tensor:
        if kind not in self.config.activation_points:
            return x
        return abs_topk(x, kept(self.activation_fraction, x.shape[-1]))

    def embed(self, ids: Tensor) -> Tensor:
        h = self.tokens(ids)
        if self.positions is not None and not self.config.d_position:
            h = h + self.positions.weight[: ids.shape[1]]
        return h

    def sublayer(self, index: int, h: Tensor) -> Tensor:
        layer = index // 2

        def node(kind: str, x: Tensor) -> Tensor:
            return self.nodes(f"{layer}.{kind}", self._top_k(kind, x))

        # The stream is kept in fp32 under autocast: it is a sum of many small writes.
        shared = self.positions.weight if self.positions is not None and self.config.d_position else None
        h = h + self.blocks[index](h, node, shared).to(h.dtype)
        if self.config.residual_activation == "relu":
            h = torch.relu(h)
        return self._top_k("resid_post_mlp" if index % 2 else "resid_post_attn", h)

    def unembed(self, h: Tensor, ids: Tensor) -> Tensor:
        logits = self.head(self.norm(h, into_linear=True))
        if self.bigram is None or not self.bigram_share:
            return logits
        # Streams that share their tokens, as those of hybrids do, share one look into the table.
        table = self.bigram(ids[:1] if ids.stride(0) == 0 else ids)
        return logits + (table * self.bigram_share if self.bigram_share < 1 else table)

    # --- Hugging Face ---------------------------------------------------------------------------------------------

    def forward(self, input_ids: Tensor, labels: Tensor | None = None, **_) -> CausalLMOutput:
        """Logits ``[B, T, V]``, and the mean next-token cross-entropy where ``labels`` ``[B, T]`` are given."""
        logits = self.logits(input_ids)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten())
        return CausalLMOutput(loss=loss, logits=logits)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.tokens = cast(nn.Embedding, value)

    # --- sparsity -------------------------------------------------------------------------------------------------

    def sparse_matrices(self) -> dict[str, nn.Parameter]:
        """The weight matrices that the sparsity budget covers, by name.

        Embedding, unembedding and every matrix of the blocks; neither the bigram table nor positions, norms, biases
        and sinks (paper, section 2.1).
        """
        chosen = {"tokens.weight": cast(nn.Parameter, self.tokens.weight)}
        for name, module in self.named_modules():
            # A tied unembedding is the embedding's matrix, which is here already.
            if isinstance(module, SparseLinear) and module.weight is not self.tokens.weight:
                chosen[f"{name}.weight"] = cast(nn.Parameter, module.weight)
        return chosen


def load_sparse(folder: str | Path) -> SparseTransformer:
    """Read the sparse model that `save_pretrained` wrote to ``folder``.

    Raises:
        CheckpointError: there is none, a file is damaged, or weights are missing.
    """
    if not Path(folder).is_dir():
        raise CheckpointError(f"The sparse model in {folder} cannot be read: there is no such folder.")
    loading: Any = SparseTransformer.from_pretrained  # returns a pair, which its type denies
    try:
        model, info = loading(folder, output_loading_info=True, weights_only=True, local_files_only=True)
    except Exception as error:
        raise CheckpointError(f"The sparse model in {folder} cannot be read: {in_brief(error)}.") from error
    if lost := sorted(info["missing_keys"]):
        raise CheckpointError(f"The sparse model in {folder} is not whole: {len(lost)} weights such as {lost[0]} lack.")
    return model


AutoConfig.register(SparseTransformerConfig.model_type, SparseTransformerConfig, exist_ok=True)
AutoModelForCausalLM.register(SparseTransformerConfig, SparseTransformer, exist_ok=True)
