"""The dense model's streams of a finite text, computed once.

A narrow run sees the same few thousand prompts again and again, and the frozen model answers alike each time. Its
streams at the bridges' sites are kept in memory, where there is room, and its own pass, about a third of a step's
arithmetic, is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor

from bridges.data.blocks import TokenBlocks
from bridges.stack import ResidualStack, Streams

# Bytes that may be kept, as a share of the machine's memory, and how often each row must be read at least.
SHARE, REUSED = 0.2, 2.0
# Tokens that are run at once.
_TOKENS = 2048


def worth_storing(data: TokenBlocks, visits: int, sites: int, width: int, dtype: torch.dtype, memory: int) -> bool:
    """Whether a text is so small, and read so often, that its streams are kept.

    Args:
        visits: rows that training reads in all. sites: streams of each row. width: of the dense stream.
        memory: bytes that the machine has.
    """
    rows, context = data.blocks["train"].shape
    size = rows * context * sites * width * torch.finfo(dtype).bits // 8
    return data.lengths is not None and visits >= REUSED * rows and size <= SHARE * memory


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
