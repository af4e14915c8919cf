"""Where training starts: the sparse model's shape and first weights, and the bridges'."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import cast

import torch
from torch import nn

from bridges.bridge import Bridges, SitePair, fit_ridge, measure_scales, pair_sites
from bridges.config import Config, SparseConfig
from bridges.config.paths import INITS as INITS
from bridges.data.blocks import TokenBlocks
from bridges.dense import DenseStack
from bridges.errors import CheckpointError, ConfigError, ModelError, in_brief
from bridges.interop.openai import load_openai
from bridges.planted import is_world, world_named
from bridges.sparse import SparseTransformer, SparseTransformerConfig, budget
from bridges.sparse.packed import load_packed
from bridges.sparse.warm_start import start_from_dense
from bridges.training.refit import stream_pairs

FULL_BIGRAM_LIMIT = 8192
# Offsets that keep the random draws of different parts apart.
BRIDGE_SEED, UNTRAINED_SEED, SPARE_SEED = 1, 2, 3
# Dense models for which a trained pair ships.
SHIPPED = ("tinypython",)
# Tokens that means and deviations of streams are measured on.
_SCALE_TOKENS = 4096
# Before a folder of OpenAI's format.
OPENAI = "openai:"
# Settings of `sparse` that say how to train and not what the model is.
_NO_SHAPE = ("init", "width", "train_bigram", "floor", "bigram", "initializer_range")


@dataclass(frozen=True)
class Start:
    """What training starts from.

    Attributes:
        kind: ``random``, ``dense``, ``pair``, ``openai`` or ``planted``.
        shape: the sparse model's configuration.
        folder: of a pair: ``model/`` and perhaps ``bridges/``.
        model: the sparse model itself, where finding out about it took reading it.
        fraction: weights that are not zero at the start.
        anneal_activation: AbsTopK lets everything pass at first.
        note: one line for the user, or nothing.
    """

    kind: str
    shape: SparseTransformerConfig
    folder: Path | None = None
    model: SparseTransformer | None = None
    fraction: float = 1.0
    anneal_activation: bool = False
    note: str = ""


def shipped_pair(name: str) -> Path:
    """The folder of the trained pair that ships for a dense model."""
    return Path(str(files("bridges").joinpath("assets", f"{name}-sparse")))


def choose_start(config: Config, dense: DenseStack, context: int, eos: int | None) -> Start:
    """Decide from the settings what training starts from.

    Raises:
        ConfigError: the settings contradict the pair or the dense model that is to be started from.
        CheckpointError: there is no pair where one was named.
    """
    init = config.sparse.init
    if init == "random":
        return Start("random", _shape(config, dense, context, eos))
    if init == "dense":
        return _from_dense(config, dense, context, eos)
    if init == "planted":
        return _planted(config, context)
    if init.startswith(OPENAI):
        return _openai(config, dense, context)
    if init in ("auto", "shipped"):
        folder = shipped_pair(config.model.name)
        exists = config.model.name in SHIPPED and (folder / "model").is_dir()
        if init == "shipped" and not exists:
            raise ConfigError(
                f"sparse.init=shipped: no trained pair ships for {config.model.name!r}, only for {', '.join(SHIPPED)}. "
                "Use sparse.init=random, dense or a run's folder."
            )
        if not exists:
            return Start("random", _shape(config, dense, context, eos))
    else:
        folder = Path(init).expanduser()
        if not (folder / "model").is_dir():
            raise ConfigError(
                f"sparse.init={init!r} is neither auto, random, dense nor shipped, nor planted, nor a folder with "
                f"model/ in it. A model in OpenAI's format is named {OPENAI}<folder>."
            )
    shape = _pair_shape(folder)
    clash = _clash(config, dense, shape, context)
    if clash and init == "auto":
        note = f"Starting from random weights: {clash}, so the shipped pair does not fit."
        return Start("random", _shape(config, dense, context, eos), note=note)
    if clash:
        raise ConfigError(f"sparse.init={init}: {clash}. Leave that setting out, or use sparse.init=random.")
    had = shape.weight_fraction
    shape.weight_fraction = config.sparsity
    label = "the trained pair that ships with Bridges" if init in ("auto", "shipped") else str(folder)
    note = f"Starting from {label} (sparsity {had:g}); sparse.init=random starts over."
    return Start("pair", shape, folder, fraction=max(had, config.sparsity), note=note)


def _pair_shape(folder: Path) -> SparseTransformerConfig:
    try:
        return SparseTransformerConfig.from_pretrained(folder / "model")
    except Exception as error:
        raise CheckpointError(f"No readable sparse model in {folder / 'model'}: {in_brief(error)}.") from error


def _openai(config: Config, dense: DenseStack, context: int) -> Start:
    folder = config.sparse.init.removeprefix(OPENAI)
    model = load_openai(folder)
    if clash := _clash(config, dense, model.config, context, "model"):
        raise ConfigError(f"sparse.init={config.sparse.init}: {clash}. Leave that setting out, or change the other.")
    counts = [(int((m != 0).sum()), m.numel()) for m in model.sparse_matrices().values()]
    density = max(nonzeros / numel for nonzeros, numel in counts)
    over = any(nonzeros > budget(numel, config.sparsity) for nonzeros, numel in counts)
    if config.train.freeze_sparse and over:
        raise ConfigError(
            f"sparsity={config.sparsity:g}: in the fullest matrix of {folder} {density:.4f} of the weights are not "
            f"zero, and train.freeze_sparse=true keeps them. Use {math.ceil(density * 1000) / 1000:g} or more."
        )
    model.config.weight_fraction = config.sparsity
    rest = "" if config.train.freeze_sparse else "; train.freeze_sparse=true trains the bridges alone"
    note = f"Starting from the model in {folder} (sparsity {density:.3g}){rest}."
    return Start("openai", model.config, model=model, fraction=max(density, config.sparsity), note=note)


def _clash(config: Config, dense: DenseStack, shape: SparseTransformerConfig, context: int, what: str = "pair") -> str:
    """The first setting that a pair, or ``what`` it is called, contradicts, in words; empty if there is none."""
    plain = SparseConfig()
    for f in fields(SparseConfig):
        value = getattr(config.sparse, f.name)
        if f.name in _NO_SHAPE or value == getattr(plain, f.name):
            continue
        if value != getattr(shape, f.name):
            return f"sparse.{f.name}={value} but the {what} has {getattr(shape, f.name)}"
    width = config.sparse.width
    if width is not None and config.sparse.d_model is None and round(width * dense.d_model) != shape.d_model:
        return f"sparse.width={width:g} but the {what} is {shape.d_model} wide"
    if config.sparse.bigram not in ("auto", shape.bigram):
        return f"sparse.bigram={config.sparse.bigram} but the {what} has {shape.bigram}"
    if shape.vocab_size != dense.vocab_size:
        return f"the dense model has {dense.vocab_size} tokens but the {what} {shape.vocab_size}"
    if context > shape.context and shape.position != "none":
        return f"data.context={context} but the {what} has positions for {shape.context}"
    return ""


def _shape(config: Config, dense: DenseStack, context: int, eos: int | None) -> SparseTransformerConfig:
    """The sparse model's configuration, what is left open filled in from the dense model."""
    s = config.sparse
    bigram = s.bigram
    if bigram == "auto":
        bigram = "full" if dense.vocab_size <= FULL_BIGRAM_LIMIT else "low_rank"
    return SparseTransformerConfig(
        vocab_size=dense.vocab_size,
        n_layer=s.n_layer or dense.n_layers,
        d_model=s.d_model or round((s.width or 1.0) * dense.d_model),
        d_mlp=s.d_mlp,
        d_head=s.d_head,
        context=context,
        activation=s.activation,
        activation_fraction=s.activation_fraction,
        activation_points=s.activation_points,
        bias=s.bias,
        norm_gain=s.norm_gain,
        norm_eps=s.norm_eps,
        attention_sink=s.attention_sink,
        position=s.position,
        d_position=s.d_position,
        bigram=bigram,
        bigram_rank=s.bigram_rank,
        weight_fraction=config.sparsity,
        initializer_range=s.initializer_range,
        bos_token_id=eos,
        eos_token_id=eos,
    )


def _from_dense(config: Config, dense: DenseStack, context: int, eos: int | None) -> Start:
    if isinstance(dense, SparseTransformer):
        raise ModelError(
            f"sparse.init=dense: {config.model.name} is in OpenAI's format. Go on from a model like it with "
            f"sparse.init={OPENAI}<folder>."
        )
    folded = dense.folded()
    shape = _shape(config, dense, context, eos)
    shape.d_head, shape.activation, shape.position = folded.d_head, folded.activation, "learned"
    shape.d_position, shape.attention_sink = 0, False
    shape.n_head = max(1, shape.d_model // folded.d_head)
    shape.norm_eps = folded.eps * dense.d_model / shape.d_model
    note = (
        f"Starting from the dense model's weights: positions learned, heads of {folded.d_head} without sinks, "
        f"{folded.activation}, as there; AbsTopK is annealed with the weights, and the bigram "
        "table comes in as they go."
    )
    return Start("dense", shape, anneal_activation=True, note=note)


def _planted(config: Config, context: int) -> Start:
    if not is_world(config.model.name):
        raise ConfigError(f"sparse.init=planted: {config.model.name!r} is no planted world; use model=planted with it.")
    world = world_named(config.model.name)
    shape = SparseTransformerConfig.from_dict(world.sparse.config.to_dict())
    if context > shape.context:
        raise ConfigError(f"data.context={context} is longer than the {shape.context} tokens of a planted world.")
    if world.density > config.sparsity:
        raise ConfigError(
            f"sparsity={config.sparsity:g}: in the fullest matrix of {config.model.name} {world.density:.3f} of the "
            f"weights are planted, and some would be lost. Use {math.ceil(world.density * 100) / 100:g} or more."
        )
    shape.weight_fraction = config.sparsity
    note = f"The sparse model is that of {config.model.name}: its circuits are known."
    return Start("planted", shape, fraction=config.sparsity, note=note)


def build(
    config: Config, dense: DenseStack, start: Start, pairs: Sequence[SitePair] | None = None
) -> tuple[SparseTransformer, Bridges]:
    """The sparse model and the bridges at their first step, but for what must be measured on text.

    Args:
        pairs: the sites that bridges join; None: evenly over both models' depth.
    """
    torch.manual_seed(config.seed)
    sparse = start.model or SparseTransformer(start.shape)
    pairs = pairs or pair_sites(dense.n_sublayers, 2 * start.shape.n_layer, config.bridge.every)
    bridges = Bridges(
        dense.d_model, start.shape.d_model, pairs, config.bridge.activation_fraction, config.seed + BRIDGE_SEED
    )
    if start.kind == "dense":
        start_from_dense(sparse, dense.folded(), config.seed + SPARE_SEED)
        sparse.activation_fraction = None
        bridges.keep(None)
    elif start.kind == "planted":
        sparse.load_state_dict(world_named(config.model.name).sparse.state_dict())
    elif start.folder is not None:
        state = load_packed(start.folder / "model")
        if start.shape.tie_word_embeddings:
            state.setdefault("head.weight", state["tokens.weight"])
        sparse.load_state_dict(state)
    return sparse, bridges


def finish(sparse: SparseTransformer, bridges: Bridges) -> None:
    """Let AbsTopK and the bigram table count as in a finished model, whatever training last set, and freeze both: with
    fixed weights the sparse model computes with its nonzeros alone."""
    sparse.activation_fraction, sparse.bigram_share = sparse.config.activation_fraction, 1.0
    bridges.keep(bridges.config.activation_fraction)
    for module in (sparse, bridges):
        module.eval().requires_grad_(False)


def trained_bridges(start: Start, like: Bridges) -> Bridges | None:
    """The bridges that a pair brings along, where they join the same sites of streams as wide; else None."""
    if start.folder is None or not (start.folder / "bridges").is_dir():
        return None
    found = Bridges.from_pretrained(start.folder / "bridges")
    ours, theirs = like.config, found.config
    alike = (ours.d_dense, ours.d_sparse) == (theirs.d_dense, theirs.d_sparse) and found.pairs == like.pairs
    return found if alike else None


@torch.no_grad()
def fit_to_text(
    config: Config,
    start: Start,
    dense: DenseStack,
    sparse: SparseTransformer,
    bridges: Bridges,
    data: TokenBlocks,
    device: torch.device,
) -> None:
    """The bigram table from counts, and the bridges from the pair or from a ridge regression, in place.

    Leading positions at which all blocks of text have the same tokens have the same stream as well, and are left to
    each model's own (`Bridges.constant_prefix`); bridges of a pair keep what they were trained with.
    """
    if start.kind not in ("pair", "openai", "planted") and sparse.config.bigram == "full":
        table = data.bigram(sparse.vocab_size)
        cast(nn.Embedding, sparse.bigram).weight.copy_(table)
    bridges.constant_prefix = data.constant_prefix
    some = data.chunks("train", max(16, _SCALE_TOKENS // data.context), 16)
    measure_scales(
        bridges, [dense.run(ids.to(device)).sites for ids in some], [sparse.run(ids.to(device)).sites for ids in some]
    )
    if (trained := trained_bridges(start, bridges)) is not None:
        bridges.load_state_dict(trained.state_dict())
        return
    if config.bridge.init == "ridge":
        # Rows of a narrow text are short: as many tokens at once as of ordinary text.
        rows = max(1, round(config.eval.batch * config.data.context / data.mean_length))
        streams = stream_pairs(dense, sparse.run, data, config.eval.ridge_tokens, rows, device)
        fit_ridge(bridges, streams, config.bridge.ridge)
