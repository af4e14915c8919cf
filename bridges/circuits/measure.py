"""What is written down about a circuit: rows of the tables ``circuits``, ``nodes`` and ``edges``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bridges.behaviours.encoded import EncodedPairs
from bridges.circuits.attribution import attribution, edge_attribution
from bridges.circuits.circuit import Circuit, count_edges, kept_edges, only
from bridges.circuits.core import recovered_shares
from bridges.circuits.node_sets import set_logit_diffs
from bridges.circuits.search.search import Search
from bridges.circuits.task import Calibration, Prompts, logit_diff, task_loss, unexplained
from bridges.circuits.weights import EMBEDDING, LOGITS, edge_matrices
from bridges.stack import ResidualStack

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Row = dict[str, Any]
# Nodes whose effect is measured exactly, beside the attribution of all, and on how many pairs; cores are measured on as
# many.
EXACT, EXACT_PAIRS = 50, 16


def which(circuit: Circuit) -> Row:
    """The columns that name a circuit in every table."""
    return {key: getattr(circuit, key) for key in ("behaviour", "model", "method", "seed")}


def circuit_row(search: Search, circuit: Circuit, heldout: Prompts) -> Row:
    """The row of table ``circuits``; held-out figures are those of the circuit with ablated nodes replaced as in the
    search, calibrated where its objective calibrates."""
    stack, train = search.stack, search.encoded
    edges = count_edges(stack, circuit, train.ids, train.candidates)
    inside = [m for m in edge_matrices(stack) if m.source in circuit.nodes and m.target in circuit.nodes]
    values = search.ablation.values(heldout, torch.Generator().manual_seed(search.seed))
    with torch.no_grad():
        model = logit_diff(stack, heldout)
        with only(stack, circuit, values):
            found = logit_diff(stack, heldout)
    fitted = Calibration(circuit.scale, circuit.shift).apply(found, heldout.sign)
    return which(circuit) | {
        "objective": circuit.objective,
        "ablation": circuit.ablation,
        "nodes": circuit.size,
        "protected": int(sum(kept.sum() for kept in circuit.protected.values())),
        "edges": edges.inside,
        "edges_with_embeddings": edges.with_embeddings,
        "node_level_edges": edges.node_level,
        "total_nodes": sum(len(kept) for kept in circuit.nodes.values()),
        "total_edges": sum(int(m.weight.count_nonzero()) for m in inside),
        "target": circuit.target,
        "reached": circuit.reached,
        "train_loss": circuit.train_loss,
        "carried": circuit.carried,
        "heldout_fvu": float(unexplained(found, model, heldout.sign)),
        "heldout_loss": float(task_loss(fitted)),
        "heldout_accuracy": float((fitted > 0).float().mean()),
        "full_loss": float(task_loss(model)),
        "scale": circuit.scale,
        "shift": circuit.shift,
        "n_pairs": len(heldout) // 2,
    }


def members(circuit: Circuit) -> list[tuple[str, int]]:
    """The kept nodes, ``(point, channel)``, in forward order."""
    return [(p, c) for p, kept in circuit.nodes.items() for c in kept.nonzero()[:, 0].tolist()]


def effects(stack: ResidualStack, circuit: Circuit, some: Prompts, nodes: list[tuple[str, int]]) -> Tensor:
    """Fall of the mean logit difference when each of these nodes alone is ablated in the circuit, ``[nodes]``."""
    sets = {p: torch.zeros(len(nodes) + 1, len(kept), dtype=torch.bool) for p, kept in circuit.nodes.items()}
    for i, (point, channel) in enumerate(nodes):
        sets[point][i, channel] = True
    with only(stack, circuit):
        found = set_logit_diffs(stack, some, sets, circuit.reference).double().mean(1)
    return (found[-1] - found[:-1]).cpu()


def node_rows(stack: ResidualStack, circuit: Circuit, some: Prompts) -> list[Row]:
    """Rows of table ``nodes``; the exact effect is measured of the `EXACT` nodes with the largest attribution, and what
    the first k recover at the sizes of `bridges.circuits.core.core_sizes`.

    Args:
        some: prompts that attribution and effects are measured on.
    """
    named = members(circuit)
    scores = attribution(stack, some, circuit.reference, circuit)
    found = [float(scores[p][c]) for p, c in named]
    order = sorted(range(len(named)), key=lambda i: -abs(found[i]))
    largest, few = order[:EXACT], some.take(slice(0, 2 * EXACT_PAIRS))
    exact = dict(zip(largest, effects(stack, circuit, few, [named[i] for i in largest]).tolist(), strict=True))
    shares = recovered_shares(stack, circuit, few, [named[i] for i in order])
    recovered = {order[k - 1]: share for k, share in shares.items()}
    protected = circuit.protected
    return [
        which(circuit)
        | {
            "point": point,
            "channel": channel,
            "score": float(circuit.scores[point][channel]),
            "mean": float(circuit.reference[point][channel]),
            "attribution": found[i],
            "effect": exact.get(i, math.nan),
            "recovered": recovered.get(i, math.nan),
            "protected": bool(protected[point][channel]),
        }
        for i, (point, channel) in enumerate(named)
    ]


def edge_rows(
    stack: ResidualStack, circuit: Circuit, train: EncodedPairs, tokenizer: PreTrainedTokenizerBase, some: Prompts
) -> list[Row]:
    """Rows of table ``edges``: weights between kept nodes, then what the behaviour's tokens write to channels that the
    circuit reads, and what its candidates read from channels that it writes.

    Args:
        some: prompts that attribution is measured on.
    """
    kept = kept_edges(stack, circuit)
    scores = {name: s.detach() for name, s in edge_attribution(stack, some, circuit.reference, circuit).items()}
    reads = _channels(circuit, ("attn_in", "mlp_in"))
    writes = _channels(circuit, ("attn_out", "mlp_out"))
    rows = []
    for matrix in edge_matrices(stack):
        weight = matrix.weight.detach().cpu()
        source, target = matrix.source, matrix.target
        if matrix.name in kept:
            shown = kept[matrix.name]
        elif source == EMBEDDING:
            shown, target = _of_tokens(weight, train.ids, reads), "stream"
        elif target == LOGITS:
            shown, source = _of_tokens(weight.T, train.candidates, writes).T, "stream"
        else:
            continue
        for to, by in shown.nonzero().tolist():
            token = by if source == EMBEDDING else to if target == LOGITS else None
            rows.append(
                which(circuit)
                | {"matrix": matrix.name, "source": source, "source_channel": by, "target": target}
                | {"target_channel": to, "weight": float(weight[to, by])}
                | {"attribution": float(scores[matrix.name][to, by])}
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
