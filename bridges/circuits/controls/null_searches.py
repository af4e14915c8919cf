"""Does the search find a circuit just as well where there is nothing to find?"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor

from bridges.behaviours.nonsense import consistent_nonsense, shuffled_labels
from bridges.behaviours.pair import BehaviourError
from bridges.circuits.ablation import node_means
from bridges.circuits.circuit import Circuit, count_edges
from bridges.circuits.controls.case import Case, Null, Row, control
from bridges.circuits.weights import EMBEDDING, edge_matrices
from bridges.stack import ResidualStack


def _sizes(case: Case, name: str, stack: ResidualStack, found: Circuit, pairs: int) -> list[Row]:
    """Rows of a null circuit: its loss, nodes and edges, NaN where it misses the target: there is no such circuit."""
    more: dict[str, Any] = {"split": "train", "n_pairs": pairs, "size": found.size}
    nodes, edges = (float(found.size), float(count_edges(stack, found).inside)) if found.reached else (math.nan,) * 2
    own = float(count_edges(case.stack, case.circuit).inside)
    return [
        case.row(name, "null_loss", found.train_loss, reference=found.target, **more),
        case.row(name, "null_nodes", nodes, reference=float(case.circuit.size), **more),
        case.row(name, "null_edges", edges, reference=own, decides=True, **more),
    ]


@control("consistent_labels")
def consistent_labels(case: Case) -> list[Row]:
    """Edges of a circuit for a meaningless task that pruning can solve: the same prompts, answered by two arbitrary
    tokens as the cue says (the critique's kind of null).

    Far less is asked of it than of the circuit. Where it is no larger all the same, the behaviour is searched with the
    same objective too, so that like is compared with like.
    """
    try:
        task = consistent_nonsense(case.train, case.seed)
    except BehaviourError:
        return []
    found, pairs = case.search_labels(task), min(len(task), case.settings.pairs)
    rows = _sizes(case, "consistent_labels", case.stack, found, pairs)
    edges = count_edges(case.stack, found).inside
    if found.reached and edges <= count_edges(case.stack, case.circuit).inside:
        same = case.search_labels(case.train)
        own = float(count_edges(case.stack, same).inside) if same.reached else math.nan
        more: dict[str, Any] = {"split": "train", "size": same.size}
        more["n_pairs"] = min(len(case.train), case.settings.pairs)
        rows.append(case.row("consistent_labels", "own_edges", own, reference=float(edges), decides=True, **more))
    return rows


@control("shuffled_labels")
def shuffled(case: Case) -> list[Row]:
    """The same search with the right tokens of half the pairs exchanged by a hash of the prompt: only memory helps."""
    task = shuffled_labels(case.train, case.seed)
    return _sizes(case, "shuffled_labels", case.stack, case.search_labels(task), min(len(task), case.settings.pairs))


@control("shuffled_weights")
def shuffled_weights(case: Case) -> list[Row]:
    """The same search in a model whose weights are shuffled."""
    null = case.null()
    found = case.search_labels(case.train, null)
    return _sizes(case, "shuffled_weights", null.stack, found, min(len(case.train), case.settings.pairs))


@torch.no_grad()
def shuffled_model(stack: ResidualStack, text: Iterable[Tensor], seed: int) -> Null:
    """A copy whose every weight matrix has the entries of each row in random order, biases too.

    Each neuron and channel keeps how many weights enter it and their values, embeddings and unembedding included; what
    they join is drawn anew. A bigram table stays, since nodes have no part in it.

    Args:
        text: token ids ``[B, T]`` of ordinary text, for the means of its nodes.
    """
    generator = torch.Generator().manual_seed(seed)
    twin = cast(Any, copy.deepcopy(stack))
    for matrix in edge_matrices(twin):
        # Rows of the embedding are those of its table: one for each token.
        turned = matrix.source == EMBEDDING
        weight, bias = (matrix.weight.T if turned else matrix.weight), matrix.bias
        mixed = [None if w is None else w.gather(-1, _order(w, generator)) for w in (weight, bias)]
        assert mixed[0] is not None
        matrix.put(mixed[0].T if turned else mixed[0], mixed[1])
    return Null(twin, node_means(twin, text))


def _order(weight: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(weight.shape, generator=generator).argsort(-1).to(weight.device)
