"""What a removed node says instead: its mean over text, nothing, or what it says in other text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from bridges.circuits.task import Prompts
from bridges.config.search import FROM_TEXT
from bridges.errors import ConfigError
from bridges.nodes import record
from bridges.stack import ResidualStack

# Stretches of text that a search draws from, and the bytes they may take: a tenth of what it would go through if it
# ran the model on others at every step. Where fewer than the least fit, it does.
MOST, LEAST, MEMORY = 256, 64, 1 << 28
_BATCH = 32


@torch.no_grad()
def node_means(stack: ResidualStack, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """Mean of every node over text, ``{point: [channels]}`` in fp32.

    Args:
        batches: token ids ``[B, T]`` of ordinary text, every token of which counts.
    """
    total: dict[str, Tensor] = {}
    count = 0
    for ids in batches:
        for point, value in node_values(stack, ids).items():
            total[point] = total.get(point, 0) + value.double().flatten(0, 1).sum(0)  # type: ignore[operator]
        count += ids.numel()
    return {point: (value / count).float().cpu() for point, value in total.items()}


@torch.no_grad()
def node_values(stack: ResidualStack, ids: Tensor) -> dict[str, Tensor]:
    """Every node of the whole model over token ids ``[B, T]``, ``{point: [B, T, channels]}``."""
    with record(stack) as seen:
        stack.run_segment(stack.embed(ids), 0, stack.n_sublayers)
    return dict(seen)


def windows(text: Tensor, count: int, length: int, generator: torch.Generator) -> Tensor:
    """``count`` random stretches of text, ids ``[count, length]``; where a block is shorter it is repeated."""
    text = text.repeat(1, -(-length // text.shape[1]))
    rows = torch.randint(len(text), (count,), generator=generator)
    starts = torch.randint(text.shape[1] - length + 1, (count,), generator=generator)
    return text[rows[:, None], starts[:, None] + torch.arange(length)]


class Ablation:
    """The values that take the place of removed nodes in one search.

    Args:
        stack: the model.
        reference: `node_means` over ordinary text.
        ablation: ``mean``, ``zero``, ``resample``: the node's value at the same position of random text, or ``mixed``:
            mean in one half of the pairs of prompts, which is drawn, resample in the other.
        text: token ids ``[n, context]`` that resampled values come from.

    Attributes:
        reference: ``{point: [channels]}`` for one value whatever the prompt; of resampled nodes their mean.

    Raises:
        ConfigError: ``resample`` or ``mixed`` without text.
    """

    def __init__(
        self, stack: ResidualStack, reference: Mapping[str, Tensor], ablation: str = "mean", text: Tensor | None = None
    ):
        if ablation in FROM_TEXT and text is None:
            raise ConfigError(f"circuits.ablation={ablation} needs text to take values from: pass `text`.")
        self.stack, self.ablation, self.text = stack, ablation, text
        self.reference = {
            p: torch.zeros_like(reference[p]) if ablation == "zero" else reference[p] for p in stack.nodes.widths
        }

    def pool(self, length: int, generator: torch.Generator) -> dict[str, Tensor] | None:
        """Values over random stretches of text, for `entries` to draw from; None where there is no use for them, or
        where too few fit into memory.

        Returns:
            ``{point: [stretches + 1, length, channels]}``, the reference in the last row.
        """
        if self.ablation not in FROM_TEXT:
            return None
        assert self.text is not None
        ids = windows(self.text, MOST, length, generator).to(next(self.stack.parameters()).device)  # type: ignore[attr-defined]
        first = node_values(self.stack, ids[:_BATCH])
        count = MEMORY // (sum(v.numel() * v.element_size() for v in first.values()) // _BATCH)
        if count < LEAST:
            return None
        parts = [first, *(node_values(self.stack, some) for some in ids[_BATCH:count].split(_BATCH))]
        parts.append({p: self.reference[p].to(value).expand(1, length, -1) for p, value in first.items()})
        return {point: torch.cat([part.pop(point) for part in parts]) for point in self.stack.nodes.widths}

    def _drawn(self, count: int, generator: torch.Generator) -> Tensor:
        """Which of ``count`` prompts take values from text."""
        if self.ablation != "mixed":
            return torch.arange(count)
        # Not every second pair, which stand in the order of their templates.
        pairs = torch.randperm(count // 2, generator=generator)[: count // 4]
        return torch.stack([2 * pairs, 2 * pairs + 1], 1).flatten()

    def entries(self, some: Prompts, generator: torch.Generator, pool: Mapping[str, Tensor]) -> Tensor:
        """Which stretch of a `pool` each prompt takes its values from, drawn, ``[2n]``."""
        last = len(next(iter(pool.values()))) - 1
        drawn = self._drawn(len(some), generator)
        entries = torch.full((len(some),), last)
        entries[drawn] = torch.randint(last, (len(drawn),), generator=generator)
        return entries.to(some.ids.device)

    def values(self, some: Prompts, generator: torch.Generator) -> dict[str, Tensor] | None:
        """``{point: [2n, T, channels]}`` drawn for these prompts, in a run of the model; None where the reference says
        it all."""
        if self.ablation not in FROM_TEXT:
            return None
        assert self.text is not None
        count, length = len(some), some.ids.shape[1]
        drawn = self._drawn(count, generator)
        values = node_values(self.stack, windows(self.text, len(drawn), length, generator).to(some.ids.device))
        if self.ablation == "mixed":
            for point, value in values.items():
                every = self.reference[point].to(value).repeat(count, length, 1)
                every[drawn.to(value.device)] = value
                values[point] = every
        return values
