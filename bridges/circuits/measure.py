"""What is written down about a circuit: rows of the tables ``circuits``, ``nodes`` and ``edges``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bridges.behaviours.encoded import EncodedPairs
from bridges.circuits.circuit import Circuit, count_edges, kept_edges, only
from bridges.circuits.node_sets import set_margins
from bridges.circuits.search.adversarial import guards_of
from bridges.circuits.search.search import Search, heldout_margins
from bridges.circuits.task import Calibration, Prompts, answer_margins, task_loss
from bridges.circuits.weights import EMBEDDING, LOGITS, wires
from bridges.stack import ResidualStack

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Row = dict[str, Any]


def which(circuit: Circuit) -> Row:
    """The columns that name a circuit in every table."""
    return {key: getattr(circuit, key) for key in ("behaviour", "model", "method", "seed")}


def circuit_row(search: Search, circuit: Circuit, heldout: Prompts) -> Row:
    """The row of table ``circuits``; loss and accuracy are those of the calibrated circuit on held-out prompts, removed
    nodes replaced as in the search."""
    stack, train = search.stack, search.encoded
    edges = count_edges(stack, circuit, train.ids, train.candidates)
    inside = [w for w in wires(stack) if w.source in circuit.nodes and w.target in circuit.nodes]
    with torch.no_grad():
        full = task_loss(answer_margins(stack, heldout))
    values = search.removed.values(heldout, torch.Generator().manual_seed(search.seed))
    margins = heldout_margins(stack, circuit, heldout, values)
    return which(circuit) | {
        "ablation": circuit.ablation,
        "nodes": circuit.size,
        "guards": int(sum(kept.sum() for kept in guards_of(circuit).values())),
        "edges": edges.inside,
        "edges_with_embeddings": edges.with_embeddings,
        "node_level_edges": edges.node_level,
        "total_nodes": sum(len(kept) for kept in circuit.nodes.values()),
        "total_edges": sum(int(w.weight.count_nonzero()) for w in inside),
        "target": circuit.target,
        "reached": circuit.reached,
        "train_loss": circuit.train_loss,
        "heldout_loss": float(task_loss(margins)),
        "heldout_accuracy": float((margins > 0).float().mean()),
        "full_loss": float(full),
        "scale": circuit.scale,
        "shift": circuit.shift,
        "n_pairs": len(heldout) // 2,
    }


def members(circuit: Circuit) -> list[tuple[str, int]]:
    """The kept nodes, ``(point, channel)``, in forward order."""
    return [(p, c) for p, kept in circuit.nodes.items() for c in kept.nonzero()[:, 0].tolist()]


def importances(stack: ResidualStack, circuit: Circuit, some: Prompts) -> Tensor:
    """Rise of the calibrated two-way loss in nats when each node alone is removed from the circuit, ``[nodes]``."""
    named = members(circuit)
    sets = {p: torch.zeros(len(named) + 1, len(kept), dtype=torch.bool) for p, kept in circuit.nodes.items()}
    for i, (point, channel) in enumerate(named):
        sets[point][i, channel] = True
    with only(stack, circuit):
        margins = set_margins(stack, some, sets, circuit.reference)
    fitted = Calibration(circuit.scale, circuit.shift)
    losses = torch.stack([task_loss(fitted.apply(m, some.sign)) for m in margins])
    return (losses[:-1] - losses[-1]).cpu()


def node_rows(stack: ResidualStack, circuit: Circuit, some: Prompts, limit: int) -> list[Row]:
    """Rows of table ``nodes``.

    Args:
        some: prompts that the importance of nodes is measured on. limit: in circuits with more nodes it is not (NaN).
    """
    named = members(circuit)
    values = importances(stack, circuit, some).tolist() if len(named) <= limit else [math.nan] * len(named)
    return [
        which(circuit)
        | {
            "point": point,
            "channel": channel,
            "score": float(circuit.scores[point][channel]),
            "mean": float(circuit.reference[point][channel]),
            "importance": value,
        }
        for (point, channel), value in zip(named, values, strict=True)
    ]


def edge_rows(
    stack: ResidualStack, circuit: Circuit, train: EncodedPairs, tokenizer: PreTrainedTokenizerBase
) -> list[Row]:
    """Rows of table ``edges``: weights between kept nodes, then what the behaviour's tokens write to channels that the
    circuit reads, and what its candidates read from channels that it writes."""
    kept = kept_edges(stack, circuit)
    reads = _channels(circuit, ("attn_in", "mlp_in"))
    writes = _channels(circuit, ("attn_out", "mlp_out"))
    rows = []
    for wire in wires(stack):
        weight = wire.weight.detach().cpu()
        source, target = wire.source, wire.target
        if wire.matrix in kept:
            chosen = kept[wire.matrix]
        elif source == EMBEDDING:
            chosen, target = _of_tokens(weight, train.ids, reads), "stream"
        elif target == LOGITS:
            chosen, source = _of_tokens(weight.T, train.candidates, writes).T, "stream"
        else:
            continue
        for to, by in chosen.nonzero().tolist():
            token = by if source == EMBEDDING else to if target == LOGITS else None
            rows.append(
                which(circuit)
                | {"matrix": wire.matrix, "source": source, "source_channel": by, "target": target}
                | {"target_channel": to, "weight": float(weight[to, by])}
                | {"token": None if token is None else tokenizer.decode([token])}
            )
    return rows


def _of_tokens(weight: Tensor, tokens: Tensor, channels: Tensor) -> Tensor:
    """Nonzero entries of ``[channels, tokens]`` at these tokens and channels."""
    named = torch.zeros(weight.shape[1], dtype=torch.bool)
    named[tokens.unique()] = True
    return (weight != 0) & named[None] & channels[:, None]


def _channels(circuit: Circuit, kinds: tuple[str, ...]) -> Tensor:
    """Channels of the stream that kept nodes of these kinds stand for; channels beside the stream are left out."""
    chosen = [kept for point, kept in circuit.nodes.items() if point.split(".")[1] in kinds]
    width = min(map(len, chosen))
    return torch.stack([kept[:width] for kept in chosen]).any(0)
