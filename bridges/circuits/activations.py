"""How active the nodes of a circuit are: the places in text where they peak, and the behaviour's example pair."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bridges.behaviours.encoded import EncodedPairs
from bridges.circuits.ablation import node_values
from bridges.circuits.circuit import Circuit
from bridges.circuits.measure import members
from bridges.stack import ResidualStack

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Tokens shown before and after the marked one.
BEFORE, AFTER = 12, 4


@dataclass(frozen=True)
class Peaks:
    """For every node the blocks of text where its magnitude is largest, the largest first; one place in each block.

    Attributes:
        text: token ids ``[n, context]``. lengths: tokens of each block that are no padding, ``[n]``.
        block, place: ``{point: [count, channels]}`` which block and where in it.
        window: ``{point: [count, BEFORE + 1 + AFTER, channels]}`` the node around that place, zero outside the block.
    """

    text: Tensor
    lengths: Tensor
    block: dict[str, Tensor]
    place: dict[str, Tensor]
    window: dict[str, Tensor]

    @classmethod
    def find(
        cls, stack: ResidualStack, text: Tensor, count: int, batch: int = 8, lengths: Tensor | None = None
    ) -> Peaks:
        """Look through the text once, for all nodes.

        Args:
            text: token ids ``[n, context]``. count: blocks per node, fewer where there are fewer.
            lengths: tokens of each block that are no padding, ``[n]``; None: all.
        """
        device = next(stack.parameters()).device  # type: ignore[attr-defined]
        lengths = torch.full((len(text),), text.shape[1]) if lengths is None else lengths
        inside = torch.arange(text.shape[1]) < lengths[:, None]
        best: dict[str, tuple[Tensor, ...]] = {}
        for start in range(0, len(text), batch):
            ids, real = (part[start : start + batch].to(device) for part in (text, inside))
            for point, value in node_values(stack, ids).items():
                found = _peaks(value.float() * real.unsqueeze(-1), start)
                if point in best:
                    found = tuple(torch.cat(both) for both in zip(best[point], found, strict=True))
                # Stable, so that of equal peaks the earlier block stays.
                order = torch.argsort(found[0], dim=0, descending=True, stable=True)[:count]
                best[point] = tuple(_take(part, order) for part in found)
        parts = [{p: b[i].cpu() for p, b in best.items()} for i in (1, 2, 3)]
        return cls(text, lengths, parts[0], parts[1], parts[2])


def _peaks(value: Tensor, first: int) -> tuple[Tensor, ...]:
    """Height, block, place and window of each block's peak in ``[B, T, channels]``; blocks count from ``first``."""
    height, place = value.abs().max(1)
    block = (first + torch.arange(len(value), device=value.device))[:, None].expand_as(place)
    padded = torch.nn.functional.pad(value, (0, 0, BEFORE, AFTER))
    offsets = torch.arange(BEFORE + 1 + AFTER, device=value.device)
    return height, block, place, padded.gather(1, place[:, None] + offsets[None, :, None])


def _take(part: Tensor, order: Tensor) -> Tensor:
    if part.ndim == 3:
        order = order[:, None].expand(-1, part.shape[1], -1)
    return part.gather(0, order)


def activation_rows(peaks: Peaks, circuit: Circuit, tokenizer: PreTrainedTokenizerBase) -> list[dict[str, Any]]:
    """Rows of table ``activations``: where in text each of the circuit's nodes peaks in the whole model.

    Places where the node is zero are left out.
    """
    rows: list[dict[str, Any]] = []
    for point, channel in members(circuit):
        window = peaks.window[point][:, :, channel]
        blocks, places = (of[point][:, channel].tolist() for of in (peaks.block, peaks.place))
        for rank, (block, at, values) in enumerate(zip(blocks, places, window, strict=True)):
            if not values[BEFORE]:
                break
            start, stop = max(0, at - BEFORE), min(int(peaks.lengths[block]), at + AFTER + 1)
            row: dict[str, Any] = {"behaviour": circuit.behaviour, "model": circuit.model, "point": point}
            row |= {"channel": channel, "rank": rank, "value": float(values[BEFORE]), "token": at - start}
            shown = [tokenizer.decode([i]) for i in peaks.text[block, start:stop].tolist()]
            row["tokens"] = json.dumps(shown, ensure_ascii=False)
            inside = values[start - at + BEFORE : stop - at + BEFORE]
            row["values"] = json.dumps([round(float(v), 4) for v in inside])
            rows.append(row)
    return rows


@torch.no_grad()
def prompt_rows(
    stack: ResidualStack, circuit: Circuit, pairs: EncodedPairs, tokenizer: PreTrainedTokenizerBase
) -> list[dict[str, Any]]:
    """Rows of table ``prompt_activations``: each of the circuit's nodes in the whole model on one prompt pair.

    Args:
        pairs: of which the first is taken, as in table ``suite``.
    """
    rows: list[dict[str, Any]] = []
    device = next(stack.parameters()).device  # type: ignore[attr-defined]
    for side, prompt in enumerate(("clean", "counterfactual")):
        ids = pairs.ids[0, side, : int(pairs.lengths[0, side])]
        tokens = json.dumps([tokenizer.decode([i]) for i in ids.tolist()], ensure_ascii=False)
        found = {point: value[0].float().cpu() for point, value in node_values(stack, ids[None].to(device)).items()}
        for point, channel in members(circuit):
            values = json.dumps([round(v, 4) for v in found[point][:, channel].tolist()])
            row = {"behaviour": circuit.behaviour, "model": circuit.model, "point": point, "channel": channel}
            rows.append(row | {"prompt": prompt, "tokens": tokens, "values": values})
    return rows
