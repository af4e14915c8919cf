"""Does the search find a circuit just as well in a model that has learned nothing?"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor

from bridges.circuits.ablation import node_means
from bridges.circuits.controls.case import Case, Null, Row, control
from bridges.circuits.controls.nonsense import against_null
from bridges.circuits.weights import wires
from bridges.stack import ResidualStack


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
    for wire in wires(twin):
        for weight in (wire.weight.T if wire.source == "embedding" else wire.weight, wire.bias):
            if weight is not None:
                order = torch.rand(weight.shape, generator=generator).argsort(-1).to(weight.device)
                weight.copy_(weight.gather(-1, order))
    return Null(twin, node_means(twin, text))


@control("random_weights")
def random_weights(case: Case) -> list[Row]:
    """The same search in the shuffled model; the bar is that of the nonsense control."""
    return against_null(case, "random_weights", case.null_search(case.train, case.null()))
