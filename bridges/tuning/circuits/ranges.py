"""What is tuned: the settings of learned pruning, and where each is looked for."""

from __future__ import annotations

# Where the paper's own search starts (section A.5).
PAPER = {
    "penalty": 1e-4,
    "lr": 3e-3,
    "temperature": 1.0,
    "init_bias": 0.1,
    "init_noise": 1e-2,
    "weight_decay": 1e-3,
}
# All logarithmic: a decade below and above the paper's centre and the default of `CircuitSettings`; the price further
# up, where small models with few nodes need it. τ ends at 1.
RANGES: dict[str, tuple[float, float]] = {
    "penalty": (1e-5, 1e-2),
    "lr": (3e-4, 3e-1),
    "temperature": (0.1, 10.0),
    "init_bias": (0.01, 1.0),
    "init_noise": (1e-3, 0.1),
    "weight_decay": (1e-4, 1e-2),
}
