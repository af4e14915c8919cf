"""Bridges that are fitted anew while the sparse model anneals: when, and on which streams."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from bridges.data.blocks import TokenBlocks
from bridges.stack import ResidualStack, Streams
from bridges.training.stored import StoredStreams


def refit_steps(steps: int, count: int) -> set[int]:
    """The steps before which bridges are fitted anew: ``count`` of them, evenly, the last before the last step."""
    return {round(j * (steps - 1) / count) for j in range(1, count + 1)}


@torch.no_grad()
def stream_pairs(
    dense: ResidualStack,
    sparse: Callable[[Tensor], Streams],
    data: TokenBlocks,
    tokens: int,
    rows: int,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager] = nullcontext,
    stored: StoredStreams | None = None,
    every: int = 1,
) -> Iterator[tuple[dict[int, Tensor], dict[int, Tensor]]]:
    """Both models' streams over about so many training tokens, for a regression between them, ``{site: [B, T, d]}``.

    Args:
        sparse: the sparse stack's plain pass, `ResidualStack.run`.
        rows: that are run at once. autocast: makes the precision of the passes.
        stored: the dense streams at the bridges' sites where they are kept; None: the dense model is run.
        every: of so many groups of rows only one is run.
    """
    for some in data.chunk_rows("train", max(1, round(tokens / data.mean_length)), rows)[::every]:
        ids = data.ids("train", some).to(device)
        with autocast():
            found = stored(some, ids.shape[1]) if stored else dense.run(ids)
            own = sparse(ids)
        yield found.sites, own.sites
