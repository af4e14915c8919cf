"""What the progress bar shows of a training: KLs in nats per token, smoothed over steps."""

from __future__ import annotations

from collections.abc import Mapping

# How much of the steps before a reading keeps: about the last ten count, since single sampled crossings vary much.
MEMORY = 0.9
# Label of each term, and whether its value is a sum over the bridges.
SHOWN = {"kl": ("kl", False), "kl_d2s": ("d→s", True), "kl_s2d": ("s→d", True)}


class Readings:
    """Running means of the KLs that steps compute anyway.

    ``kl`` is that of the sparse model, ``d→s`` and ``s→d`` are means over the bridges of the single crossings' KL; where
    crossings are sampled, an unbiased estimate of it.

    Args:
        bridges: how many there are.
    """

    def __init__(self, bridges: int):
        self.bridges = bridges
        self.sums: dict[str, float] = {}
        self.weight = 0.0

    def add(self, values: Mapping[str, float]) -> None:
        """Take in one step's raw terms; those that the step did not compute are left out."""
        self.weight = MEMORY * self.weight + 1
        for term in ("total", *SHOWN):
            if term in values:
                self.sums[term] = MEMORY * self.sums.get(term, 0.0) + values[term]

    def text(self) -> str:
        """Such as ``kl 0.84 d→s 0.51 s→d 0.70``; the loss where no KL is computed."""
        shown = []
        for term, (label, summed) in SHOWN.items():
            if term in self.sums:
                mean = self.sums[term] / self.weight / (self.bridges if summed else 1)
                shown.append(f"{label} {mean:.2f}")
        if not shown and "total" in self.sums:
            shown.append(f"loss {self.sums['total'] / self.weight:.3f}")
        return " ".join(shown)
