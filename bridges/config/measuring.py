"""Settings of what is measured after training: hybrids, behaviours, circuits and their controls, verdicts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from bridges.config.checks import between, positive
from bridges.config.literals import check_literals, choices, literal
from bridges.config.search import METHODS, CircuitSettings
from bridges.errors import ConfigError

SUITES = ("python", "english", "file", "planted", "none")
STACKS = ("sparse", "dense")
# What a verdict's claims ask for, what tells how robust a circuit is, and null searches beside them.
CLAIM_CONTROLS = ("necessity", "consistent_labels")
ROBUSTNESS = ("resample", "random_text", "interchange", "stochastic", "adversarial", "seeds", "reach")
# What takes as long as all else together: gradient steps of an adversary, and whole searches with other seeds.
SLOW = ("adversarial", "seeds")
NULL_SEARCHES = ("shuffled_labels", "shuffled_weights")
CONTROLS = (*CLAIM_CONTROLS, *ROBUSTNESS, "random_circuits", *NULL_SEARCHES)


@dataclass
class EvalConfig:
    """Measuring the hybrids on held-out documents."""

    sequences: int = 32
    """Held-out sequences that hybrids are measured on."""
    batch: int = 8
    """Held-out sequences in one pass."""
    double_paths: int | None = 12
    """Two-crossing paths that are measured, drawn at random (null: all)."""
    bootstrap: int = 1000
    """Resamples of the sequences behind each 95 % interval."""
    ridge_tokens: int = 65_536
    """Training tokens that the ridge-regressed bridges are fitted on."""

    def __post_init__(self) -> None:
        for key in ("sequences", "batch", "bootstrap", "ridge_tokens"):
            positive(f"eval.{key}", getattr(self, key))
        if self.double_paths is not None and self.double_paths < 0:
            raise ConfigError(f"eval.double_paths={self.double_paths} must not be negative (null: all).")


@dataclass
class BehavioursConfig:
    """What the models are asked to do."""

    suite: str = literal("python", SUITES)
    """`python`, `english`, `file` (JSON lines at `path`), `planted` (a world's own) or `none`."""
    path: str | None = None
    """File of prompt pairs for `file`, seed of the world for `planted`."""
    names: list[str] | None = None
    """Only these behaviours of the suite (null: all)."""
    pairs: int = 512
    """Prompt pairs of each split."""
    hybrid_pairs: int = 64
    """Prompt pairs that the hybrids at every bridge are measured on."""

    def __post_init__(self) -> None:
        check_literals("behaviours", self)
        if self.suite == "file" and not self.path:
            raise ConfigError("behaviours.suite=file needs behaviours.path=<JSONL file of prompt pairs>.")
        for key in ("pairs", "hybrid_pairs"):
            positive(f"behaviours.{key}", getattr(self, key))


@dataclass
class ControlsConfig:
    """What a circuit is put to beside the claims of the verdict (paper, appendix E; the critique)."""

    names: list[str] | None = field(default=None, metadata=choices(CONTROLS))
    """Only these controls (null: those of the claims, and of the robustness line what needs neither an adversary nor
    further searches, which `circuits=robust` adds; an empty list: none)."""
    pairs: int = 64
    """Held-out pairs of every control."""
    draws: int = 2
    """Random draws where a control needs some."""
    random_sets: int = 50
    """Random node sets of the circuit's size."""
    seeds: int = 2
    """Searches whose circuits are compared."""
    adversary_steps: int = 6
    """Gradient steps of the adversary, from each of two starts."""
    adversary_budget: float = 0.1
    """Nodes that the adversary may flip, as a share of the circuit's."""
    stop_early: bool = True
    """Where a claim is missed already, leave out what only says how robust a circuit is, but for `reach`."""

    def __post_init__(self) -> None:
        check_literals("circuits.controls", self)
        for key in ("pairs", "draws", "random_sets", "adversary_steps", "adversary_budget"):
            positive(f"circuits.controls.{key}", getattr(self, key))
        if self.seeds < 2:
            raise ConfigError(f"circuits.controls.seeds={self.seeds} must be at least 2: circuits are compared.")

    @property
    def selected(self) -> tuple[str, ...]:
        """The controls to run, in order."""
        default = tuple(name for name in (*CLAIM_CONTROLS, *ROBUSTNESS) if name not in SLOW)
        return default if self.names is None else tuple(name for name in CONTROLS if name in self.names)


@dataclass
class CircuitsConfig(CircuitSettings):
    """Which circuits are searched for and what is measured of them; how they are searched for: `CircuitSettings`."""

    models: list[str] = field(default_factory=lambda: ["sparse", "dense"], metadata=choices(STACKS))
    """Stacks that are searched (an empty list: no circuits). The dense model's are for their size."""
    baselines: list[str] = field(default_factory=list, metadata=choices(METHODS[1:]))
    """Further methods of ranking nodes, tried on the sparse model."""
    curves: bool = False
    """Whether circuits of growing size are measured as the MIB benchmark does (table `faithfulness`)."""
    reference_tokens: int = 16_384
    """Training tokens that the means of nodes are taken over."""
    top_activations: int = 5
    """Places in text that are kept for every node of a sparse circuit (0: none)."""
    activation_tokens: int = 8192
    """Held-out tokens in which those places are looked for."""
    workers: int | None = None
    """Behaviours worked on at a time, each in copies of the models (null: as many as the processor's threads, 4 at
    most; 1 on a GPU). Like the number of threads, it may change the last digits of a sum."""
    controls: ControlsConfig = field(default_factory=ControlsConfig)
    """What the sparse circuits are put to beside the claims of the verdict."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method != "learned":
            raise ConfigError(
                f"circuits.method={self.method}: a run's circuits are learned, and verdicts are given on them. Other "
                f"rankings stand beside them with circuits.baselines=[{self.method}]."
            )
        for key in ("reference_tokens", "activation_tokens", "workers"):
            positive(f"circuits.{key}", getattr(self, key))
        if self.top_activations < 0:
            raise ConfigError(f"circuits.top_activations={self.top_activations} must not be negative.")

    def settings(self, **changes: Any) -> CircuitSettings:
        """The settings of one search, some of them changed."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(CircuitSettings)}
        return CircuitSettings(**(values | changes))


@dataclass
class CompareConfig:
    """How dense model, sparse model and circuits are held against each other."""

    pairs: int = 64
    """Held-out pairs that claims are judged on."""
    train_pairs: int = 64
    """Training pairs that a bridge and the baselines' directions are selected on."""
    draws: int = 4
    """Repetitions of every null; each pair has its own draw in each."""
    text_tokens: int = 16_384
    """Held-out tokens that losses are correlated on."""
    similarity_tokens: int = 4096
    """Held-out tokens that streams are compared on."""
    bootstrap: int = 2000
    """Resamples of frames and pairs behind every interval and p-value."""

    def __post_init__(self) -> None:
        for key in ("pairs", "train_pairs", "draws", "text_tokens", "similarity_tokens", "bootstrap"):
            positive(f"compare.{key}", getattr(self, key))


@dataclass
class VerdictConfig:
    """The bars of the five claims; a claim holds where the whole interval is on the right side of its bar."""

    dense_accuracy: float = 0.9
    """Done: least accuracy of the dense model."""
    sparse_accuracy: float = 0.9
    """Sufficient: least accuracy of the sparse model, as a share of the dense model's."""
    fvu: float = 0.2
    """Sufficient: most variance of the sparse model's logit difference that the circuit leaves unexplained."""
    circuit_accuracy: float = 0.9
    """Sufficient: least accuracy of the circuit, as a share of the sparse model's."""
    faithfulness: float = 0.2
    """Sufficient: how far the circuit's mean logit difference may be from the sparse model's, as a share of it."""
    necessity: float = 0.7
    """Necessary: most accuracy of the sparse model without the circuit (chance is 0.5)."""
    quantile: float = 0.95
    """Necessary: share of random node sets of the same size that do less harm."""
    ceiling: float = 0.5
    """Same computation: what the dense model's own exchange has to move at the selected bridge."""
    share_of_ceiling: float = 0.5
    """Same computation: least share of the ceiling that is moved across the bridge, either way."""
    alpha: float = 0.05
    """Same computation: level of the tests against nulls, after Holm's correction over the behaviours."""

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            between(f"verdict.{f.name}", getattr(self, f.name), 0, 1)
