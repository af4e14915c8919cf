"""How circuits are searched for."""

from __future__ import annotations

from dataclasses import dataclass

from bridges.config.checks import positive
from bridges.config.literals import check_literals, literal
from bridges.errors import ConfigError

METHODS = ("learned", "attribution", "integrated_gradients", "random", "magnitude")
OBJECTIVES = ("faithful", "task_loss")
ABLATIONS = ("mean", "zero", "resample", "mixed")
# Those that take values from text.
FROM_TEXT = ("resample", "mixed")


@dataclass
class CircuitSettings:
    """One search: learned pruning and what follows it (paper, sections 2.2 and A.5)."""

    method: str = literal("learned", METHODS)
    """How nodes are ranked: by `learned` gates, always so in a run; other methods stand beside it as `baselines`."""
    objective: str = literal("faithful", OBJECTIVES)
    """What the circuit has to do: `faithful`: explain the model's own logit difference, in the model and across one
    bridge; `task_loss`: reach a calibrated two-way loss, as published."""
    ablation: str = literal("mean", ABLATIONS)
    """What replaces a removed node: its `mean` over text, `zero`, `resample`: its value in other text, or `mixed`: the
    mean in one half of the pairs, values from text in the other."""
    target: float = 0.06
    """What has to be reached on training pairs: unexplained variance (faithful, with a mean logit difference within a
    tenth of the model's) or nats (task_loss; paper: 0.15)."""
    carried_weight: float = 1.0
    """Weight of the carried term of the faithful objective beside the logit difference's own (0: left out)."""
    carried_target: float = 0.15
    """Unexplained variance, on the training pairs, of what the circuit moves in the dense model."""
    max_model_loss: float = 0.35
    """With task_loss no circuit is searched for where the whole model's calibrated loss is above this, in nats."""
    max_node_fraction: float = 0.1
    """Most nodes a circuit may have, as a share of all; one that needs more counts as not reached."""
    pairs: int = 64
    """Training pairs a circuit is measured on."""
    steps: int = 60
    """Steps of learned pruning."""
    batch: int = 16
    """Training pairs per step of learned pruning."""
    early_stop_loss: float | None = None
    """Learned pruning ends after half of its steps where its running loss is above this (null: never)."""
    penalty: float = 2e-3
    """Penalty of an open gate at the first step (paper: 1e-4)."""
    penalty_rate: float = 0.12
    """How fast the penalty follows the loss, per step in logarithms; 0 keeps it fixed, as published."""
    min_penalty: float = 0.05
    """Least penalty of an open gate, as a share of the first."""
    loss_target_fraction: float = 0.8
    """Where the penalty steers the loss to, as a share of the target."""
    tied: bool = False
    """Whether queries and keys of a channel are kept or removed together."""
    lr: float = 2e-2
    """AdamW's rate on the gates' parameters."""
    weight_decay: float = 1e-3
    """AdamW's weight decay on the gates' parameters."""
    temperature: float = 1.0
    """Temperature of the gates' surrogate gradient."""
    init_bias: float = 0.1
    """Mean of the gates' parameters at the start."""
    init_noise: float = 0.01
    """Standard deviation of the gates' parameters at the start."""
    warm_start: float = 0.4
    """How much further the gate of the node with the largest integrated gradient is open at the start; the others' by
    the root of their share."""
    edges: bool = False
    """Whether edges are removed too, once the nodes are found."""
    prune_attempts: int = 6
    """Groups of nodes, and of edges, whose removal is tried after the search (greedy pruning)."""
    bisect: bool = True
    """Take as few of the best nodes as reach the target; else what learned pruning leaves open."""
    adversarial_steps: int = 0
    """Further steps of learned pruning against an adversary on training pairs; 0: none, as published."""

    def __post_init__(self) -> None:
        check_literals("circuits", self)
        for key in ("target", "carried_target", "max_model_loss", "pairs", "steps", "batch", "early_stop_loss", "lr",
                    "temperature", "loss_target_fraction"):  # fmt: skip
            positive(f"circuits.{key}", getattr(self, key))
        if not 0 < self.max_node_fraction <= 1:
            raise ConfigError(
                f"circuits.max_node_fraction={self.max_node_fraction} must be greater than 0 and at most 1."
            )
        for key in ("penalty", "penalty_rate", "min_penalty", "weight_decay", "init_noise", "warm_start",
                    "carried_weight", "prune_attempts", "adversarial_steps"):  # fmt: skip
            if getattr(self, key) < 0:
                raise ConfigError(f"circuits.{key}={getattr(self, key)} must not be negative.")
        if self.objective == "faithful" and self.adversarial_steps:
            raise ConfigError(
                "circuits.adversarial_steps go on from a circuit of circuits.objective=task_loss; leave them at 0 with "
                "objective=faithful."
            )
