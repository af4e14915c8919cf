"""Tiny random models with planted massive activations, as pretrained models have them.

Sun et al. 2024, "Massive Activations in Large Language Models": from some layer on, the stream of a text's first token
is more than a hundred times as long as that of others, in a single channel; and some channels vary a hundred times as
much as most do, at every token. Both are written by MLPs here, as there, and norms behind them are scaled so that the
model still reads its other channels. What comes out is an ordinary Hugging Face model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from bridges.dense import family_of

# Channels of the stream: what the first token's embedding says, where its massive activation is, and which channel
# varies massively at all tokens.
FLAG, SINK, WIDE, TWIN = 0, 1, 2, 3
# Layers whose MLPs write them.
WIDE_LAYER, SINK_LAYER = 0, 1
# Length of the first token's stream, in those of others; deviation of the wide channel, in that of the median one as it
# is before the later layers, which add to it: about a hundred behind them.
LENGTH, SPREAD = 150.0, 200.0
# Mean of the wide channel, in its deviations; deviation of the logits.
FAR, LOGITS = 6.0, 2.0

SIZE = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 128}
ROTARY = {**SIZE, "intermediate_size": 96, "head_dim": 12}


def configs(vocab: int) -> dict[str, hf.PreTrainedConfig]:
    """One configuration of every family, whose first token is the last one of the vocabulary."""
    ends: dict[str, Any] = {"vocab_size": vocab, "bos_token_id": vocab - 1, "eos_token_id": vocab - 1}
    ends["pad_token_id"] = None
    return {
        "gpt2": hf.GPT2Config(**ends, n_embd=48, n_layer=3, n_head=4, n_positions=128),
        "llama": hf.LlamaConfig(**ends, **ROTARY, num_key_value_heads=4),
        "gemma": hf.GemmaConfig(**ends, **ROTARY, num_key_value_heads=1),
        "pythia": hf.GPTNeoXConfig(**ends, **SIZE, intermediate_size=96),
        "smollm2": hf.LlamaConfig(**ends, **ROTARY, num_key_value_heads=2, tie_word_embeddings=True),
    }


FAMILIES = tuple(configs(8))


@dataclass
class Layer:
    """The pieces of a layer that are written to; matrices as views ``[out, in]``."""

    norms: tuple[nn.Module, ...]
    ups: tuple[Tensor, ...]
    up_bias: Tensor | None
    down: Tensor
    writes: tuple[Tensor, ...]  # matrices and biases whose first axis is the stream


def _linear(module: nn.Module) -> Tensor:
    """A map's weight as ``[out, in]``; GPT-2 keeps it the other way round."""
    weight = module.weight
    return weight.data if isinstance(module, nn.Linear) else weight.data.T  # type: ignore[operator, return-value]


def _layers(model: Any) -> tuple[nn.Embedding, list[Layer], nn.Module]:
    """The token embedding, the layers, and the last norm."""
    kind, layers = model.config.model_type, []
    body = getattr(model, model.base_model_prefix)
    for block in body.h if kind == "gpt2" else body.layers:
        if kind == "gpt2":
            norms, ups, down, out = (block.ln_1, block.ln_2), (block.mlp.c_fc,), block.mlp.c_proj, block.attn.c_proj
        elif kind == "gpt_neox":
            norms, down = (block.input_layernorm, block.post_attention_layernorm), block.mlp.dense_4h_to_h
            ups, out = (block.mlp.dense_h_to_4h,), block.attention.dense
        else:
            norms, down = (block.input_layernorm, block.post_attention_layernorm), block.mlp.down_proj
            ups, out = (block.mlp.gate_proj, block.mlp.up_proj), block.self_attn.o_proj
        writes = [_linear(m) for m in (down, out)] + [m.bias.data for m in (down, out) if m.bias is not None]
        bias = ups[0].bias.data if ups[0].bias is not None else None
        layers.append(Layer(norms, tuple(_linear(m) for m in ups), bias, _linear(down), tuple(writes)))
    last = {"gpt2": "ln_f", "gpt_neox": "final_layer_norm"}.get(kind, "norm")
    return model.get_input_embeddings(), layers, getattr(body, last)


def _randomise(model: Any, seed: int) -> None:
    """Weights large enough that answers differ from prompt to prompt; norms keep their gain of one."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if p.ndim > 1:
            noise = torch.randn(p.shape, generator=generator)
            fan_in = p.shape[0 if model.config.model_type == "gpt2" and ".h." in name else 1]
            # Embeddings are no maps; tied ones give logits too.
            p.copy_(noise * (0.3 if "emb" in name or "wte" in name or "wpe" in name else fan_in**-0.5))
        elif name.endswith("bias"):
            p.zero_()


@contextmanager
def _inputs(modules: list[nn.Module]) -> Iterator[dict[nn.Module, Tensor]]:
    """What enters each module in the passes inside, ``[B, T, d]``."""
    seen: dict[nn.Module, Tensor] = {}
    handles = [m.register_forward_pre_hook(lambda m, args: seen.__setitem__(m, args[0].detach())) for m in modules]
    yield seen
    for handle in handles:
        handle.remove()


def _scale_gain(norm: Any, factor: Tensor) -> None:
    """Multiply a norm's gain by ``factor``, per channel. Gemma's weight is the gain less one."""
    weight = norm.weight
    weight.copy_((1 + weight) * factor - 1 if "Gemma" in type(norm).__name__ else weight * factor)


@torch.no_grad()
def massive_model(family: str, vocab: int, seed: int = 0) -> PreTrainedModel:
    """A random model of a family whose first token has a massive activation and one of whose channels is massive.

    In GPT-2 it is the first position, whatever token is there, in the others the token ``vocab - 1``, wherever it is.

    Args:
        family: one of `FAMILIES`. vocab: number of tokens. seed: of the weights.
    """
    config = configs(vocab)[family]
    attention = family_of(config.model_type).attn_implementation
    model: Any = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    _randomise(model, seed)
    embedding, layers, last = _layers(model)
    ids = torch.randint(vocab - 1, (16, 32), generator=torch.Generator().manual_seed(seed))
    ids[:, 0] = vocab - 1

    # The first token says so in a channel that nothing else writes to.
    for i, layer in enumerate(layers):
        for written in layer.writes:
            written[FLAG] = 0
            if i > WIDE_LAYER:
                # Little beside what is massive, as in models of many layers.
                written *= 0.1
        for channel in (WIDE, TWIN):
            layer.writes[1][channel] = 0
    embedding.weight[:, [FLAG, WIDE, TWIN]] = 0
    marked = embedding.weight[vocab - 1]
    if family == "gpt2":
        model.transformer.wpe.weight[:, [FLAG, WIDE, TWIN]] = 0
        marked = model.transformer.wpe.weight[0]
    marked[FLAG] = 4 * embedding.weight.norm(dim=1).median()
    # A neuron that nothing but the flag turns on.
    sink = layers[SINK_LAYER]
    for up in sink.ups:
        up[0] = 0
        up[0, FLAG] = 4
    if sink.up_bias is not None:
        sink.up_bias[0] = -8
    sink.down[:, 0] = 0

    norms = [norm for layer in layers for norm in layer.norms] + [last]
    behind_wide, behind_sink = norms[2 * WIDE_LAYER + 2], norms[2 * SINK_LAYER + 2]
    with _inputs(norms) as seen:
        model(ids)
        spread = seen[behind_wide][:, 1:].flatten(0, 1).std(0)
        wanted = SPREAD * spread.median()
        written = layers[WIDE_LAYER].down
        written[WIDE] *= wanted / spread[WIDE]
        # The opposite beside it: LayerNorm takes the mean over channels away, and would write it into all others.
        written[TWIN] = -written[WIDE]
        # Far from zero, so that a token's length, by which norms divide, is much the same for all.
        scale = config.hidden_size**0.5 if family == "gemma" else 1.0
        embedding.weight[:, WIDE], embedding.weight[:, TWIN] = FAR * wanted / scale, -FAR * wanted / scale
        for i, norm in enumerate(norms):
            # Whatever enters, each channel is read with a mean square of one.
            model(ids)
            factor = 1 / norm(seen[norm])[:, 1:].flatten(0, 1).square().mean(0).sqrt()
            factor[FLAG] = factor.median()
            if i >= norms.index(behind_sink):
                factor[SINK] /= SPREAD
            _scale_gain(norm, factor)
        # The first token's stream grows in proportion to what the neuron writes.
        model(ids)
        before, length = seen[behind_sink][:, 0], float(seen[behind_sink][:, 1:].norm(dim=-1).median())
        sink.down[SINK, 0] = 1
        model(ids)
        sink.down[SINK, 0] = LENGTH * length / float((seen[behind_sink][:, 0] - before).norm(dim=-1).median())
    logits = model(ids).logits[:, 1:]
    _scale_gain(last, (LOGITS / logits.std(-1).median()).repeat(config.hidden_size))
    return model


@torch.no_grad()
def measured(run: Callable[[Tensor], dict[int, Tensor]], ids: Tensor, site: int) -> tuple[float, float]:
    """How much longer the first token's stream is than others' median, and how much more the widest channel varies.

    Args:
        run: ids to the streams at every site. ids: ``[B, T]``, each row with the first token. site: which one.
    """
    h = run(ids)[site]
    # The middle half of the tokens: of random gated models' tokens one of hundreds runs away by itself.
    lengths, others = h.norm(dim=-1), h[:, 1:].flatten(0, 1)
    spread = others.quantile(0.75, dim=0) - others.quantile(0.25, dim=0)
    return float(lengths[:, 0].min() / lengths[:, 1:].median()), float(spread.max() / spread.median())
