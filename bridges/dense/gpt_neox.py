"""GPT-NeoX and Pythia: rotary positions; attention and MLP read one stream, so a layer is one sublayer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bridges.dense.base import DenseStack
from bridges.dense.points import NodePoint, NodeWeight
from bridges.dense.registry import register


@register("gpt_neox")
class GPTNeoXStack(DenseStack):
    """GPT-NeoX as a residual stack, with or without the parallel residual."""

    @property
    def layers(self) -> Any:
        return self.model.gpt_neox.layers

    @property
    def parallel(self) -> bool:
        return self.model.config.use_parallel_residual

    def embed(self, ids: Tensor) -> Tensor:
        return self.model.gpt_neox.embed_in(ids)

    def attention_out(self, layer: int, h: Tensor) -> Tensor:
        block = self.layers[layer]
        return block.attention(
            block.input_layernorm(h),
            attention_mask=self.mask(h),
            position_embeddings=self.per_length("rotary", h, self._rotary),
        )[0]

    def mlp_out(self, layer: int, h: Tensor) -> Tensor:
        block = self.layers[layer]
        return block.mlp(block.post_attention_layernorm(h))

    def unembed(self, h: Tensor, ids: Tensor) -> Tensor:
        return self.model.get_output_embeddings()(self.model.gpt_neox.final_layer_norm(h))

    def _rotary(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.gpt_neox.rotary_emb(x, torch.arange(x.shape[1], device=x.device)[None])

    def node_points(self, layer: int) -> dict[str, NodePoint]:
        block, d = self.layers[layer], self.d_model
        fused, down = block.attention.query_key_value, block.mlp.dense_4h_to_h
        q, k, v = self._fused_rows()
        return {
            "attn_in": NodePoint(block.input_layernorm, d),
            "q": NodePoint(fused, d, columns=q),
            "k": NodePoint(fused, d, columns=k),
            "v": NodePoint(fused, d, columns=v),
            "attn_out": NodePoint(block.attention.dense, d),
            "mlp_in": NodePoint(block.post_attention_layernorm, d),
            "mlp_neuron": NodePoint(down, down.in_features, where="input"),
            "mlp_out": NodePoint(down, d),
        }

    def node_weights(self, layer: int) -> dict[str, NodeWeight]:
        block = self.layers[layer]
        fused = block.attention.query_key_value
        return {
            **{kind: NodeWeight(fused, rows) for kind, rows in zip("qkv", self._fused_rows(), strict=True)},
            "out": NodeWeight(block.attention.dense),
            "up": NodeWeight(block.mlp.dense_h_to_4h),
            "down": NodeWeight(block.mlp.dense_4h_to_h),
        }

    def _fused_rows(self) -> Tensor:
        """``[3, d]``: where q, k and v are in the fused projection, head by head, each head's three in turn."""
        heads = self.model.config.num_attention_heads
        return torch.arange(3 * self.d_model).view(heads, 3, -1).transpose(0, 1).reshape(3, self.d_model)
