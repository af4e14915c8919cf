"""Every setting with its meaning, unit and check. Hydra fills these in; a notebook can too.

Checks run where an object is made, so a wrong value never reaches the pipeline, and each message names the key as it is
written on the command line.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from bridges.choices import ACTIVATIONS, ANNEAL_SHAPES, BIGRAMS, KERNELS, NODE_KINDS, POSITIONS, STREAM_POINTS, one_of
from bridges.circuits.settings import METHODS, CircuitSettings
from bridges.errors import ConfigError, nearest

PRECISIONS = ("auto", "fp32", "bf16")
DTYPES = ("fp32", "bf16")
OPTIMIZERS = ("adamw", "muon")
SAMPLINGS = ("uniform", "importance")
SOURCES = ("tinypython", "python", "files", "hub", "planted")
SUITES = ("python", "english", "file", "planted", "none")
TRACKERS = ("off", "offline", "wandb")
STACKS = ("sparse", "dense")
CONTROLS = (
    "sufficiency",
    "resample",
    "necessity",
    "random_circuits",
    "nonsense",
    "random_weights",
    "interchange",
    "stochastic",
    "adversarial",
    "seeds",
)
BRIDGE_INITS = ("ridge", "random")
GRADIENT_RULES = ("clip", "normalise")


def _positive(key: str, value: float | None) -> None:
    if value is not None and not value > 0:
        raise ConfigError(f"{key}={value} must be greater than 0.")


def _between(key: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{key}={value} must lie between {low} and {high}.")


@dataclass
class ModelConfig:
    """The pretrained dense model.

    Attributes:
        name: ``tinypython`` (bundled), a Hub id, a local folder, ``package:<module>`` for a file in a package, or
            ``planted:<seed>`` for a world whose circuits are known (`bridges.planted`).
        label: short name used in folder names and tables.
        gguf_file: file name of GGUF weights inside ``name``.
        revision: branch, tag or commit on the Hub.
        dtype: ``fp32`` or ``bf16`` storage of the frozen weights.
    """

    name: str = "tinypython"
    label: str = "tinypython"
    gguf_file: str | None = None
    revision: str | None = None
    dtype: str = "fp32"

    def __post_init__(self) -> None:
        one_of("model.dtype", self.dtype, DTYPES)
        # `hf.yaml` leaves the label open: the last part of a path or Hub id reads best in tables.
        if not self.label:
            self.label = self.name.rstrip("/").rsplit("/", 1)[-1]


@dataclass
class DataConfig:
    """The text.

    Attributes:
        source: ``tinypython`` (what the bundled model learned from: standard library, installed packages under
            permissive licences, generated idioms), ``python`` (the standard library alone), ``files``, ``hub`` or
            ``planted`` (a world's own language).
        path: folder or file for ``files``, dataset id for ``hub``, seed of the world for ``planted``.
        pattern: glob below ``path``.
        subset: configuration of a Hub dataset. column: its text column.
        context: tokens per sequence.
        max_chars: read no more than this many characters (null: everything).
    """

    source: str = "python"
    path: str | None = None
    pattern: str = "**/*.*"
    subset: str | None = None
    column: str = "text"
    context: int = 256
    max_chars: int | None = None

    def __post_init__(self) -> None:
        one_of("data.source", self.source, SOURCES)
        if self.source in ("files", "hub") and not self.path:
            raise ConfigError(
                f"data.source={self.source} needs data.path=<{'folder' if self.source == 'files' else 'dataset id'}>."
            )
        _positive("data.max_chars", self.max_chars)
        if self.context < 2:
            raise ConfigError(f"data.context={self.context} must be at least 2 tokens.")


@dataclass
class SparseConfig:
    """The weight-sparse transformer; see `bridges.sparse.SparseTransformerConfig` for the meaning of each switch.

    Attributes:
        init: what training starts from: ``random`` weights, the ``dense`` model's, the ``shipped`` pair, the folder of
            another run, a world's own weights (``planted``), or ``auto``: the shipped pair where one fits, random
            weights elsewhere.
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
            _positive(f"sparse.{key}", getattr(self, key))
        if self.activation_fraction is not None:
            _between("sparse.activation_fraction", self.activation_fraction, 0, 1)
        for point in self.activation_points:
            one_of("sparse.activation_points", point, (*NODE_KINDS, *STREAM_POINTS))
        _between("sparse.floor", self.floor, 0, 1_000_000)


@dataclass
class BridgeConfig:
    """Encoders and decoders.

    Attributes:
        every: a bridge at every so many sublayers of the sparse model (null: at every one of the shallower model).
        activation_fraction: share of an encoded vector AbsTopK keeps (paper: ¼; null: linear encoders).
        init: ``ridge`` starts from the closed-form regression between the two untrained streams, ``random`` does not.
        ridge: penalty of that regression relative to the inputs' mean square.
        detach_encoder_target: draw the encoder to the sparse stream, not the sparse stream to the encoder.
    """

    every: int | None = None
    activation_fraction: float | None = 0.25
    init: str = "ridge"
    ridge: float = 1e-4
    detach_encoder_target: bool = True

    def __post_init__(self) -> None:
        one_of("bridge.init", self.init, BRIDGE_INITS)
        _positive("bridge.every", self.every)
        _positive("bridge.ridge", self.ridge)
        if self.activation_fraction is not None:
            _between("bridge.activation_fraction", self.activation_fraction, 1e-9, 1)


@dataclass
class TermConfig:
    """Coefficients of the loss terms. null: not computed; 0: computed and logged only.

    Attributes:
        ce: next-token cross-entropy of the sparse model.
        kl: KL(dense ‖ sparse).
        nmse_encoder, nmse_decoder: the bridges' normalised squared errors, summed over sites.
        kl_d2s, kl_s2d: KL(dense ‖ single crossing), summed over sites.
    """

    ce: float | None = 1.0
    kl: float | None = 1.0
    nmse_encoder: float | None = 1.0
    nmse_decoder: float | None = 1.0
    kl_d2s: float | None = 1.0
    kl_s2d: float | None = 1.0

    def coefficients(self) -> dict[str, float]:
        """``{term: coefficient}`` without the absent ones."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v is not None}

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
        eps: AdamW's ε (paper: 0.1, for gradients normalised to RMS 1).
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
            _positive(f"train.{key}", getattr(self, key))
        for key in ("beta1", "beta2", "warmup"):
            _between(f"train.{key}", getattr(self, key), 0, 1)
        if self.weight_decay < 0:
            raise ConfigError(f"train.weight_decay={self.weight_decay} must not be negative.")
        _between("train.anneal", self.anneal, 0, 1)
        self.hybrid_sites = str(self.hybrid_sites)
        if self.hybrid_sites != "all" and not (self.hybrid_sites.isdigit() and int(self.hybrid_sites) > 0):
            raise ConfigError(f"train.hybrid_sites={self.hybrid_sites} must be 'all' or a whole number from 1.")
        one_of("train.hybrid_sampling", self.hybrid_sampling, SAMPLINGS)
        if self.batch % self.accumulate:
            raise ConfigError(f"train.batch={self.batch} must be a multiple of train.accumulate={self.accumulate}.")


@dataclass
class EvalConfig:
    """Measuring the hybrids on held-out documents.

    Attributes:
        sequences: held-out sequences. batch: how many at once.
        double_paths: two-crossing paths that are measured, drawn at random (null: all).
        bootstrap: resamples of the sequences behind each 95 % interval.
        ridge_tokens: training tokens the ridge-regressed bridges are fitted on.
    """

    sequences: int = 32
    batch: int = 8
    double_paths: int | None = 12
    bootstrap: int = 1000
    ridge_tokens: int = 65_536

    def __post_init__(self) -> None:
        for key in ("sequences", "batch", "bootstrap", "ridge_tokens"):
            _positive(f"eval.{key}", getattr(self, key))
        if self.double_paths is not None and self.double_paths < 0:
            raise ConfigError(f"eval.double_paths={self.double_paths} must not be negative (null: all).")


@dataclass
class BehavioursConfig:
    """What the models are asked to do.

    Attributes:
        suite: ``python``, ``english``, ``file`` (JSON lines at ``path``), ``planted`` (a world's own) or ``none``.
        path: the file of pairs, or the seed of the world.
        names: only these behaviours of the suite (null: all).
        pairs: prompt pairs of each split.
        hybrid_pairs: how many of them the hybrids at every bridge are measured on.
    """

    suite: str = "python"
    path: str | None = None
    names: list[str] | None = None
    pairs: int = 512
    hybrid_pairs: int = 64

    def __post_init__(self) -> None:
        one_of("behaviours.suite", self.suite, SUITES)
        if self.suite == "file" and not self.path:
            raise ConfigError("behaviours.suite=file needs behaviours.path=<JSONL file of prompt pairs>.")
        for key in ("pairs", "hybrid_pairs"):
            _positive(f"behaviours.{key}", getattr(self, key))


@dataclass
class ControlsConfig:
    """What a circuit has to stand up to (paper, appendix E; the critique). Losses are two-way, in nats; chance is 0.69.

    Attributes:
        names: only these controls (null: all; an empty list: none).
        pairs: held-out pairs of the controls that run a circuit a few times.
        set_pairs: held-out pairs of those that run many node sets, in batches of sets.
        draws: random draws where a control needs some. random_sets: size-matched random node sets.
        seeds: searches whose circuits are compared; the nulls are compared with the same searches.
        twin_pairs, twin_steps: of those searches, real and null alike.
        adversary_steps: gradient steps of the adversary, from each of two starts. adversary_budget: how many nodes it
            may flip, as a share of the circuit's nodes.
        stop_early: leave out the controls that need further searches where one of the others has failed already.
        sufficiency: most held-out loss of the circuit alone, everything else at its mean.
        resample: the same, everything else at values from other text.
        quantile: share of the random sets a circuit must beat, in necessity and as random circuits.
        null_ratio: how many times larger a circuit of nonsense labels or of shuffled weights must be, if there is one.
        interchange: least share of prompts on which whole model and circuit decide alike after nodes were exchanged.
        stochastic: most loss with random parts of the complement ablated.
        adversarial: most loss after the flips that do the most harm.
        jaccard: least mean overlap of circuits of several seeds. overlap: how many times that of random sets it must
            be.
    """

    names: list[str] | None = None
    pairs: int = 64
    set_pairs: int = 8
    draws: int = 3
    random_sets: int = 50
    seeds: int = 2
    twin_pairs: int = 32
    twin_steps: int = 60
    adversary_steps: int = 6
    adversary_budget: float = 0.1
    stop_early: bool = False
    sufficiency: float = 0.3
    resample: float = 0.5
    quantile: float = 0.95
    null_ratio: float = 1.5
    interchange: float = 0.8
    stochastic: float = 0.3
    adversarial: float = 0.5
    jaccard: float = 0.5
    overlap: float = 3.0

    def __post_init__(self) -> None:
        for name in self.names or ():
            one_of("circuits.controls.names", name, CONTROLS)
        counts = ("pairs", "set_pairs", "draws", "random_sets", "twin_pairs", "twin_steps", "adversary_steps")
        bars = ("sufficiency", "resample", "null_ratio", "stochastic", "adversarial", "overlap")
        for key in (*counts, "adversary_budget", *bars):
            _positive(f"circuits.controls.{key}", getattr(self, key))
        for key in ("quantile", "interchange", "jaccard"):
            _between(f"circuits.controls.{key}", getattr(self, key), 0, 1)
        if self.seeds < 2:
            raise ConfigError(f"circuits.controls.seeds={self.seeds} must be at least 2: circuits are compared.")

    @property
    def chosen(self) -> tuple[str, ...]:
        """The controls to run, in order."""
        return CONTROLS if self.names is None else tuple(name for name in CONTROLS if name in self.names)


@dataclass
class CircuitsConfig(CircuitSettings):
    """Which circuits are searched for and what they are put to; how they are searched for: `CircuitSettings`.

    Attributes:
        ablation: in runs nodes are removed in both ways, since a circuit has to stand up to both.
        models: stacks that are searched (an empty list: no circuits).
        baselines: further methods of ranking nodes, tried on the sparse model.
        min_accuracy: behaviours that the dense model does less often than this on held-out pairs are left out.
        heldout_pairs: held-out pairs that a found circuit is measured on.
        reference_tokens: training tokens that the means of nodes are taken over.
        top_activations: places in text that are kept for every node of a sparse circuit (0: none).
        activation_tokens: held-out tokens they are looked for in.
        importance_nodes: circuits up to this size have the importance of each node measured, by removing it.
        targets: another target for some behaviours, ``{name: nats}``.
        controls: what the sparse circuits are put to.
    """

    ablation: str = "mixed"
    models: list[str] = field(default_factory=lambda: ["sparse", "dense"])
    baselines: list[str] = field(default_factory=lambda: ["attribution", "integrated_gradients"])
    min_accuracy: float = 0.9
    heldout_pairs: int = 128
    reference_tokens: int = 16_384
    top_activations: int = 5
    activation_tokens: int = 8192
    importance_nodes: int = 128
    targets: dict[str, float] = field(default_factory=dict)
    controls: ControlsConfig = field(default_factory=ControlsConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.models:
            one_of("circuits.models", name, STACKS)
        for name in self.baselines:
            one_of("circuits.baselines", name, METHODS)
        _between("circuits.min_accuracy", self.min_accuracy, 0, 1)
        for key in ("heldout_pairs", "reference_tokens", "activation_tokens"):
            _positive(f"circuits.{key}", getattr(self, key))
        for name, value in self.targets.items():
            _positive(f"circuits.targets.{name}", value)
        for key in ("top_activations", "importance_nodes"):
            if getattr(self, key) < 0:
                raise ConfigError(f"circuits.{key}={getattr(self, key)} must not be negative.")

    def settings(self, **changes: Any) -> CircuitSettings:
        """The settings of one search, some of them changed."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(CircuitSettings)}
        return CircuitSettings(**(values | changes))


@dataclass
class CompareConfig:
    """How dense model, sparse model and circuits are held against each other.

    Attributes:
        heldout_pairs: held-out pairs that agreement is measured on.
        pairs: held-out pairs, with two equally long prompts, that changes are carried across the chosen bridge on.
        site_pairs: how many of them at every other bridge.
        train_pairs: training pairs that bridges, channels and the baselines' directions are chosen on.
        steering_pairs: held-out pairs of the steering curves.
        draws: repetitions of what is drawn at random; every pair has its own draw in each.
        channels: single channels tried at each bridge, those whose change carries most.
        strengths: factors of the steering curves.
        text_tokens: held-out tokens that losses are correlated on. similarity_tokens: those that streams are compared
            on.
        reference_tokens: training tokens that a stream's mean is taken over.
        ridge: penalty of the cross-validated regressions, relative to the mean square of the inputs.
        folds: of those regressions, by sequence.
        bootstrap: resamples of the pairs behind every interval and p-value.
    """

    heldout_pairs: int = 128
    pairs: int = 64
    site_pairs: int = 16
    train_pairs: int = 16
    steering_pairs: int = 16
    draws: int = 1
    channels: int = 4
    strengths: list[float] = field(default_factory=lambda: [0.0, 0.25, 0.5, 0.75, 1.0])
    text_tokens: int = 16_384
    similarity_tokens: int = 4096
    reference_tokens: int = 16_384
    ridge: float = 1e-4
    folds: int = 5
    bootstrap: int = 2000

    def __post_init__(self) -> None:
        counts = ("heldout_pairs", "pairs", "site_pairs", "train_pairs", "steering_pairs", "draws", "channels")
        for key in (*counts, "text_tokens", "similarity_tokens", "reference_tokens", "ridge", "bootstrap"):
            _positive(f"compare.{key}", getattr(self, key))
        for strength in self.strengths:
            _between("compare.strengths", strength, 0, 1)
        if self.folds < 2:
            raise ConfigError(f"compare.folds={self.folds} must be at least 2.")


@dataclass
class VerdictConfig:
    """The bars that decide whether a sparse circuit explains what the dense model does.

    Attributes:
        dense_accuracy: least held-out accuracy of the dense model; below it there is nothing to explain.
        circuit_accuracy: least held-out accuracy of the circuit alone.
        decision_agreement: least share of held-out prompts that circuit and dense model decide alike.
        share_moved: least share of the dense model's logit difference that the circuit's interchange moves, carried
            across one bridge; the interval must also lie above 0.
        dense_to_sparse: least accuracy of the circuit that goes on from the encoded dense stream; it must also lie
            above the same with shuffled encoders, interval and all.
        alpha: level of the tests against nulls, after Holm's correction over the behaviours.
    """

    dense_accuracy: float = 0.9
    circuit_accuracy: float = 0.9
    decision_agreement: float = 0.9
    share_moved: float = 0.5
    dense_to_sparse: float = 0.8
    alpha: float = 0.05

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            _between(f"verdict.{f.name}", getattr(self, f.name), 0, 1)


@dataclass
class TrackingConfig:
    """Weights & Biases.

    Attributes:
        mode: ``wandb``, ``offline`` (sync later) or ``off``. The tables on disk are written in every mode.
        project, entity, group, tags: as in W&B.
    """

    mode: str = "off"
    project: str = "bridges"
    entity: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        one_of("tracking.mode", self.mode, TRACKERS)


@dataclass
class Config:
    """One run.

    Attributes:
        seed: of every random draw.
        sparsity: fraction of nonzero entries in every weight matrix of the finished sparse model.
        runs_dir: where run folders are made. name: the folder's name (null: made from date and settings).
        resume: a run folder to go on with; every other setting then comes from it.
        kernels: ``cpp`` on the CPU, ``python`` (plain PyTorch) or ``auto``: C++ where it can be compiled.
    """

    seed: int = 0
    sparsity: float = 0.05
    runs_dir: str = "runs"
    name: str | None = None
    resume: str | None = None
    kernels: str = "auto"
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    sparse: SparseConfig = field(default_factory=SparseConfig)
    bridge: BridgeConfig = field(default_factory=BridgeConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    behaviours: BehavioursConfig = field(default_factory=BehavioursConfig)
    circuits: CircuitsConfig = field(default_factory=CircuitsConfig)
    compare: CompareConfig = field(default_factory=CompareConfig)
    verdict: VerdictConfig = field(default_factory=VerdictConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"seed={self.seed} must not be negative.")
        one_of("kernels", self.kernels, KERNELS)
        if not 0 < self.sparsity <= 1:
            raise ConfigError(
                f"sparsity={self.sparsity} must lie in (0, 1]: it is the fraction of weights that are not zero."
            )


def to_dict(config: Config) -> dict[str, Any]:
    """Nested plain values, as `config.yaml` holds them."""
    return dataclasses.asdict(config)


def from_dict(values: dict[str, Any]) -> Config:
    """The config of a `config.yaml`.

    Raises:
        ConfigError: a key is unknown, as in a folder written by a newer version.
    """
    return _build(Config, values, "")


def _build(cls: type, values: dict[str, Any], prefix: str) -> Any:
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in values:
        if key not in fields:
            raise ConfigError(f"Unknown key {prefix}{key}. {nearest(key, fields)}")
        if dataclasses.is_dataclass(fields[key].default_factory) and not isinstance(values[key], dict):
            raise ConfigError(f"{prefix}{key}={values[key]!r} must be a section with settings below it.")
    nested: dict[str, Any] = {}
    for name, f in fields.items():
        section: Any = f.default_factory
        if isinstance(section, type) and dataclasses.is_dataclass(section) and name in values:
            nested[name] = _build(section, values[name], f"{prefix}{name}.")
    return cls(**{**values, **nested})


def flat(config: Config) -> dict[str, Any]:
    """Dotted keys to values: ``{"train.lr": 0.003, …}``."""
    out: dict[str, Any] = {}

    def walk(prefix: str, section: Any) -> None:
        for f in dataclasses.fields(section):
            value, key = getattr(section, f.name), f"{prefix}{f.name}"
            if dataclasses.is_dataclass(value):
                walk(f"{key}.", value)
            else:
                out[key] = value

    walk("", config)
    return out
