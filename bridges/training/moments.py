"""What the normalised squared error divides by: a stream's moments over the whole batch.

They are taken over all tokens of the optimizer step, whichever process or part of it a token is in, so that the loss
does not depend on how a batch is spread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bridges.losses import dot


@dataclass(frozen=True)
class Moments:
    """First and second moment of one stream over tokens, without gradient.

    Attributes:
        mean: ``[d]``.
        square: mean squared length, a scalar.
    """

    mean: Tensor
    square: Tensor

    @classmethod
    def of(cls, h: Tensor) -> Moments:
        """The moments of ``[B, T, d]`` over batch and tokens."""
        h = h.detach().float().flatten(0, 1)
        return cls(h.mean(0), dot(h, h).mean())

    @classmethod
    def average(cls, parts: Sequence[Moments]) -> Moments:
        """The moments of several equally large parts together."""
        return cls(torch.stack([p.mean for p in parts]).mean(0), torch.stack([p.square for p in parts]).mean())

    @property
    def variance(self) -> Tensor:
        """Mean squared deviation from the mean, summed over channels: a scalar."""
        return (self.square - dot(self.mean, self.mean)).clamp_min(0)
