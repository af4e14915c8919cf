"""Checkpoints of OpenAI's ``circuit_sparsity`` release: a folder with ``beeg_config.json`` and ``final_model.pt``.

The models of Gao et al. 2025, sparse and dense, are GPTs of one shape with many switches; `SparseTransformer` has all
of them, so that circuits can be searched in what is read here. Writing: `bridges.interop.openai_save`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bridges.config.literals import NODE_KINDS, STREAM_POINTS
from bridges.errors import CheckpointError, nearest
from bridges.sparse import SparseTransformer, SparseTransformerConfig

CONFIG_FILE, WEIGHTS_FILE = "beeg_config.json", "final_model.pt"
LAYER_NORM_EPS = 1e-5

# Switches with the values that they have where a file leaves them out.
_REQUIRED = ("block_size", "vocab_size", "n_layer", "n_head", "d_model")
_DEFAULTS: dict[str, Any] = {
    "d_head": None,
    "d_mlp": None,
    "bias": True,
    "ln_bias": True,
    "rms_norm": False,
    "residual_activation_type": "identity",
    "activation_type": "gelu",
    "afrac": None,
    "afrac_loctypes": "attn_in,attn_out,mlp_in,mlp_out",
    "tied_unembed": True,
    "enable_bigram_table": False,
    "d_pos_emb": None,
    "sinusoidal_cat_pos_emb": False,
    "sink": False,
}
# Without influence on the logits of a finished model.
_IGNORED = {
    "bigram_table_rank", "debug_nans", "dropout", "dropout_cat_pos_emb", "enable_sparse_kernels", "flash",
    "grad_checkpointing", "learnable_bigram_table", "pfrac", "tokenizer_name",
}  # fmt: skip
_SIZES = (*_REQUIRED, "d_head", "d_mlp", "d_pos_emb")
_FLAGS = tuple(name for name, value in _DEFAULTS.items() if isinstance(value, bool))
# Places of AbsTopK: their names in the format and here.
PLACES = {f"attn_{kind}" if kind in "qkv" else kind: kind for kind in NODE_KINDS} | {p: p for p in STREAM_POINTS}


def is_openai_folder(path: str | Path) -> bool:
    """Whether a folder holds a checkpoint of this format."""
    return (Path(path).expanduser() / CONFIG_FILE).is_file()


def read_settings(folder: str | Path) -> dict[str, Any]:
    """The switches in ``beeg_config.json``, checked, with defaults for those it leaves out.

    Raises:
        CheckpointError: the file is missing or damaged, or has a switch that is not known here.
    """
    path = Path(folder).expanduser() / CONFIG_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"There is no readable {path}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is no JSON ({error}). Fetch it again.") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds no settings but a {type(values).__name__}. Fetch it again.")
    # Older files.
    if "n_mlp" in values:
        values.setdefault("d_mlp", values.pop("n_mlp"))
    missing = [name for name in _REQUIRED if name not in values]
    if missing:
        raise CheckpointError(f"{path} lacks {', '.join(missing)}.")
    known = {*_REQUIRED, *_DEFAULTS, *_IGNORED}
    # What is switched off does nothing, known or not.
    unknown = sorted(name for name, value in values.items() if name not in known and value not in (None, False))
    if unknown:
        raise CheckpointError(
            f"{path} has settings that are not known here: {', '.join(unknown)}. If they do not change what the model "
            "computes, take them out of the file."
        )
    settings = _DEFAULTS | {name: value for name, value in values.items() if name in known}

    def check(good: bool, name: str, what: str) -> None:
        if not good:
            raise CheckpointError(f"{path}: {name}={settings[name]!r} must be {what}.")

    for name in _SIZES:
        value = settings[name]
        optional = name not in _REQUIRED and value is None
        check(optional or (type(value) is int and value > 0), name, "a whole number from 1")
    for name in _FLAGS:
        check(isinstance(settings[name], bool), name, "true or false")
    check(settings["activation_type"] in ("gelu", "relu"), "activation_type", "gelu or relu")
    check(settings["residual_activation_type"] in ("identity", "relu"), "residual_activation_type", "identity or relu")
    afrac = settings["afrac"]
    check(afrac is None or (type(afrac) in (int, float) and 0 < afrac <= 1), "afrac", "null or a number in (0, 1]")
    check(isinstance(settings["afrac_loctypes"], str), "afrac_loctypes", "a text, places with commas between")
    for place in filter(None, settings["afrac_loctypes"].split(",")):
        check(place in PLACES, "afrac_loctypes", f"made of known places, not {place!r}. {nearest(place, PLACES)[:-1]}")
    settings["d_mlp"] = settings["d_mlp"] or 4 * settings["d_model"]
    settings["d_head"] = settings["d_head"] or max(1, settings["d_model"] // settings["n_head"])
    return settings


def read_config(folder: str | Path) -> SparseTransformerConfig:
    """The configuration of the `SparseTransformer` that computes what the checkpoint does.

    Raises:
        CheckpointError: ``beeg_config.json`` is missing, damaged or of a form that is not known here.
    """
    s = read_settings(folder)
    position = "learned"
    if s["d_pos_emb"] is not None:
        position = "sinusoidal" if s["sinusoidal_cat_pos_emb"] else "concat_shared"
    config = SparseTransformerConfig(
        vocab_size=s["vocab_size"],
        n_layer=s["n_layer"],
        d_model=s["d_model"],
        d_mlp=s["d_mlp"],
        d_head=s["d_head"],
        n_head=s["n_head"],
        context=s["block_size"],
        activation=s["activation_type"],
        activation_fraction=s["afrac"],
        activation_points=[PLACES[place] for place in s["afrac_loctypes"].split(",") if place],
        bias=s["bias"],
        head_bias=True,
        norm="rms" if s["rms_norm"] else "layer",
        norm_gain=True,
        norm_bias=s["ln_bias"] and not s["rms_norm"],
        norm_eps=None if s["rms_norm"] else LAYER_NORM_EPS,
        residual_activation=s["residual_activation_type"],
        attention_sink=s["sink"],
        position=position,
        d_position=s["d_pos_emb"] or 1,
        bigram="full" if s["enable_bigram_table"] else "none",
        tie_word_embeddings=s["tied_unembed"],
    )
    if empty := keeps_nothing(config):
        raise CheckpointError(
            f"{Path(folder) / CONFIG_FILE}: afrac={s['afrac']} keeps none of the channels of {empty}."
        )
    return config


def keeps_nothing(config: SparseTransformerConfig) -> str:
    """A place where AbsTopK of the format, ``int(fraction · width)``, would keep nothing."""
    widths = {point.split(".")[1]: width for point, width in config.node_widths().items()}
    widths |= dict.fromkeys(STREAM_POINTS, config.d_model)
    fraction = 1.0 if config.activation_fraction is None else config.activation_fraction
    return next((p for p in config.activation_points if int(fraction * widths[p]) == 0), "")


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"There is no {path}.")
    try:
        # Weights only: the file can hold nothing that runs.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:
        # PyTorch's own text advises to load such a file without this protection.
        raise CheckpointError(
            f"{path} is no readable file of weights: it is damaged, cut short, or holds other things than tensors. "
            "Fetch it again."
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(t, Tensor) for t in state.values()):
        raise CheckpointError(f"{path} holds no state dict, names with tensors.")
    return dict(state)


def load_openai(folder: str | Path) -> SparseTransformer:
    """Read a checkpoint: the model in fp32 and evaluation mode.

    Args:
        folder: with ``beeg_config.json`` and ``final_model.pt``.

    Raises:
        CheckpointError: a file is missing or damaged, or the weights do not fit the settings.
    """
    config = read_config(folder)
    path = Path(folder).expanduser() / WEIGHTS_FILE
    state = _read_weights(path)
    tied = config.tie_word_embeddings
    if tied:
        ends = [state[name] for name in ("lm_head.weight", "transformer.wte.weight") if name in state]
        if len(ends) == 2 and not torch.equal(*ends):
            raise CheckpointError(f"{path}: tied_unembed=true, but embedding and unembedding differ.")
        if ends:
            state["lm_head.weight"] = state["transformer.wte.weight"] = ends[0]
    state.setdefault("final_logits_bias", torch.zeros(config.vocab_size))
    with torch.device("meta"):
        model = SparseTransformer(config)
    found: dict[str, Tensor] = {}
    wanted = {name: p.shape for name, p in model.state_dict().items()}
    lost, wrong = [], []
    for theirs, ours in weight_names(config).items():
        tensor = state.pop(theirs, None)
        if tensor is None:
            lost.append(theirs)
            continue
        parts = tensor.chunk(len(ours)) if len(ours) > 1 else (tensor,)
        for name, part in zip(ours, parts, strict=False):
            if name.endswith(".sink") and part.numel() == 1:
                part = part.reshape(1).expand(config.n_head)
            if part.shape != wanted[name] or not part.is_floating_point():
                wrong.append(f"{theirs} is {tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}")
                break
            found[name] = part.float().clone()
    # A mask that models without flash attention carry along.
    extra = [name for name in state if not re.fullmatch(r"transformer\.h\.\d+\.attn\.bias", name)]
    for what, names in (("lacks", lost), ("has the wrong form where", wrong), ("has beyond its settings", extra)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise CheckpointError(f"{path} does not fit {CONFIG_FILE}: it {what} {names[0]}{more}.")
    broken = [name for name, tensor in found.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise CheckpointError(f"{path} is damaged: {broken[0]} has values that are not finite.")
    if tied:
        found["head.weight"] = found["tokens.weight"]
    model.load_state_dict(found, assign=True)
    model.tie_weights()
    return model.eval()


def weight_names(config: SparseTransformerConfig) -> dict[str, tuple[str, ...]]:
    """Names in the format, and the names here of what they hold (in parts of equal size where there are several)."""
    names: dict[str, tuple[str, ...]] = {
        "transformer.wte.weight": ("tokens.weight",),
        "transformer.wpe.weight": ("positions.weight",),
    }
    norm = ("weight", "bias") if config.norm_bias else ("weight",)
    linear = ("weight", "bias") if config.bias else ("weight",)
    for layer in range(config.n_layer):
        theirs, attention, mlp = f"transformer.h.{layer}", f"blocks.{2 * layer}", f"blocks.{2 * layer + 1}"
        for part in norm:
            names[f"{theirs}.ln_1.{part}"] = (f"{attention}.read.norm.{part}",)
            names[f"{theirs}.ln_2.{part}"] = (f"{mlp}.read.norm.{part}",)
            if config.d_position:
                names[f"{theirs}.ln_p1.{part}"] = (f"{attention}.read.position_norm.{part}",)
                names[f"{theirs}.ln_p2.{part}"] = (f"{mlp}.read.position_norm.{part}",)
        for part in linear:
            names[f"{theirs}.attn.c_attn.{part}"] = tuple(f"{attention}.{kind}.{part}" for kind in "qkv")
            names[f"{theirs}.attn.c_proj.{part}"] = (f"{attention}.out.{part}",)
            names[f"{theirs}.mlp.c_fc.{part}"] = (f"{mlp}.up.{part}",)
            names[f"{theirs}.mlp.c_proj.{part}"] = (f"{mlp}.down.{part}",)
        if config.attention_sink:
            names[f"{theirs}.attn.attn_imp.sink_logit"] = (f"{attention}.sink",)
    names |= {f"transformer.ln_f.{part}": (f"norm.{part}",) for part in norm}
    names |= {"lm_head.weight": ("head.weight",), "final_logits_bias": ("head.bias",)}
    if config.bigram == "full":
        names["bigram_table"] = ("bigram.weight",)
    return names
