"""How the kept fraction of weights and the learning rate move through training (paper, sections 2.1 and A.2)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Both schedules of one training, as functions of the step alone.

    Attributes:
        steps: optimizer steps in all.
        target: fraction of nonzero weights at the end.
        start: fraction at the beginning (1, unless training goes on from a sparser model).
        warmup: share of the steps with a rising learning rate; annealing starts after it.
        anneal: share of the steps at whose end the target fraction is reached.
        shape: ``linear`` or ``exponential`` annealing.
        sharkfin: multiply the sparse weights' learning rate by 1/√fraction; bridges, which stay dense, keep theirs.
    """

    steps: int
    target: float
    start: float = 1.0
    warmup: float = 0.01
    anneal: float = 0.5
    shape: str = "linear"
    sharkfin: bool = True

    @property
    def warmup_steps(self) -> int:
        return max(1, round(self.warmup * self.steps))

    def progress(self, step: int) -> float:
        """How far annealing has come after optimizer step ``step`` (0-based), from 0 to 1."""
        begin, end = self.warmup_steps, max(self.warmup_steps + 1, round(self.anneal * self.steps))
        progress = min(1.0, max(0.0, (step + 1 - begin) / (end - begin)))
        # The last step must meet the promise however short the training is.
        return 1.0 if step + 1 >= self.steps else progress

    def fraction(self, step: int) -> float:
        """Fraction of weights kept after optimizer step ``step`` (0-based)."""
        progress = self.progress(step)
        if progress >= 1:
            return self.target
        if self.shape == "exponential":
            return self.start * (self.target / self.start) ** progress
        return self.start + (self.target - self.start) * progress

    def lr_factor(self, step: int) -> float:
        """What every peak learning rate is multiplied by at ``step``: linear warm-up, then linear decay to zero."""
        rise = (step + 1) / self.warmup_steps
        fall = (self.steps - step) / max(1, self.steps - self.warmup_steps)
        return min(rise, fall, 1.0)

    def boost(self, step: int) -> float:
        """The sharkfin factor 1/√fraction on the sparse weights' rate, relative to the start; 1 where switched off."""
        return (self.start / self.fraction(step)) ** 0.5 if self.sharkfin else 1.0
