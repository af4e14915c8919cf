"""GPT-Neo: learned positions, alternating global and local attention, which its own modules mask."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from bridges.dense.base import DenseStack
from bridges.dense.points import NodePoint, NodeWeight
from bridges.dense.registry import register


@register("gpt_neo")
class GPTNeoStack(DenseStack):
    """GPT-Neo as a residual stack."""

    attn_implementation: ClassVar[str] = "eager"  # transformers has no other for it

    @property
    def layers(self) -> Any:
        return self.model.transformer.h

    def embed(self, ids: Tensor) -> Tensor:
        body = self.model.transformer
        return body.wte(ids) + body.wpe(self.positions(ids))

    def attention_out(self, layer: int, h: Tensor) -> Tensor:
        block = self.layers[layer]
        return block.attn(block.ln_1(h), attention_mask=self.mask(h))[0]

    def mlp_out(self, layer: int, h: Tensor) -> Tensor:
        block = self.layers[layer]
        return block.mlp(block.ln_2(h))

    def unembed(self, h: Tensor, ids: Tensor) -> Tensor:
        return self.model.lm_head(self.model.transformer.ln_f(h))

    def node_points(self, layer: int) -> dict[str, NodePoint]:
        block, d = self.layers[layer], self.d_model
        attention, down = block.attn.attention, block.mlp.c_proj
        return {
            "attn_in": NodePoint(block.ln_1, d),
            "q": NodePoint(attention.q_proj, d),
            "k": NodePoint(attention.k_proj, d),
            "v": NodePoint(attention.v_proj, d),
            "attn_out": NodePoint(attention.out_proj, d),
            "mlp_in": NodePoint(block.ln_2, d),
            "mlp_neuron": NodePoint(down, down.in_features, where="input"),
            "mlp_out": NodePoint(down, d),
        }

    def node_weights(self, layer: int) -> dict[str, NodeWeight]:
        block, attention = self.layers[layer], self.layers[layer].attn.attention
        return {
            "q": NodeWeight(attention.q_proj),
            "k": NodeWeight(attention.k_proj),
            "v": NodeWeight(attention.v_proj),
            "out": NodeWeight(attention.out_proj),
            "up": NodeWeight(block.mlp.c_fc),
            "down": NodeWeight(block.mlp.c_proj),
        }
