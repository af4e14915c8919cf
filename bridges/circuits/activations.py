"""Where in text the nodes of a circuit are most active."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bridges.circuits.circuit import Circuit
from bridges.circuits.measure import members
from bridges.nodes import record
from bridges.stack import ResidualStack

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Tokens shown before and after the marked one.
BEFORE, AFTER = 12, 4


@torch.no_grad()
def node_values(stack: ResidualStack, circuit: Circuit, batches: Iterable[Tensor]) -> Tensor:
    """The circuit's nodes in the whole model over text, ``[nodes, blocks, T]``; batches of ids ``[B, T]``."""
    named = members(circuit)
    points = [p for p, kept in circuit.nodes.items() if kept.any()]
    channels = {p: circuit.nodes[p].nonzero()[:, 0] for p in points}
    device = next(stack.parameters()).device  # type: ignore[attr-defined]
    parts = []
    for ids in batches:
        with record(stack, points) as seen:
            stack.run_segment(stack.embed(ids.to(device)), 0, stack.n_sublayers)
        parts.append(torch.cat([seen[p][..., channels[p].to(device)].float().cpu() for p in points], -1))
    return torch.cat(parts).permute(2, 0, 1) if named else torch.zeros(0, 0, 0)


def activation_rows(
    stack: ResidualStack,
    circuit: Circuit,
    text: Tensor,
    tokenizer: PreTrainedTokenizerBase,
    count: int,
    batch: int = 8,
) -> list[dict[str, Any]]:
    """Rows of table ``activations``: for each node the ``count`` blocks of text where its magnitude is largest.

    One place in each block at most, so that they differ; places where the node is zero are left out.

    Args:
        text: held-out token ids ``[n, context]``.
    """
    rows: list[dict[str, Any]] = []
    if not circuit.size or not count:
        return rows
    values = node_values(stack, circuit, text.split(batch))
    for (point, channel), mine in zip(members(circuit), values, strict=True):
        peaks, places = mine.abs().max(1)
        for rank, block in enumerate(torch.argsort(peaks, descending=True, stable=True)[:count].tolist()):
            at = int(places[block])
            if not mine[block, at]:
                break
            start, stop = max(0, at - BEFORE), min(text.shape[1], at + AFTER + 1)
            row: dict[str, Any] = {"behaviour": circuit.behaviour, "model": circuit.model, "point": point}
            row |= {"channel": channel, "rank": rank, "value": float(mine[block, at]), "token": at - start}
            shown = [tokenizer.decode([i]) for i in text[block, start:stop].tolist()]
            row["tokens"] = json.dumps(shown, ensure_ascii=False)
            row["values"] = json.dumps([round(float(v), 4) for v in mine[block, start:stop]])
            rows.append(row)
    return rows
