"""Llama and its kin: rotary positions, RMS norms, gated MLPs, grouped keys and values.

SmolLM2 is a Llama. The kin differ in which layers look through a sliding window, in norms after the blocks
(Gemma 2 and 3), and in a cap on the logits.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bridges.dense.base import DenseStack
from bridges.dense.points import NodePoint, NodeWeight
from bridges.dense.registry import register


@register("llama", "gemma")
class LlamaStack(DenseStack):
    """Llama (and Gemma, whose embedding module scales itself) as a residual stack."""

    @property
    def layers(self) -> Any:
        return self.model.model.layers

    def sliding(self, layer: int) -> bool:
        """Whether attention in ``layer`` looks through a sliding window."""
        return False

    def rotary(self, layer: int, h: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the positions, ``[1, T, d_head]`` each."""
        return self.per_length("rotary", h, self._rotary)

    def embed(self, ids: Tensor) -> Tensor:
        return self.model.model.embed_tokens(ids)

    def attention_out(self, layer: int, h: Tensor) -> Tensor:
        block = self.layers[layer]
        return block.self_attn(
            hidden_states=block.input_layernorm(h),
            position_embeddings=self.rotary(layer, h),
            attention_mask=self.mask(h, self.sliding(layer)),
        )[0]

    def mlp_out(self, layer: int, h: Tensor) -> Tensor:
        block = self.layers[layer]
        return block.mlp(block.post_attention_layernorm(h))

    def unembed(self, h: Tensor, ids: Tensor) -> Tensor:
        return self.model.lm_head(self.model.model.norm(h))

    def _rotary(self, x: Tensor, *layer_type: str) -> tuple[Tensor, Tensor]:
        return self.model.model.rotary_emb(x, torch.arange(x.shape[1], device=x.device)[None], *layer_type)

    def node_points(self, layer: int) -> dict[str, NodePoint]:
        block, d = self.layers[layer], self.d_model
        attention, down = block.self_attn, block.mlp.down_proj
        return {
            "attn_in": NodePoint(block.input_layernorm, d),
            "q": NodePoint(attention.q_proj, attention.q_proj.out_features),
            "k": NodePoint(attention.k_proj, attention.k_proj.out_features),
            "v": NodePoint(attention.v_proj, attention.v_proj.out_features),
            "attn_out": NodePoint(attention.o_proj, d),
            "mlp_in": NodePoint(block.post_attention_layernorm, d),
            "mlp_neuron": NodePoint(down, down.in_features, where="input"),
            "mlp_out": NodePoint(down, d),
        }

    def node_weights(self, layer: int) -> dict[str, NodeWeight]:
        attention, mlp = self.layers[layer].self_attn, self.layers[layer].mlp
        return {
            "q": NodeWeight(attention.q_proj),
            "k": NodeWeight(attention.k_proj),
            "v": NodeWeight(attention.v_proj),
            **self._mixed(attention.o_proj, attention.num_key_value_groups, attention.head_dim),
            "gate": NodeWeight(mlp.gate_proj),
            "up": NodeWeight(mlp.up_proj),
            "down": NodeWeight(mlp.down_proj),
        }

    @staticmethod
    def _mixed(out: nn.Linear, shared: int, d_head: int) -> dict[str, NodeWeight]:
        """Attention's output matrix, or ``shared`` of them where so many heads mix the same head of values."""
        if shared == 1:
            return {"out": NodeWeight(out)}
        columns = torch.arange(out.in_features).view(-1, shared, d_head).transpose(0, 1).flatten(1)
        return {f"out.{i}": NodeWeight(out, columns=columns[i]) for i in range(shared)}


@register("mistral")
class MistralStack(LlamaStack):
    """Mistral: every layer looks through the window, where there is one."""

    def sliding(self, layer: int) -> bool:
        return self.model.config.sliding_window is not None


@register("qwen2", "qwen3")
class QwenStack(LlamaStack):
    """Qwen 2 and 3: the configuration says which layers look through a window."""

    def sliding(self, layer: int) -> bool:
        return self.model.config.layer_types[layer] == "sliding_attention"


@register("gemma2")
class Gemma2Stack(QwenStack):
    """Gemma 2: norms before and after each block, capped attention scores and logits."""

    attn_implementation: ClassVar[str] = "eager"  # no other one caps the scores

    def attention_out(self, layer: int, h: Tensor) -> Tensor:
        return self.layers[layer].post_attention_layernorm(super().attention_out(layer, h))

    def mlp_out(self, layer: int, h: Tensor) -> Tensor:
        block = self.layers[layer]
        return block.post_feedforward_layernorm(block.mlp(block.pre_feedforward_layernorm(h)))

    def unembed(self, h: Tensor, ids: Tensor) -> Tensor:
        logits = super().unembed(h, ids)
        cap = self.model.config.final_logit_softcapping
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def node_points(self, layer: int) -> dict[str, NodePoint]:
        block, d = self.layers[layer], self.d_model
        return super().node_points(layer) | {
            "attn_out": NodePoint(block.post_attention_layernorm, d),
            "mlp_in": NodePoint(block.pre_feedforward_layernorm, d),
            "mlp_out": NodePoint(block.post_feedforward_layernorm, d),
        }


@register("gemma3_text")
class Gemma3Stack(Gemma2Stack):
    """Gemma 3 (text): as Gemma 2, with rotary frequencies of their own for layers with a window."""

    attn_implementation: ClassVar[str] = "sdpa"

    def rotary(self, layer: int, h: Tensor) -> tuple[Tensor, Tensor]:
        kind = self.model.config.layer_types[layer]
        return self.per_length(("rotary", kind), h, lambda x: self._rotary(x, kind))
