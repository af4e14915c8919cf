"""The dense model's streams of a finite text, computed once.

A narrow run sees the same few thousand prompts again and again, and the frozen model answers alike each time. Its
streams at the bridges' sites are kept in memory, where there is room, and its own pass, about a third of a step's
arithmetic, is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np
import psutil
import torch
from torch import Tensor

from bridges.config import Config
from bridges.data.blocks import TokenBlocks
from bridges.stack import ResidualStack, Streams

# Bytes that may be kept, as a share of the machine's memory, and how often each row must be read at least.
SHARE, REUSED = 0.2, 2.0
# Tokens that are run at once.
_TOKENS = 2048


def stored_bytes(config: Config, data: TokenBlocks, steps: int, sites: int, width: int, precision: str) -> int:
    """Bytes of the dense streams that training keeps: 0 where the text is too large, or read too seldom, for that.

    Args:
        steps: of the training. sites: streams of each row. width: of the dense stream. precision: ``bf16`` or ``fp32``.
    """
    rows, context = data.blocks["train"].shape
    size = rows * context * sites * width * (2 if precision == "bf16" else 4)
    # Of the whole run and the whole machine: a run that is gone on with decides alike.
    often = steps * config.train.batch >= REUSED * rows
    small = size <= SHARE * psutil.virtual_memory().total
    return size if data.lengths is not None and config.train.accumulate == 1 and often and small else 0


class StoredStreams:
    """The streams of all training rows at some sites of a frozen stack.

    They are computed in one fixed order, so that a run that is gone on with has the same ones to the bit.

    Args:
        stack: the frozen stack. data: the text. sites: which streams; the last one of the stack among them.
        dtype: in which they are kept. device: that they are wanted on. autocast: makes the precision of the pass.
    """

    def __init__(
        self,
        stack: ResidualStack,
        data: TokenBlocks,
        sites: Sequence[int],
        dtype: torch.dtype,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager],
    ):
        assert data.lengths is not None
        self.sites, self.last, self.device = sorted(set(sites)), stack.n_sublayers, device
        rows, context = data.blocks["train"].shape
        self.kept = torch.zeros(len(self.sites), rows, context, stack.d_model, dtype=dtype)
        lengths = data.lengths["train"]
        for length in np.unique(lengths):
            group = np.flatnonzero(lengths == length)
            for start in range(0, len(group), max(1, _TOKENS // int(length))):
                some = group[start : start + max(1, _TOKENS // int(length))]
                ids = torch.from_numpy(data.blocks["train"][some, :length]).long().to(device)
                with torch.no_grad(), autocast():
                    streams = stack.run(ids).sites
                for at, site in enumerate(self.sites):
                    self.kept[at, torch.from_numpy(some), :length] = streams[site].to("cpu", dtype)

    def __call__(self, rows: np.ndarray, length: int) -> Streams:
        """The streams of some rows of one length, ``[B, T, d]`` in fp32 at every site."""
        found: dict[int, Tensor] = {
            site: self.kept[at, torch.from_numpy(rows), :length].to(self.device, torch.float32)
            for at, site in enumerate(self.sites)
        }
        return Streams(final={0: found[self.last]}, sites=found)
