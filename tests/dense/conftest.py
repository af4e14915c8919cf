"""Tiny models of every family, with no weight left at a value that would hide a mistake."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import transformers as hf
from transformers import AutoModelForCausalLM, PreTrainedModel

from bridges.dense import DenseStack, family_of, wrap_dense

WINDOW = 6
COMMON = {"vocab_size": 97, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
ROTARY = {
    **COMMON,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
}
OPT = {
    **COMMON,
    "hidden_size": 32,
    "word_embed_proj_dim": 32,
    "ffn_dim": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GPT2 = {**COMMON, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
NEOX = {
    **COMMON,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}


def configs() -> dict[str, hf.PreTrainedConfig]:
    qwen2 = {key: value for key, value in ROTARY.items() if key != "head_dim"}
    gemma = {**ROTARY, "query_pre_attn_scalar": 16, "sliding_window": WINDOW}
    return {
        "gpt2": hf.GPT2Config(**GPT2),
        "gpt2-scaled": hf.GPT2Config(**GPT2, scale_attn_by_inverse_layer_idx=True, n_inner=40),
        "gpt_neo": hf.GPTNeoConfig(
            **COMMON,
            hidden_size=32,
            num_layers=2,
            num_heads=4,
            attention_types=[[["global", "local"], 1]],
            window_size=WINDOW,
            max_position_embeddings=64,
        ),
        "opt": hf.OPTConfig(**OPT),
        "gpt_neox": hf.GPTNeoXConfig(**NEOX),
        "gpt_neox-sequential": hf.GPTNeoXConfig(**NEOX, use_parallel_residual=False),
        "llama": hf.LlamaConfig(**ROTARY),
        "llama-scaled": hf.LlamaConfig(
            **ROTARY, rope_parameters=LLAMA3, attention_bias=True, mlp_bias=True, tie_word_embeddings=True
        ),
        "mistral": hf.MistralConfig(**ROTARY, sliding_window=WINDOW),
        "mistral-full": hf.MistralConfig(**ROTARY, sliding_window=None),
        "qwen2": hf.Qwen2Config(**qwen2),
        "qwen2-sliding": hf.Qwen2Config(
            **qwen2,
            use_sliding_window=True,
            sliding_window=WINDOW,
            max_window_layers=1,
        ),
        "qwen3": hf.Qwen3Config(**ROTARY),
        "gemma": hf.GemmaConfig(**ROTARY),
        "gemma2": hf.Gemma2Config(**gemma),
        "gemma3_text": hf.Gemma3TextConfig(**gemma, layer_types=["sliding_attention", "full_attention"]),
    }


def _tiny_model(name: str, **changes) -> PreTrainedModel:
    config = configs()[name]
    for key, value in changes.items():
        setattr(config, key, value)
    attention = family_of(config.model_type).attn_implementation
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            gain = weight.ndim == 1 and not key.endswith("bias")
            weight.copy_(1.0 + 0.3 * noise if gain else noise * (0.3 if weight.ndim == 1 else 0.2))
    return model.eval()


@dataclass
class Case:
    name: str
    model: PreTrainedModel
    stack: DenseStack

    def ids(self, length: int, batch: int = 2) -> torch.Tensor:
        return torch.randint(97, (batch, length), generator=torch.Generator().manual_seed(length))

    @torch.no_grad()
    def reference(self, ids: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=ids, use_cache=False).logits


@pytest.fixture
def tiny_model():
    """``tiny_model(name, **changes to its config)``; every parameter is random, gains and biases too."""
    return _tiny_model


@pytest.fixture
def tiny_configs() -> dict[str, hf.PreTrainedConfig]:
    return configs()


@pytest.fixture(params=list(configs()))
def case(request) -> Case:
    model = _tiny_model(request.param)
    return Case(request.param, model, wrap_dense(model, check=False))
