"""Removing what a ranking left over: nodes, then edges, then dead ends."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bridges.circuits.ablation import node_means
from bridges.circuits.circuit import count_edges, kept_edges
from bridges.circuits.search.greedy import Pruner, drop_dead_ends, drop_edges, drop_nodes, shrink
from bridges.circuits.search.search import Search
from bridges.circuits.weights import edge_matrices

from .conftest import QUOTE_CIRCUIT, QUOTE_EDGES, nodes_of, published, quote_pairs


@pytest.fixture
def reference(quote_model, quote_text):
    return node_means(quote_model, quote_text)


def test_leftovers_go_and_what_is_needed_stays(quote_model, reference):
    search = Search(quote_model, quote_pairs(64, 0), reference, published(prune_attempts=80))
    fewer = drop_nodes(search.pruner, search.full)
    assert fewer.reached and nodes_of(fewer) == QUOTE_CIRCUIT
    edges = drop_edges(search.pruner, fewer)
    assert edges.reached and count_edges(quote_model, edges).inside == QUOTE_EDGES


def test_removing_no_edge_changes_nothing(quote_model, reference):
    """Weights of nodes outside the circuit stay: they are no edges of it."""
    search = Search(quote_model, quote_pairs(32, 0), reference, published())
    nodes = {p: torch.zeros_like(k) for p, k in search.empty.nodes.items()}
    for point, channel in QUOTE_CIRCUIT:
        nodes[point][channel] = True
    circuit = search.measure(replace(search.empty, nodes=nodes))
    every = {w.name: torch.ones(w.weight.shape, dtype=torch.bool) for w in edge_matrices(quote_model)}
    inside = {m: every[m] for m in kept_edges(quote_model, circuit)}
    assert search.measure(replace(circuit, edges=inside)).train_loss == circuit.train_loss


def test_dead_ends_go_and_protected_nodes_stay(quote_model, reference):
    search = Search(quote_model, quote_pairs(32, 0), reference, published())
    nodes = {p: torch.zeros_like(k) for p, k in search.empty.nodes.items()}
    for point, channel in QUOTE_CIRCUIT | {("0.mlp_neuron", 3), ("1.v", 3)}:
        nodes[point][channel] = True
    circuit = replace(search.empty, nodes=nodes, meta={"protected": {"1.v": [3]}})
    # No weight enters the neuron, none leaves the value channel.
    assert nodes_of(drop_dead_ends(search.pruner, circuit)) == QUOTE_CIRCUIT | {("1.v", 3)}


def test_groups_are_halved_where_they_cannot_go_and_never_tried_again_one_by_one(quote_model, reference):
    """Items 0 to 9, of which 2 and 7 are needed, ranked by their number."""
    search = Search(quote_model, quote_pairs(4, 0), reference, published())
    tried: list[set[int]] = []

    def measure(circuit):
        gone = set(circuit.meta["gone"])
        tried.append(gone)
        return replace(circuit, reached=not gone & {2, 7})

    pruner = Pruner(quote_model, search.prompts, reference, measure, attempts=40)
    start = replace(search.empty, meta={"gone": []}, reached=True)
    found = shrink(
        pruner,
        start,
        lambda circuit: [i for i in range(10) if i not in circuit.meta["gone"]],
        lambda circuit, group: replace(circuit, meta={"gone": [*circuit.meta["gone"], *group]}),
    )
    assert set(found.meta["gone"]) == set(range(10)) - {2, 7} and len(tried) < 20
