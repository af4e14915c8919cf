"""Faithfulness curves as the MIB benchmark draws them: circuits of growing size, best nodes or edges first.

f(k) = (m(circuit) − m(all ablated)) / (m(full) − m(all ablated)), with m the mean logit difference on held-out prompts,
uncalibrated; CPR is the area under f over the share k of what is kept, CMD the area under |1 − f|, both on a linear
axis from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bridges.circuits.attribution import edge_attribution
from bridges.circuits.circuit import Circuit, only
from bridges.circuits.measure import which
from bridges.circuits.node_sets import complement, set_logit_diffs
from bridges.circuits.task import Prompts, logit_diff
from bridges.circuits.weights import edge_matrices
from bridges.stack import ResidualStack

FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def areas(f: np.ndarray, fractions: np.ndarray) -> tuple[float, float]:
    """CPR and CMD by the trapezoid rule; at fraction 0 everything is ablated, so that f is 0 there."""
    x, y = np.concatenate([[0.0], fractions]), np.concatenate([[0.0], f])
    return float(np.trapezoid(y, x)), float(np.trapezoid(np.abs(1 - y), x))


def standings(scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every entry's place among all of them, the best at 0; of equal ones the earlier comes first."""
    flat = torch.cat([s.flatten() for s in scores.values()])
    place = torch.empty(len(flat), dtype=torch.int64)
    place[torch.argsort(flat, descending=True, stable=True)] = torch.arange(len(flat), dtype=torch.int64)
    parts = place.split([s.numel() for s in scores.values()])
    return {name: part.view_as(scores[name]) for name, part in zip(scores, parts, strict=True)}


def _rows(circuit: Circuit, level: str, margins: list[float], empty: float, full: float, pairs: int) -> list[dict]:
    span = full - empty
    f = (np.array(margins) - empty) / span if span else np.full(len(margins), np.nan)
    cpr, cmd = areas(f, np.array(FRACTIONS))
    common: dict[str, Any] = which(circuit) | {"ablation": circuit.ablation, "split": "heldout", "level": level}
    common |= {"cpr": cpr, "cmd": cmd, "n_pairs": pairs}
    return [common | {"fraction": k, "f": float(v)} for k, v in zip(FRACTIONS, f, strict=True)]


@torch.no_grad()
def node_curve(stack: ResidualStack, circuit: Circuit, some: Prompts) -> list[dict]:
    """Rows of table ``faithfulness`` over shares of all nodes, ranked by the circuit's scores."""
    total = sum(len(s) for s in circuit.scores.values())
    counts = torch.tensor([0, *(max(1, round(k * total)) for k in FRACTIONS)])
    kept = {p: place < counts[:, None] for p, place in standings(circuit.scores).items()}
    empty, *means = set_logit_diffs(stack, some, complement(kept), circuit.reference).mean(1).tolist()
    return _rows(circuit, "node", means, empty, means[-1], len(some) // 2)


def edge_scores(stack: ResidualStack, some: Prompts, circuit: Circuit) -> dict[str, Tensor]:
    """Magnitude of every weight's attribution in the whole model, ``{matrix: [target, source]}``; zero weights: −1.

    Args:
        circuit: whose means are those of ablated nodes.
    """
    whole = replace(circuit, nodes={p: torch.ones_like(k) for p, k in circuit.nodes.items()}, edges=None)
    scores = edge_attribution(stack, some, circuit.reference, whole)
    inside = {m.name: m.weight.detach().cpu() for m in edge_matrices(stack) if m.source in circuit.nodes}
    return {name: torch.where(weight != 0, scores[name].abs(), -1.0) for name, weight in inside.items()}


@torch.no_grad()
def edge_curve(stack: ResidualStack, circuit: Circuit, ranked_on: Prompts, some: Prompts) -> list[dict]:
    """Rows of table ``faithfulness`` over shares of all nonzero weights inside the blocks, every node kept.

    Args:
        ranked_on: prompts whose attribution ranks the weights. some: prompts that are measured.
    """
    scores = edge_scores(stack, ranked_on, circuit)
    order, total = standings(scores), sum(int((s >= 0).sum()) for s in scores.values())
    nodes = {p: torch.ones_like(k) for p, k in circuit.nodes.items()}
    means = []
    for count in (0, *(max(1, round(k * total)) for k in FRACTIONS)):
        kept = {name: place < count for name, place in order.items()}
        with only(stack, replace(circuit, nodes=nodes, edges=kept)):
            means.append(float(logit_diff(stack, some).mean()))
    return _rows(circuit, "edge", means[1:], means[0], means[-1], len(some) // 2)
