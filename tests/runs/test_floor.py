"""What cannot reproduce anything is never said to, on a planted world in seconds; the world itself is.

The same on the shipped pair, in minutes: ``pytest -m slow tests/compare/test_nulls.py``.
"""

from __future__ import annotations

import copy

import torch

from bridges.bridge import Bridges

from .conftest import exact_bridges, judged


def test_the_world_as_it_is_planted_is_reproduced(context_in, world, tmp_path):
    row = judged(context_in(tmp_path))
    assert row["verdict"] == "reproduced", (row["reason"], row["states"])
    assert row["fvu"] < 0.2 and row["ceiling"] > 0.5 and row["share_moved"] > 0.5 and row["share_back"] > 0.5
    circuits = row["tables"]["circuits"].query("model == 'sparse'")
    truth = sum(map(len, world.truth["copy"]["nodes"].values()))
    assert truth <= int(circuits["nodes"].iloc[0]) <= truth + 2


def never(row) -> None:
    assert row["verdict"] not in ("reproduced", "undecided"), (row["reason"], row["states"])


def test_shuffled_bridges(context_in, world, tmp_path):
    """Every channel takes another one's place at every bridge."""
    bridges, g = exact_bridges(world), torch.Generator().manual_seed(0)
    for bridge in bridges:
        order = torch.randperm(world.sparse.d_model, generator=g)
        bridge.decoder.weight.copy_(bridge.decoder.weight[:, order])
        bridge.encoder.weight.copy_(bridge.encoder.weight[order])
    row = judged(context_in(tmp_path, bridges=bridges))
    assert row["verdict"] != "reproduced" and row["states"]["share_to_dense"] != "held", row["states"]


def test_untrained_bridges(context_in, world, tmp_path):
    pairs = exact_bridges(world).pairs
    bridges = Bridges(world.dense.d_model, world.sparse.d_model, pairs, None, seed=8).requires_grad_(False)
    row = judged(context_in(tmp_path, bridges=bridges))
    assert row["verdict"] != "reproduced" and row["states"]["share_to_dense"] != "held", row["states"]


def test_a_sparse_model_that_mixes_no_positions(context_in, world, tmp_path):
    """Whoever said that it does the behaviour all the same: its circuit explains and carries nothing."""
    sparse = copy.deepcopy(world.sparse)
    for layer in range(sparse.n_layers):
        sparse.blocks[2 * layer].out.weight.zero_()
    never(judged(context_in(tmp_path, sparse=sparse)))


def test_an_untrained_sparse_model(context_in, world, tmp_path):
    sparse, g = copy.deepcopy(world.sparse), torch.Generator().manual_seed(0)
    for p in sparse.parameters():
        p.copy_(0.1 * torch.randn(p.shape, generator=g))
    never(judged(context_in(tmp_path, sparse=sparse)))


def test_a_behaviour_that_the_sparse_model_lacks(context_in, tmp_path):
    row = judged(context_in(tmp_path), "select", sparse=0.5)
    assert row["verdict"] == "not" and "sparse_accuracy" in row["failed"]
