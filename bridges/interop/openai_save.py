"""Writing a sparse transformer as a checkpoint of OpenAI's ``circuit_sparsity`` release."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from bridges.errors import ConfigError
from bridges.interop.openai import CONFIG_FILE, LAYER_NORM_EPS, PLACES, WEIGHTS_FILE, keeps_nothing, weight_names
from bridges.sparse import SparseTransformer, SparseTransformerConfig

# A larger low-rank bigram table is not written out as a full one.
LARGEST_BIGRAM = 8192


def _obstacle(config: SparseTransformerConfig) -> str:
    """Why the format cannot hold such a model; empty where it can."""
    if config.position == "concat":
        return "position=concat has a table of positions for every read, the format one for all (concat_shared)"
    if config.activation not in ("gelu", "relu"):
        return f"the format has no activation {config.activation}"
    if config.d_model % config.n_head:
        return f"the format wants d_model={config.d_model} to be a multiple of n_head={config.n_head}"
    if config.bigram == "low_rank" and config.vocab_size > LARGEST_BIGRAM:
        return f"a full bigram table of {config.vocab_size} tokens would be too large"
    if place := keeps_nothing(config):
        return f"AbsTopK of the format keeps none of the channels of {place}"
    return ""


def _settings(config: SparseTransformerConfig) -> dict[str, Any]:
    names = {ours: theirs for theirs, ours in PLACES.items()}
    return {
        "block_size": config.context,
        "vocab_size": config.vocab_size,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "d_head": config.d_head,
        "d_model": config.d_model,
        "d_mlp": config.d_mlp,
        "dropout": 0.0,
        "bias": config.bias,
        "ln_bias": config.norm_bias,
        "rms_norm": config.norm == "rms",
        "residual_activation_type": config.residual_activation,
        "activation_type": config.activation,
        "afrac": config.activation_fraction,
        "afrac_loctypes": ",".join(names[point] for point in config.activation_points),
        "tied_unembed": config.tie_word_embeddings,
        "enable_bigram_table": config.bigram != "none",
        "learnable_bigram_table": False,
        "d_pos_emb": config.d_position or None,
        "sinusoidal_cat_pos_emb": config.position == "sinusoidal",
        "sink": config.attention_sink,
        # The loader of the release takes this key out of every file.
        "bigram_table_rank": None,
    }


def _scaled(model: SparseTransformer, state: dict[str, Tensor]) -> None:
    """Turn the norms' ε into the format's, by a factor on the whole stream: norms alone read it, and x / √(mean x² + ε)
    is s·x / √(mean (s·x)² + s²·ε)."""
    config = model.config
    theirs = torch.finfo(torch.float32).eps if config.norm == "rms" else LAYER_NORM_EPS
    factor = 1.0 if config.norm_eps is None else (theirs / config.norm_eps) ** 0.5
    written = ("tokens.", "positions.", ".out.", ".down.")
    for name in state:
        if any(part in f".{name}" if part[0] == "." else name.startswith(part) for part in written):
            state[name] = state[name] * factor
    if config.tie_word_embeddings:
        # The unembedding is scaled with the embedding: the last norm makes up for it.
        state["head.weight"] = state["tokens.weight"]
        state |= {name: state[name] / factor for name in state if name.startswith("norm.")}


@torch.no_grad()
def save_openai(model: SparseTransformer, folder: str | Path) -> Path:
    """Write ``beeg_config.json`` and ``final_model.pt``; the model read back has the same logits.

    Norms without gain get gains of one, a model without positions a table of zeros, a low-rank bigram table its
    product.

    Args:
        model: in the state of a finished one (AbsTopK and bigram table as its configuration says).
        folder: made where it does not exist.

    Raises:
        ConfigError: the format has no place for one of the model's parts.
    """
    config = model.config
    if obstacle := _obstacle(config):
        raise ConfigError(f"This model cannot be written in OpenAI's format: {obstacle}.")
    state = {name: tensor.detach().float().cpu().clone() for name, tensor in model.state_dict().items()}
    if not config.norm_gain:
        norms = {n for n, m in model.named_modules() if isinstance(m, nn.RMSNorm | nn.LayerNorm)}
        widths = {n: config.d_position if n.endswith("position_norm") else config.d_model for n in norms}
        state |= {f"{name}.weight": torch.ones(width) for name, width in widths.items()}
    if config.position == "none":
        state["positions.weight"] = torch.zeros(config.context, config.d_model)
    if not config.head_bias:
        state["head.bias"] = torch.zeros(config.vocab_size)
    if config.bigram == "low_rank":
        first, second = (cast(nn.Embedding | nn.Linear, part).weight for part in cast(nn.Sequential, model.bigram))
        state["bigram.weight"] = (first @ second.T).float().cpu()
    _scaled(model, state)
    shape = SparseTransformerConfig.from_dict(
        config.to_dict() | {"bigram": "none" if config.bigram == "none" else "full"}
    )
    out = {theirs: torch.cat([state[n] for n in ours]) for theirs, ours in weight_names(shape).items()}
    folder = Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    settings = json.dumps(_settings(config), indent=2) + "\n"
    for name, write in (
        (WEIGHTS_FILE, lambda path: torch.save(out, path)),
        (CONFIG_FILE, lambda path: path.write_text(settings)),
    ):
        # Whole or not at all.
        temporary = folder / f".{name}.tmp"
        write(temporary)
        os.replace(temporary, folder / name)
    return folder
