"""Settings of what is measured after training: hybrids, behaviours, circuits and their controls, verdicts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from bridges.config.checks import between, positive
from bridges.config.literals import one_of
from bridges.config.search import METHODS, CircuitSettings
from bridges.errors import ConfigError

SUITES = ("python", "english", "file", "planted", "none")
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
            positive(f"eval.{key}", getattr(self, key))
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
            positive(f"behaviours.{key}", getattr(self, key))


@dataclass
class ControlsConfig:
    """What a circuit has to stand up to (paper, appendix E; the critique). Losses are two-way, in nats; chance is 0.69.

    Attributes:
        names: only these controls (null: all; an empty list: none).
        pairs: held-out pairs of the controls that run a circuit a few times.
        set_pairs: held-out pairs of those that run many node sets, in batches of sets.
        draws: random draws where a control needs some. random_sets: size-matched random node sets.
        seeds: searches whose circuits are compared; the nulls are compared with the same searches.
        twin_pairs, twin_steps: ``pairs`` and ``steps`` of those searches, real and null alike. Where they are those of
            the circuit's own search, it is the first of them.
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
            positive(f"circuits.controls.{key}", getattr(self, key))
        for key in ("quantile", "interchange", "jaccard"):
            between(f"circuits.controls.{key}", getattr(self, key), 0, 1)
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
        workers: behaviours worked on at a time, measured, searched and compared, each in copies of the models (null: as
            many as the processor's threads, 4 at most; 1 on a GPU). Like the number of threads, it may change the last
            digits of a sum.
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
    workers: int | None = None
    controls: ControlsConfig = field(default_factory=ControlsConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.models:
            one_of("circuits.models", name, STACKS)
        if self.method != "learned":
            raise ConfigError(
                f"circuits.method={self.method}: a run's circuits are learned, and verdicts are given on them. Other "
                f"rankings stand beside them with circuits.baselines=[{self.method}]."
            )
        for name in self.baselines:
            one_of("circuits.baselines", name, [m for m in METHODS if m != "learned"])
        between("circuits.min_accuracy", self.min_accuracy, 0, 1)
        for key in ("heldout_pairs", "reference_tokens", "activation_tokens"):
            positive(f"circuits.{key}", getattr(self, key))
        if self.workers is not None:
            positive("circuits.workers", self.workers)
        for name, value in self.targets.items():
            positive(f"circuits.targets.{name}", value)
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
            positive(f"compare.{key}", getattr(self, key))
        for strength in self.strengths:
            between("compare.strengths", strength, 0, 1)
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
            between(f"verdict.{f.name}", getattr(self, f.name), 0, 1)


def searched_from(circuits: CircuitsConfig, verdict: VerdictConfig) -> None:
    """A `ConfigError` where behaviours would be judged that no circuit is searched for."""
    if circuits.models and verdict.dense_accuracy < circuits.min_accuracy:
        raise ConfigError(
            f"verdict.dense_accuracy={verdict.dense_accuracy} is below circuits.min_accuracy={circuits.min_accuracy}, "
            "from which on circuits are searched for: what lies between would count as not reproduced. Lower both."
        )
