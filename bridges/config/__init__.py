"""Every setting with its meaning, unit and check. Hydra fills these in; a notebook can too.

Checks run where an object is made, so a wrong value never reaches the pipeline, and each message names the key as it is
written on the command line. What is trained stands in `training`, what is measured in `measuring`. The text below a
field is what ``--help`` and the documentation say of it (`describe`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from bridges.config.checks import MAX_SEED, file_name, length, path, sound
from bridges.config.literals import KERNELS, check_literals, literal
from bridges.config.measuring import (
    CONTROLS,
    STACKS,
    SUITES,
    BehavioursConfig,
    CircuitsConfig,
    CompareConfig,
    ControlsConfig,
    EvalConfig,
    VerdictConfig,
)
from bridges.config.training import BridgeConfig, DataConfig, ModelConfig, SparseConfig, TermConfig, TrainConfig
from bridges.errors import ConfigError, nearest

__all__ = [
    "BOOKKEEPING",
    "CONTROLS",
    "STACKS",
    "SUITES",
    "BehavioursConfig",
    "BridgeConfig",
    "CircuitsConfig",
    "CompareConfig",
    "Config",
    "ControlsConfig",
    "DataConfig",
    "EvalConfig",
    "ModelConfig",
    "SparseConfig",
    "TermConfig",
    "TrackingConfig",
    "TrainConfig",
    "VerdictConfig",
    "flat",
    "from_dict",
    "to_dict",
]

TRACKERS = ("off", "offline", "wandb")
# What W&B takes in no project's name.
NO_PROJECT = "/\\#?%:"
# Settings that are, or may be, paths.
PATHS = ("runs_dir", "resume", "model.name", "data.path", "sparse.init", "behaviours.path")
# Where a run is written, how it is tracked and how it is gone on with: settings that decide nothing that is computed.
BOOKKEEPING = ("runs_dir", "name", "resume", "allow_changed", "tracking")


@dataclass
class TrackingConfig:
    """Weights & Biases."""

    mode: str = literal("off", TRACKERS)
    """`wandb`, `offline` (sync later) or `off`; the tables on disk are written in every mode."""
    project: str = "bridges"
    """W&B project."""
    entity: str | None = None
    """W&B user or team (null: your default)."""
    group: str | None = None
    """Group of runs that W&B shows together."""
    tags: list[str] = field(default_factory=list)
    """Tags of the run in W&B."""

    def __post_init__(self) -> None:
        check_literals("tracking", self)
        for key, most in (("project", 128), ("entity", 128), ("group", 128)):
            length(f"tracking.{key}", getattr(self, key) or "", most, "W&B")
        if wrong := sorted(set(self.project) & set(NO_PROJECT)):
            raise ConfigError(f"tracking.project={self.project!r}: W&B takes no {' '.join(wrong)} in a project's name.")
        if self.entity and "/" in self.entity:
            raise ConfigError(
                f"tracking.entity={self.entity!r}: W&B takes no / in the name of a user or team. The project is set "
                "with tracking.project=…."
            )
        for tag in self.tags:
            if not tag.strip():
                raise ConfigError("tracking.tags holds an empty tag, which W&B does not take.")
            length(f"tracking.tags: the tag {tag[:20]!r}…", tag, 64, "W&B")


@dataclass
class Config:
    """One run."""

    seed: int = 0
    """Seed of every random draw."""
    sparsity: float = 0.05
    """Fraction of nonzero weights in every weight matrix of the finished sparse model."""
    runs_dir: str = "runs"
    """Folder that run folders are made in."""
    name: str | None = None
    """The run folder's name (null: made from date and settings)."""
    resume: str | None = None
    """A run folder to go on with; every other setting then comes from it."""
    allow_changed: bool = False
    """Go on with a run whose text, dense model or file of prompt pairs is no longer the one it began with."""
    kernels: str = literal("auto", KERNELS)
    """`cpp` on the CPU, `python` (plain PyTorch) or `auto`: C++ where it can be compiled."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The pretrained dense model."""
    data: DataConfig = field(default_factory=DataConfig)
    """The text that is trained and measured on."""
    sparse: SparseConfig = field(default_factory=SparseConfig)
    """The weight-sparse transformer."""
    bridge: BridgeConfig = field(default_factory=BridgeConfig)
    """The bridges between the two models."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """The optimisation."""
    eval: EvalConfig = field(default_factory=EvalConfig)
    """How hybrids are measured on held-out text."""
    behaviours: BehavioursConfig = field(default_factory=BehavioursConfig)
    """What the models are asked to do."""
    circuits: CircuitsConfig = field(default_factory=CircuitsConfig)
    """Which circuits are searched for, how, and what is measured of them."""
    compare: CompareConfig = field(default_factory=CompareConfig)
    """How dense model, sparse model and circuits are held against each other."""
    verdict: VerdictConfig = field(default_factory=VerdictConfig)
    """The bars of the five claims."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Weights & Biases."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= MAX_SEED:
            raise ConfigError(f"seed={self.seed} must lie between 0 and {MAX_SEED}.")
        for key, value in flat(self).items():
            sound(key, value)
        if self.name is not None:
            file_name("name", self.name)
        for key in PATHS:
            path(key, flat(self)[key])
        check_literals("", self)
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
    try:
        return cls(**{**values, **nested})
    except TypeError as error:
        # YAML reads 1e-3 as a text: a number needs its point, 1.0e-3.
        texts = {k: v for k, v in values.items() if isinstance(v, str) and "str" not in str(fields[k].type)}
        wrong = {f"{prefix}{k}": v for k, v in texts.items()}
        raise ConfigError(f"A value below {prefix or 'the settings'} has the wrong type ({error}): {wrong}.") from error


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
