"""GPT-2 and DistilGPT-2: learned positions, one fused projection to q, k and v."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from bridges.dense.base import DenseStack
from bridges.dense.points import NodePoint
from bridges.dense.registry import register


@register("gpt2")
class GPT2Stack(DenseStack):
    """GPT-2 as a residual stack."""

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
        fused, down = block.attn.c_attn, block.mlp.c_proj
        return {
            "attn_in": NodePoint(block.ln_1, d),
            "q": NodePoint(fused, d, columns=slice(0, d)),
            "k": NodePoint(fused, d, columns=slice(d, 2 * d)),
            "v": NodePoint(fused, d, columns=slice(2 * d, 3 * d)),
            "attn_out": NodePoint(block.attn.c_proj, d),
            "mlp_in": NodePoint(block.ln_2, d),
            "mlp_neuron": NodePoint(down, down.weight.shape[0], where="input"),
            "mlp_out": NodePoint(down, d),
        }
