"""OPT: learned positions that start at row 2, ReLU."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from bridges.dense.base import DenseStack
from bridges.dense.points import NodePoint, NodeWeight
from bridges.dense.registry import register
from bridges.errors import ModelError
from bridges.sparse.folded import Folded, FoldedLayer, embedding, read, write


@register("opt")
class OPTStack(DenseStack):
    """OPT as a residual stack."""

    def check_form(self) -> None:
        config = self.model.config
        if not config.do_layer_norm_before or config.word_embed_proj_dim != config.hidden_size:
            raise ModelError(
                "This OPT normalises after each block or projects its embeddings (OPT-350m does both), so "
                "its stream is not a sum of sublayer outputs. Choose another size, such as facebook/opt-125m "
                "or facebook/opt-1.3b."
            )

    @property
    def layers(self) -> Any:
        return self.model.model.decoder.layers

    def embed(self, ids: Tensor) -> Tensor:
        decoder = self.model.model.decoder
        return decoder.embed_tokens(ids) + decoder.embed_positions(None, position_ids=self.positions(ids))

    def attention_out(self, layer: int, h: Tensor) -> Tensor:
        block = self.layers[layer]
        return block.self_attn(hidden_states=block.self_attn_layer_norm(h), attention_mask=self.mask(h))[0]

    def mlp_out(self, layer: int, h: Tensor) -> Tensor:
        block = self.layers[layer]
        return block.fc2(block.activation_fn(block.fc1(block.final_layer_norm(h))))

    def unembed(self, h: Tensor, ids: Tensor) -> Tensor:
        norm = self.model.model.decoder.final_layer_norm
        return self.model.lm_head(h if norm is None else norm(h))

    def node_points(self, layer: int) -> dict[str, NodePoint]:
        block, d = self.layers[layer], self.d_model
        attention, down = block.self_attn, block.fc2
        return {
            "attn_in": NodePoint(block.self_attn_layer_norm, d),
            "q": NodePoint(attention.q_proj, d),
            "k": NodePoint(attention.k_proj, d),
            "v": NodePoint(attention.v_proj, d),
            "attn_out": NodePoint(attention.out_proj, d),
            "mlp_in": NodePoint(block.final_layer_norm, d),
            "mlp_neuron": NodePoint(down, down.in_features, where="input"),
            "mlp_out": NodePoint(down, d),
        }

    def node_weights(self, layer: int) -> dict[str, NodeWeight]:
        block, attention = self.layers[layer], self.layers[layer].self_attn
        return {
            "q": NodeWeight(attention.q_proj),
            "k": NodeWeight(attention.k_proj),
            "v": NodeWeight(attention.v_proj),
            "out": NodeWeight(attention.out_proj),
            "up": NodeWeight(block.fc1),
            "down": NodeWeight(block.fc2),
        }

    def folded(self) -> Folded:
        decoder, config = self.model.model.decoder, self.model.config
        layers = []
        for block in self.layers:
            attention, norm = block.self_attn, block.self_attn_layer_norm
            layers.append(
                FoldedLayer(
                    q=read(norm, attention.q_proj.weight, attention.q_proj.bias),
                    k=read(norm, attention.k_proj.weight, attention.k_proj.bias),
                    v=read(norm, attention.v_proj.weight, attention.v_proj.bias),
                    out=write(attention.out_proj.weight, attention.out_proj.bias),
                    up=read(block.final_layer_norm, block.fc1.weight, block.fc1.bias),
                    down=write(block.fc2.weight, block.fc2.bias),
                )
            )
        if decoder.final_layer_norm is None:
            raise ModelError("This OPT has no final norm, so a stack with one cannot start from its weights.")
        return Folded(
            tokens=embedding(decoder.embed_tokens.weight),
            positions=embedding(decoder.embed_positions.weight[2:]),
            layers=tuple(layers),
            head=read(decoder.final_layer_norm, self.model.lm_head.weight, None),
            d_head=self.d_model // config.num_attention_heads,
            d_mlp=config.ffn_dim,
            activation=self.activation(config.activation_function),
            eps=decoder.final_layer_norm.eps,
        )
