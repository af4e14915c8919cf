"""GPT-2 and DistilGPT-2: learned positions, one fused projection to q, k and v."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from bridges.dense.base import DenseStack
from bridges.dense.points import NodePoint, NodeWeight
from bridges.dense.registry import register
from bridges.sparse.folded import Folded, FoldedLayer, embedding, read, write


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

    def node_weights(self, layer: int) -> dict[str, NodeWeight]:
        block, d = self.layers[layer], self.d_model
        fused = block.attn.c_attn
        return {
            "q": NodeWeight(fused, slice(0, d)),
            "k": NodeWeight(fused, slice(d, 2 * d)),
            "v": NodeWeight(fused, slice(2 * d, 3 * d)),
            "out": NodeWeight(block.attn.c_proj),
            "up": NodeWeight(block.mlp.c_fc),
            "down": NodeWeight(block.mlp.c_proj),
        }

    def folded(self) -> Folded:
        body, config = self.model.transformer, self.model.config
        layers = []
        for block in self.layers:
            # Conv1D keeps its weight as [in, out].
            fused, bias = block.attn.c_attn.weight.T, block.attn.c_attn.bias
            q, k, v = (read(block.ln_1, w, b) for w, b in zip(fused.chunk(3), bias.chunk(3), strict=True))
            layers.append(
                FoldedLayer(
                    q=q,
                    k=k,
                    v=v,
                    out=write(block.attn.c_proj.weight.T, block.attn.c_proj.bias),
                    up=read(block.ln_2, block.mlp.c_fc.weight.T, block.mlp.c_fc.bias),
                    down=write(block.mlp.c_proj.weight.T, block.mlp.c_proj.bias),
                )
            )
        return Folded(
            tokens=embedding(body.wte.weight),
            positions=embedding(body.wpe.weight),
            layers=tuple(layers),
            head=read(body.ln_f, self.model.lm_head.weight, None),
            d_head=self.d_model // config.n_head,
            d_mlp=self.layers[0].mlp.c_fc.weight.shape[1],
            activation=self.activation(config.activation_function),
            eps=config.layer_norm_epsilon,
        )
