"""Settings of what is trained and on what: the two models, the text, the bridges, the training."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from bridges.config.checks import between, positive
from bridges.config.literals import ACTIVATIONS, ANNEAL_SHAPES, BIGRAMS, NODE_KINDS, POSITIONS, STREAM_POINTS, one_of
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
    """The pretrained dense model.

    Attributes:
        name: ``tinypython`` (bundled), a Hub id, a local folder (of a Hugging Face model, or of OpenAI's format),
            ``package:<module>`` for a file in a package, or ``planted:<seed>`` for a world whose circuits are known
            (`bridges.planted`).
        label: short name used in folder names and tables.
        gguf_file: file name of GGUF weights inside ``name``.
        revision: branch, tag or commit on the Hub.
        dtype: ``fp32`` or ``bf16`` storage of the frozen weights.
        leading_token: token that every document and prompt begins with, or ``none`` (null: the tokenizer's own; where
            it puts none and there is a choice, the one after which the model's loss on its text is least).
    """

    name: str = "tinypython"
    label: str = "tinypython"
    gguf_file: str | None = None
    revision: str | None = None
    dtype: str = "fp32"
    leading_token: str | None = None

    def __post_init__(self) -> None:
        one_of("model.dtype", self.dtype, DTYPES)
        if not self.name:
            raise ConfigError(
                "model.name is empty: model=hf needs model.name=<folder or Hub id>, model=openai model.name=<folder>."
            )
        # `hf.yaml` leaves the label open: the last part of a path or Hub id reads best in tables.
        if not self.label:
            self.label = self.name.rstrip("/").rsplit("/", 1)[-1]


@dataclass
class DataConfig:
    """The text.

    Attributes:
        source: ``tinypython`` (generated idioms and the standard library of the running Python, half of each: the same
            text wherever the minor version of Python is the same), ``python`` (the standard library alone), ``files``,
            ``english`` (the language reference inside the running
            Python), ``hub`` or ``planted`` (a world's own language).
        path: folder of ``files``, dataset id for ``hub``, seed of the world for ``planted``.
        pattern: glob below ``path``.
        subset: configuration of a Hub dataset. column: its text column.
        context: tokens per sequence.
        max_chars: read no more than this many characters (null: everything).
        focus: share of training rows that are the behaviours' own prompts with their answers; 0 is ordinary text alone,
            1 prompts alone. The rest are pieces of ``context`` tokens of the text named above.
        prompts: prompts of each behaviour that are trained on, where ``focus`` is above 0.
        vocabulary: ``all`` tokens, or with a ``focus`` above 0 those ``seen`` in the behaviours' prompts and the
            text beside them: the dense model has no logits of others then.
    """

    source: str = "python"
    path: str | None = None
    pattern: str = "**/*.*"
    subset: str | None = None
    column: str = "text"
    context: int = 256
    max_chars: int | None = None
    focus: float = 0.0
    prompts: int = 1024
    vocabulary: str = "all"

    def __post_init__(self) -> None:
        one_of("data.source", self.source, SOURCES)
        one_of("data.vocabulary", self.vocabulary, VOCABULARIES)
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
    """The weight-sparse transformer; see `bridges.sparse.SparseTransformerConfig` for the meaning of each switch.

    Attributes:
        init: what training starts from: ``random`` weights, the ``dense`` model's, the ``shipped`` pair, the folder of
            another run, a model in OpenAI's format (``openai:<folder>``), a world's own weights (``planted``), or
            ``auto``: the shipped pair where one fits, random weights elsewhere.
        n_layer: layers (null: as many as the dense model has).
        d_model: width of the stream (null: ``width`` times the dense width). width: null is 1, or the pair's.
        bigram: ``full``, ``low_rank``, ``none`` or ``auto``: full up to a vocabulary of 8192, low rank above.
        train_bigram: let the table learn; otherwise it stays as the counts made it.
        floor: nonzeros each neuron and attention channel keeps where the budget allows.
    """

    init: str = "auto"
    n_layer: int | None = None
    d_model: int | None = None
    width: float | None = None
    d_mlp: int | None = None
    d_head: int = 16
    activation: str = "gelu"
    activation_fraction: float | None = 0.25
    activation_points: list[str] = field(default_factory=lambda: list(NODE_KINDS))
    bias: bool = True
    norm_gain: bool = False
    norm_eps: float | None = 1e-5
    attention_sink: bool = True
    position: str = "none"
    d_position: int = 32
    bigram: str = "auto"
    bigram_rank: int = 64
    train_bigram: bool = False
    floor: int = 4
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        one_of("sparse.bigram", self.bigram, ("auto", *BIGRAMS))
        one_of("sparse.activation", self.activation, ACTIVATIONS)
        one_of("sparse.position", self.position, POSITIONS)
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
        for point in self.activation_points:
            one_of("sparse.activation_points", point, (*NODE_KINDS, *STREAM_POINTS))
        between("sparse.floor", self.floor, 0, 1_000_000)


@dataclass
class BridgeConfig:
    """Encoders and decoders.

    Attributes:
        every: a bridge at every so many sublayers of the sparse model (null: at every one of the shallower model).
        activation_fraction: share of an encoded vector AbsTopK keeps (paper: ¼; null: linear encoders).
        init: ``ridge`` starts from the closed-form regression between the two untrained streams, ``random`` does not.
        ridge: penalty of that regression relative to the inputs' mean square.
        detach_encoder_target: draw the encoder to the sparse stream, not the sparse stream to the encoder.
        refit: how often during annealing, evenly and last at its end, the bridges are fitted anew by that regression: a
            sparse model that loses its weights in a few hundred steps changes faster than gradients move the bridges.
        place: where in the dense model bridges stand: ``even``ly over its depth, or densely where the behaviours' own
            ``ceiling`` rises, that is, where the dense model moves what they depend on to shared positions.
    """

    every: int | None = None
    activation_fraction: float | None = 0.25
    init: str = "ridge"
    ridge: float = 1e-4
    detach_encoder_target: bool = True
    refit: int = 0
    place: str = "even"

    def __post_init__(self) -> None:
        one_of("bridge.place", self.place, PLACES)
        between("bridge.refit", self.refit, 0, 1000)
        one_of("bridge.init", self.init, BRIDGE_INITS)
        positive("bridge.every", self.every)
        positive("bridge.ridge", self.ridge)
        if self.activation_fraction is not None:
            between("bridge.activation_fraction", self.activation_fraction, 1e-9, 1)


@dataclass
class TermConfig:
    """Coefficients of the loss terms. null: not computed; 0: computed and logged only.

    Attributes:
        ce: next-token cross-entropy of the sparse model.
        kl: KL(dense ‖ sparse).
        nmse_encoder, nmse_decoder: the bridges' normalised squared errors, summed over sites.
        kl_d2s, kl_s2d: KL(dense ‖ single crossing), summed over sites.
        answer: how much more the three KLs count at the token before a prompt's answer, where rows are prompts.
    """

    ce: float | None = 1.0
    kl: float | None = 1.0
    nmse_encoder: float | None = 1.0
    nmse_decoder: float | None = 1.0
    kl_d2s: float | None = 1.0
    kl_s2d: float | None = 1.0
    answer: float = 0.0

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
    """Optimisation.

    Attributes:
        tokens: training tokens in all.
        batch: sequences per optimizer step, over all processes. accumulate: split each process's share in so many.
        hybrid_sites: ``all``, or how many sites are sampled per step and direction (unbiased).
        hybrid_sampling: ``uniform``: every site as often; ``importance``: the more often the larger its KL has been.
        precision: ``auto`` (bf16 where the hardware has it), ``fp32`` or ``bf16``; master weights are fp32 always.
        optimizer: ``adamw``, or ``muon`` on the block matrices with AdamW on the rest.
        lr: AdamW's peak rate. bridge_lr: the bridges' own (null: ``lr``). muon_lr: Muon's.
        pair_rate: factor on all three where training goes on from a trained pair, which large steps would undo.
        freeze_sparse: train the bridges alone; the sparse model stays as it starts.
        beta1, beta2, weight_decay: AdamW's. eps: its ε (paper: 0.1, for gradients normalised to RMS 1).
        sharkfin: the sparse model's rates rise as one over the root of the fraction of weights that are left.
        gradient_rms: ``clip`` the RMS over all gradients to ``max_grad_rms`` or always ``normalise`` it.
        warmup, anneal: shares of the steps, see `bridges.sparse.Schedule`. anneal_shape: ``linear`` or ``exponential``.
        log_every, checkpoint_every: optimizer steps. keep_checkpoints: how many stay on disk.
        terms: coefficients of the loss terms.
    """

    tokens: int = 400_000
    batch: int = 8
    accumulate: int = 1
    hybrid_sites: str = "all"
    hybrid_sampling: str = "uniform"
    precision: str = "auto"
    optimizer: str = "adamw"
    lr: float = 3e-3
    bridge_lr: float | None = None
    muon_lr: float = 3e-3
    pair_rate: float = 0.1
    freeze_sparse: bool = False
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    gradient_rms: str = "clip"
    max_grad_rms: float = 1.0
    warmup: float = 0.01
    anneal: float = 0.5
    anneal_shape: str = "linear"
    sharkfin: bool = True
    log_every: int = 10
    checkpoint_every: int = 100
    keep_checkpoints: int = 2
    terms: TermConfig = field(default_factory=TermConfig)

    def __post_init__(self) -> None:
        one_of("train.precision", self.precision, PRECISIONS)
        one_of("train.optimizer", self.optimizer, OPTIMIZERS)
        one_of("train.anneal_shape", self.anneal_shape, ANNEAL_SHAPES)
        one_of("train.gradient_rms", self.gradient_rms, GRADIENT_RULES)
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
        self.hybrid_sites = str(self.hybrid_sites)
        if self.hybrid_sites != "all" and not (self.hybrid_sites.isdigit() and int(self.hybrid_sites) > 0):
            raise ConfigError(f"train.hybrid_sites={self.hybrid_sites} must be 'all' or a whole number from 1.")
        one_of("train.hybrid_sampling", self.hybrid_sampling, SAMPLINGS)
        if self.batch % self.accumulate:
            raise ConfigError(f"train.batch={self.batch} must be a multiple of train.accumulate={self.accumulate}.")
