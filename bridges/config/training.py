"""Settings of what is trained and on what: the two models, the text, the bridges, the training.

The text below a field is what ``--help`` and the documentation say of it (`bridges.config.describe`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from bridges.config.checks import between, positive
from bridges.config.literals import (
    ACTIVATIONS,
    ANNEAL_SHAPES,
    BIGRAMS,
    NODE_KINDS,
    POSITIONS,
    STREAM_POINTS,
    check_literals,
    choices,
    literal,
)
from bridges.errors import ConfigError

PRECISIONS = ("auto", "fp32", "bf16")
DTYPES = ("fp32", "bf16")
OPTIMIZERS = ("adamw", "muon")
SAMPLINGS = ("uniform", "importance")
SOURCES = ("tinypython", "python", "english", "files", "hub", "planted")
VOCABULARIES = ("all", "seen")
PLACES = ("even", "ceiling")
BRIDGE_INITS = ("ridge", "random")
GRADIENT_RULES = ("clip", "normalise")


@dataclass
class ModelConfig:
    """The pretrained dense model, which stays frozen."""

    name: str = "tinypython"
    """`tinypython` (bundled), a Hub id, a local folder (of a Hugging Face model, or of OpenAI's format),
    `package:<module>` for a file in a package, or `planted:<seed>` for a world whose circuits are known
    (`planted:<seed>:hard`: with AbsTopK, sinks, a bigram table, and one behaviour done by another route)."""
    label: str = "tinypython"
    """Short name, used in folder names and tables (empty: the last part of `name`)."""
    gguf_file: str | None = None
    """File name of GGUF weights inside `name`."""
    revision: str | None = None
    """Branch, tag or commit on the Hub."""
    dtype: str = literal("fp32", DTYPES)
    """Number format that the frozen weights are stored in."""
    leading_token: str | None = None
    """Token that every document and prompt begins with, or `none` (null: the tokenizer's own; where it puts none and
    there is a choice, the one after which the model's loss on its text is least)."""

    def __post_init__(self) -> None:
        check_literals("model", self)
        if not self.name:
            raise ConfigError(
                "model.name is empty: model=hf needs model.name=<folder or Hub id>, model=openai model.name=<folder>."
            )
        # `hf.yaml` leaves the label open: the last part of a path or Hub id reads best in tables.
        if not self.label:
            self.label = self.name.rstrip("/").rsplit("/", 1)[-1]


@dataclass
class DataConfig:
    """The text that is trained and measured on."""

    source: str = literal("python", SOURCES)
    """`tinypython` (generated idioms and the standard library of the running Python, half of each: the same text
    wherever the minor version of Python is the same), `python` (the standard library alone), `english` (the language
    reference inside the running Python), `files`, `hub` or `planted` (a world's own language)."""
    path: str | None = None
    """Folder of `files`, data set id for `hub`, seed of the world for `planted`."""
    pattern: str = "**/*.*"
    """Glob below `path`, for `files`."""
    subset: str | None = None
    """Configuration of a Hub data set."""
    column: str = "text"
    """The data set's column of text, for `hub`."""
    context: int = 256
    """Tokens per sequence."""
    max_chars: int | None = None
    """Read no more than this many characters (null: everything; 100 million of a Hub data set)."""
    focus: float = 0.0
    """Share of training rows that are the behaviours' own prompts with their answers: 0 is ordinary text alone, 1
    prompts alone. The rest are pieces of `context` tokens of ordinary text."""
    prompts: int = 1024
    """Prompts of each behaviour that are trained on, where `focus` is above 0."""
    vocabulary: str = literal("all", VOCABULARIES)
    """`all` tokens, or with a `focus` above 0 those that are `seen` in the behaviours' prompts and the text beside
    them: the dense model has no logits of others then."""

    def __post_init__(self) -> None:
        check_literals("data", self)
        between("data.focus", self.focus, 0, 1)
        if self.vocabulary == "seen" and not self.focus:
            raise ConfigError("data.vocabulary=seen needs data.focus above 0: ordinary text holds nearly every token.")
        if self.prompts < 64:
            raise ConfigError(f"data.prompts={self.prompts} must be at least 64.")
        if self.source in ("files", "hub") and not self.path:
            raise ConfigError(
                f"data.source={self.source} needs data.path=<{'folder' if self.source == 'files' else 'dataset id'}>."
            )
        positive("data.max_chars", self.max_chars)
        if self.context < 2:
            raise ConfigError(f"data.context={self.context} must be at least 2 tokens.")


@dataclass
class SparseConfig:
    """The weight-sparse transformer that is trained."""

    init: str = "auto"
    """What training starts from: `random` weights, the `dense` model's, the `shipped` pair, the folder of another run,
    a model in OpenAI's format (`openai:<folder>`), a world's own weights (`planted`), or `auto`: the shipped pair where
    one fits, random weights elsewhere."""
    n_layer: int | None = None
    """Layers, of an attention and an MLP sublayer each (null: as many as the dense model has)."""
    d_model: int | None = None
    """Width of the residual stream (null: `width` times the dense model's)."""
    width: float | None = None
    """Width of the stream as a multiple of the dense model's (null: 1, or that of the pair training goes on from)."""
    d_mlp: int | None = None
    """Neurons of each MLP (null: four times the width of the stream)."""
    d_head: int = 16
    """Width of an attention head; there are as many heads as fit into the stream's width."""
    activation: str = literal("gelu", ACTIVATIONS)
    """Nonlinearity of the MLP: `gelu` (exact), `gelu_tanh` (as in GPT-2) or `relu`."""
    activation_fraction: float | None = 0.25
    """Share of each vector that AbsTopK keeps, by magnitude (paper: 0.25; null: no AbsTopK)."""
    activation_points: list[str] = field(
        default_factory=lambda: list(NODE_KINDS), metadata=choices((*NODE_KINDS, *STREAM_POINTS))
    )
    """Where AbsTopK acts: kinds of nodes, and points of the stream after attention or MLP."""
    bias: bool = True
    """Biases on every linear map and on the logits."""
    norm_gain: bool = False
    """A learned gain in each norm."""
    norm_eps: float | None = 1e-5
    """The norms' ε (null: machine epsilon, as in the released checkpoints)."""
    attention_sink: bool = True
    """A learned logit with value zero in each head's softmax."""
    position: str = literal("none", POSITIONS)
    """How positions are told: `none` (paper), `learned` (added to the embedding), or channels beside what attention and
    MLP read: a table for each read (`concat`), or one table with a norm for each, learned (`concat_shared`) or fixed
    (`sinusoidal`)."""
    d_position: int = 32
    """Channels of concatenated positions."""
    bigram: str = literal("auto", ("auto", *BIGRAMS))
    """Table of bigrams whose row of the current token is added to the logits: `full`, `low_rank`, `none` or `auto`:
    full up to a vocabulary of 8192, low rank above."""
    bigram_rank: int = 64
    """Rank of a `low_rank` table."""
    train_bigram: bool = False
    """Let the table of bigrams learn; otherwise it stays as the counts made it."""
    floor: int = 4
    """Nonzero weights that each neuron and attention channel keeps where the budget allows."""
    initializer_range: float = 0.02
    """Standard deviation of random initial weights."""

    def __post_init__(self) -> None:
        check_literals("sparse", self)
        for key in (
            "n_layer",
            "d_model",
            "width",
            "d_mlp",
            "d_head",
            "bigram_rank",
            "initializer_range",
            "activation_fraction",
        ):
            positive(f"sparse.{key}", getattr(self, key))
        if self.activation_fraction is not None:
            between("sparse.activation_fraction", self.activation_fraction, 0, 1)
        between("sparse.floor", self.floor, 0, 1_000_000)


@dataclass
class BridgeConfig:
    """The bridges: an encoder from the dense stream and a decoder back, at each pair of sites."""

    every: int | None = None
    """A bridge at every so many sublayers of the sparse model (null: at every one of the shallower model)."""
    activation_fraction: float | None = 0.25
    """Share of an encoded vector that AbsTopK keeps (paper: 0.25; null: linear encoders)."""
    init: str = literal("ridge", BRIDGE_INITS)
    """`ridge` starts from the closed-form regression between the two untrained streams, `random` does not."""
    ridge: float = 1e-4
    """Penalty of the regression of `init=ridge`, relative to the inputs' mean square."""
    detach_encoder_target: bool = True
    """Draw the encoder to the sparse stream, not the sparse stream to the encoder."""
    refit: int = 0
    """How often in training, evenly and last before its last step, the bridges are fitted anew by that regression: a
    sparse model that loses its weights in a few hundred steps changes faster than gradients move the bridges. Those
    that come trained with a pair never are."""
    place: str = literal("even", PLACES)
    """Where in the dense model bridges stand: `even`ly over its depth, or densely where the behaviours' own `ceiling`
    rises, that is, where the dense model moves what they depend on to shared positions."""

    def __post_init__(self) -> None:
        check_literals("bridge", self)
        between("bridge.refit", self.refit, 0, 1000)
        positive("bridge.every", self.every)
        positive("bridge.ridge", self.ridge)
        if self.activation_fraction is not None:
            between("bridge.activation_fraction", self.activation_fraction, 1e-9, 1)


@dataclass
class TermConfig:
    """Coefficients of the loss terms; a term at null is not computed, one at 0 is computed and logged only."""

    ce: float | None = 1.0
    """Coefficient of the sparse model's next-token cross-entropy."""
    kl: float | None = 1.0
    """Coefficient of KL(dense ‖ sparse), in nats per token."""
    nmse_encoder: float | None = 1.0
    """Coefficient of the encoders' normalised squared errors, summed over sites."""
    nmse_decoder: float | None = 1.0
    """Coefficient of the decoders' normalised squared errors, summed over sites."""
    kl_d2s: float | None = 1.0
    """Coefficient of KL(dense ‖ hybrid) of the single crossings from dense to sparse, summed over sites."""
    kl_s2d: float | None = 1.0
    """Coefficient of KL(dense ‖ hybrid) of the single crossings from sparse to dense, summed over sites."""
    answer: float = 0.0
    """How much more the three KLs count at the token before a prompt's answer, where rows are prompts."""

    def coefficients(self) -> dict[str, float]:
        """``{term: coefficient}`` without the absent ones."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v is not None and k != "answer"}

    def __post_init__(self) -> None:
        for key, value in dataclasses.asdict(self).items():
            if value is not None and value < 0:
                raise ConfigError(f"train.terms.{key}={value} must not be negative.")
        if not any(self.coefficients().values()):
            raise ConfigError("train.terms: at least one coefficient must be greater than 0.")


@dataclass
class TrainConfig:
    """The optimisation of sparse model and bridges together."""

    tokens: int = 400_000
    """Training tokens in all."""
    batch: int = 8
    """Sequences per optimizer step, over all processes."""
    accumulate: int = 1
    """Parts that each process's share of a batch is split into, to save memory."""
    hybrid_sites: str = "all"
    """Sites whose single crossings are computed at each step: `all`, or how many are drawn in each direction (an
    unbiased estimate of the sum)."""
    hybrid_from: float = 0.0
    """Share of the steps before the first single crossing: until then the sparse model learns from the dense model's
    logits, and the bridges from the streams, at a fraction of a step's cost."""
    hybrid_sampling: str = literal("uniform", SAMPLINGS)
    """How sites are drawn: `uniform`: each as often; `importance`: the more often the larger its KL has been."""
    precision: str = literal("auto", PRECISIONS)
    """`auto` (bf16 where the hardware has it), `fp32` or `bf16`; the weights that are trained are fp32 always."""
    optimizer: str = literal("adamw", OPTIMIZERS)
    """`adamw`, or `muon` on the matrices of the blocks with AdamW on the rest."""
    lr: float = 3e-3
    """AdamW's peak learning rate."""
    bridge_lr: float | None = None
    """The bridges' own peak rate (null: `lr`)."""
    muon_lr: float = 3e-3
    """Muon's peak rate."""
    pair_rate: float = 0.1
    """Factor on `lr`, `bridge_lr` and `muon_lr` where training goes on from a trained pair, which large steps would
    undo."""
    freeze_sparse: bool = False
    """Train the bridges alone; the sparse model stays as it starts."""
    beta1: float = 0.9
    """AdamW's decay of the gradients' mean."""
    beta2: float = 0.95
    """AdamW's decay of the gradients' mean square."""
    eps: float = 1e-8
    """AdamW's ε (paper: 0.1, for gradients normalised to RMS 1)."""
    weight_decay: float = 0.1
    """AdamW's decoupled weight decay."""
    gradient_rms: str = literal("clip", GRADIENT_RULES)
    """`clip` the RMS over all gradients at `max_grad_rms`, or always `normalise` it to that."""
    max_grad_rms: float = 1.0
    """RMS over all gradients that `gradient_rms` clips or normalises them to."""
    warmup: float = 0.01
    """Share of the steps over which the learning rate rises."""
    anneal: float = 0.5
    """Share of the steps by whose end the fraction of nonzero weights has fallen to `sparsity`."""
    anneal_shape: str = literal("linear", ANNEAL_SHAPES)
    """How the fraction of nonzero weights falls: `linear` or `exponential`."""
    sharkfin: bool = True
    """Let the sparse model's rates rise as one over the root of the fraction of weights that are left."""
    log_every: int = 10
    """Optimizer steps between rows of the training table."""
    checkpoint_every: int = 100
    """Optimizer steps between checkpoints."""
    keep_checkpoints: int = 2
    """Checkpoints that stay on disk."""
    terms: TermConfig = field(default_factory=TermConfig)
    """Coefficients of the loss terms; a term at null is not computed, one at 0 is computed and logged only."""

    def __post_init__(self) -> None:
        check_literals("train", self)
        for key in (
            "tokens",
            "batch",
            "accumulate",
            "lr",
            "bridge_lr",
            "muon_lr",
            "pair_rate",
            "eps",
            "max_grad_rms",
            "log_every",
            "checkpoint_every",
            "keep_checkpoints",
        ):
            positive(f"train.{key}", getattr(self, key))
        for key in ("beta1", "beta2", "warmup"):
            between(f"train.{key}", getattr(self, key), 0, 1)
        if self.weight_decay < 0:
            raise ConfigError(f"train.weight_decay={self.weight_decay} must not be negative.")
        between("train.anneal", self.anneal, 0, 1)
        between("train.hybrid_from", self.hybrid_from, 0, 1)
        self.hybrid_sites = str(self.hybrid_sites)
        if self.hybrid_sites != "all" and not (self.hybrid_sites.isdigit() and int(self.hybrid_sites) > 0):
            raise ConfigError(f"train.hybrid_sites={self.hybrid_sites} must be 'all' or a whole number from 1.")
        if self.batch % self.accumulate:
            raise ConfigError(f"train.batch={self.batch} must be a multiple of train.accumulate={self.accumulate}.")
