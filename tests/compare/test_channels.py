"""The channels of the stream that a circuit uses, and directions that linear methods find, against planted ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bridges.circuits.circuit import kept_edges
from bridges.compare.channels import live_channels
from bridges.compare.directions import baseline_directions
from bridges.sparse import SparseTransformer, SparseTransformerConfig


def test_live_channels_are_read_later_or_written_before(quote, true_circuit):
    live = live_channels(quote.sparse, true_circuit)
    found = [set(row.nonzero()[:, 0].tolist()) for row in live]
    # Read by the first MLP (sublayer 1) and the second attention (2); written by the first MLP and that attention.
    assert found == [{0, 1, 3, 4}, {0, 1, 3, 4}, {3, 4}, {3, 4, 5}, {3, 4, 5}]


def test_a_node_without_an_edge_neither_reads_nor_writes(quote, true_circuit):
    edges = kept_edges(quote.sparse, true_circuit)
    same = live_channels(quote.sparse, replace(true_circuit, edges=edges))
    assert torch.equal(same, live_channels(quote.sparse, true_circuit))
    cut = {m: e.clone() for m, e in edges.items()}
    cut["0.up"][0, 0] = False
    cut["1.out"][5, 0] = False
    live = live_channels(quote.sparse, replace(true_circuit, edges=cut))
    assert [set(row.nonzero()[:, 0].tolist()) for row in live] == [{1, 3, 4}, {1, 3, 4}, {3, 4}, {3, 4}, {3, 4}]


def test_position_channels_are_no_part_of_the_stream(quote, true_circuit):
    shape = {"n_layer": 1, "d_model": 4, "d_mlp": 4, "d_head": 2, "n_head": 2, "d_position": 3, "position": "concat"}
    model = SparseTransformer(SparseTransformerConfig(vocab_size=8, **shape))
    nodes = {p: torch.zeros(w, dtype=torch.bool) for p, w in model.nodes.widths.items()}
    nodes["0.mlp_in"][[2, 5]] = True
    live = live_channels(model, replace(true_circuit, nodes=nodes))
    assert live.shape == (3, 4) and live.nonzero().tolist() == [[0, 2], [1, 2]]


# --- directions ---------------------------------------------------------------------------------------------------


def test_directions_find_a_planted_axis_and_point_to_the_first_candidate():
    g = torch.Generator().manual_seed(0)
    axis = torch.nn.functional.normalize(torch.randn(12, generator=g), dim=0)
    sign = torch.tensor([1.0, -1.0, -1.0, 1.0] * 10)
    # What both prompts of a pair share is large and lies elsewhere.
    shared = torch.randn(20, 12, generator=g).repeat_interleave(2, 0) * 3
    shared -= (shared @ axis)[:, None] * axis
    x = shared + sign[:, None] * axis * 2 + 0.1 * torch.randn(40, 12, generator=g)
    found = baseline_directions(x, sign)
    assert set(found) == {"difference_of_means", "probe", "pca"}
    for name, direction in found.items():
        assert direction.norm() == pytest.approx(1, abs=1e-5)
        assert float(direction @ axis) > (0.85 if name == "probe" else 0.95)
    mean = x[sign > 0].mean(0) - x[sign < 0].mean(0)
    assert torch.allclose(found["difference_of_means"], mean / mean.norm(), atol=1e-5)
    flipped = baseline_directions(x, -sign)
    assert all(torch.allclose(found[name], -flipped[name], atol=1e-3) for name in found)


def test_a_stream_that_says_nothing_has_no_direction():
    found = baseline_directions(torch.ones(8, 3), torch.tensor([1.0, -1.0] * 4))
    assert all(not direction.any() for direction in found.values())
