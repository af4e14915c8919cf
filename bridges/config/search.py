"""How circuits are searched for."""

from __future__ import annotations

from dataclasses import dataclass

from bridges.config.literals import one_of
from bridges.errors import ConfigError

METHODS = ("learned", "attribution", "integrated_gradients", "random", "magnitude")
ABLATIONS = ("mean", "zero", "resample", "mixed")
# Those that take values from text.
FROM_TEXT = ("resample", "mixed")


@dataclass
class CircuitSettings:
    """Learned pruning and what follows it (paper, sections 2.2 and A.5).

    Attributes:
        method: how nodes are ranked.
        ablation: what replaces a removed node: its ``mean`` over text (the paper's), ``zero``, ``resample``: what it
            says in other text, or ``mixed``: its mean in one half of the pairs, what it says in other text in the
            other half. Circuits found under mean ablation alone are smaller and seldom stand up to other text.
        target: two-way loss in nats that the circuit has to reach on the training pairs.
        give_up: no circuit is searched for where the whole model's calibrated loss on them is above this.
        largest: the most nodes a circuit may have, as a share of all; one that needs more counts as not reached.
        pairs: training pairs the loss is measured on.
        steps: of learned pruning. batch: pairs per step.
        abandon: learned pruning ends after half of its steps where its running loss is then above so many nats, or more
            than twice as many gates are open as a circuit may have nodes (null: never): what is hopeless costs half.
        k_coef: price of a kept node at the first step (paper: 1e-4).
        adapt: how fast the price follows the loss, per step in logarithms; 0 keeps it fixed, as published.
        least_price: what the price keeps of ``k_coef`` at least. Where it may fall to nothing, many steps close few
            gates before it counts again.
        goal: where the loss is steered to, as a share of the target; what is left over is removed afterwards, on other
            pairs.
        tied: queries and keys of a channel are kept or removed together.
        lr: AdamW's rate on the gates' parameters τ. temperature: of the surrogate gradient.
        init_bias, init_noise: mean and deviation of τ at the start.
        edges: after nodes, remove edges too.
        tries: groups of leftover nodes, and of edges, whose removal is tried.
        bisect: take as few of the best nodes as reach the target, as published. Else what learned pruning has opened is
            cut no further where it reaches the target: a larger circuit, and more alike from seed to seed.
        hardening: further steps of learned pruning, against an adversary on training pairs
            (`bridges.circuits.search.adversarial`); 0: none, as published.
    """

    method: str = "learned"
    ablation: str = "mean"
    target: float = 0.15
    give_up: float = 0.35
    largest: float = 1.0
    pairs: int = 64
    steps: int = 100
    batch: int = 16
    abandon: float | None = None
    k_coef: float = 1e-4
    adapt: float = 0.12
    least_price: float = 0.5
    goal: float = 0.5
    tied: bool = False
    lr: float = 3e-2
    weight_decay: float = 1e-3
    temperature: float = 1.0
    init_bias: float = 0.1
    init_noise: float = 0.01
    edges: bool = True
    tries: int = 14
    bisect: bool = True
    hardening: int = 0

    def __post_init__(self) -> None:
        one_of("circuits.method", self.method, METHODS)
        one_of("circuits.ablation", self.ablation, ABLATIONS)
        given = ("target", "give_up", "pairs", "steps", "batch", "lr", "temperature", "tries", "goal")
        for key in given if self.abandon is None else (*given, "abandon"):
            if not getattr(self, key) > 0:
                raise ConfigError(f"circuits.{key}={getattr(self, key)} must be greater than 0.")
        if not 0 < self.largest <= 1:
            raise ConfigError(f"circuits.largest={self.largest} must be greater than 0 and at most 1.")
        for key in ("k_coef", "adapt", "least_price", "weight_decay", "init_noise", "hardening"):
            if getattr(self, key) < 0:
                raise ConfigError(f"circuits.{key}={getattr(self, key)} must not be negative.")
