"""The progress bar of a training: KLs in nats per token, smoothed over steps."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

# How much of the steps before a reading keeps: about the last ten count, since single sampled crossings vary much.
MEMORY = 0.9
# Label of each term, and whether its value is a sum over the bridges.
SHOWN = {"kl": ("kl", False), "kl_d2s": ("d→s", True), "kl_s2d": ("s→d", True)}


class Readings:
    """Running means of the KLs that steps compute anyway.

    ``kl`` is that of the sparse model, ``d→s`` and ``s→d`` are means over the bridges of the single crossings' KL, or
    unbiased estimates of them where crossings are sampled.

    Args:
        bridges: how many there are.
    """

    def __init__(self, bridges: int):
        self.bridges = bridges
        self.means: dict[str, float] = {}
        self.weights: dict[str, float] = {}

    def add(self, values: Mapping[str, float]) -> None:
        """Take in one step's raw terms; those that the step did not compute are left out."""
        for term in ("total", *SHOWN):
            if term in values:
                weight = self.weights[term] = MEMORY * self.weights.get(term, 0.0) + 1
                mean = self.means.get(term, 0.0)
                self.means[term] = mean + (values[term] - mean) / weight

    def text(self) -> str:
        """Such as ``kl 0.84 d→s 0.51 s→d 0.70``; the loss where no KL is computed."""
        shown = []
        for term, (label, summed) in SHOWN.items():
            if term in self.means:
                shown.append(f"{label} {self.means[term] / (self.bridges if summed else 1):.2f}")
        if not shown and "total" in self.means:
            shown.append(f"loss {self.means['total']:.3f}")
        return " ".join(shown)


class TrainingBar(tqdm):
    """A bar of a training's steps with its `Readings`.

    Args:
        steps, done: steps in all, and before this start. bridges: how many there are. tokens: of one step.
        shown: whether anything is shown at all.
    """

    def __init__(self, steps: int, done: int, bridges: int, tokens: int, shown: bool = True):
        # Where no terminal overwrites a line, each is one more of a log.
        often = 0.5 if sys.stderr.isatty() else 20.0
        self.readings, self.tokens = Readings(bridges), tokens
        super().__init__(
            total=steps,
            initial=done,
            unit="step",
            disable=not shown,
            dynamic_ncols=True,
            mininterval=often,
            desc="training",
        )

    def add(self, values: Mapping[str, Any]) -> None:
        """Take in one step's raw terms."""
        self.readings.add(values)

    def describe(self) -> None:
        """Put the readings, and tokens per second since this start, beside the bar."""
        rate = self.tokens * self.format_dict["n"] / max(self.format_dict["elapsed"], 1e-9)
        self.set_postfix_str(f"{self.readings.text()}, {rate:,.0f} tokens/s", refresh=False)
