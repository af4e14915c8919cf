"""Resampling, channels, carriers and directions, each against a value worked out another way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bridges.bridge import Bridges, SitePair
from bridges.circuits.circuit import kept_edges
from bridges.compare.bootstrap import Resampler, estimate, holm, p_above_zero
from bridges.compare.carry import (
    carried,
    matched,
    other_channels,
    random_channels,
    random_directions,
    random_nodes,
    shortened,
    shuffled_bridge,
)
from bridges.compare.channels import live_channels
from bridges.compare.directions import baseline_directions
from bridges.fidelity.hybrids import bootstrap_interval
from bridges.sparse import SparseTransformer, SparseTransformerConfig


def draws_of(n: int, resamples: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, n, (resamples, n))


# --- resampling ---------------------------------------------------------------------------------------------------


def test_ratio_and_its_interval_are_those_of_the_resampled_units(rng):
    above, below = rng(0).normal(size=20), rng(1).uniform(1, 2, 20)
    r = Resampler(20, 100, 3)
    values, at = r.ratio(above, below), draws_of(20, 100, 3)
    assert np.allclose(values[0], above.sum() / below.sum())
    assert np.allclose(values[1:], above[at].sum(1) / below[at].sum(1))
    # A mean is a ratio, and its interval that of the project's other tables.
    found = estimate(r.ratio(above, np.ones(20)))
    assert np.allclose([found.value, found.low, found.high], bootstrap_interval(above, 100, 3))


def test_correlation_is_numpys_in_the_data_and_in_every_draw(rng):
    x = rng(0).normal(size=(15, 3)) + 1e4
    y = 0.5 * x + rng(1).normal(size=(15, 3))
    values, at = Resampler(15, 50, 7).correlation(x, y), draws_of(15, 50, 7)
    assert values[0] == pytest.approx(np.corrcoef(x.ravel(), y.ravel())[0, 1])
    expected = [np.corrcoef(x[rows].ravel(), y[rows].ravel())[0, 1] for rows in at]
    assert np.allclose(values[1:], expected)


def test_what_cannot_be_known_is_nan():
    r = Resampler(4, 10, 0)
    assert np.isnan(r.correlation(np.ones((4, 2)), np.arange(8.0).reshape(4, 2))).all()
    assert np.isnan(r.ratio(np.ones(4), np.zeros(4))).all()
    nothing = estimate(np.full(11, np.nan))
    assert np.isnan([nothing.value, nothing.low, nothing.high]).all()
    # Draws without a value are left out of the interval.
    some = estimate(np.array([2.0, np.nan, 1.0, 3.0]))
    assert 1 <= some.low < some.high <= 3


def test_p_is_the_share_of_draws_not_above_zero_and_never_zero():
    assert p_above_zero(np.array([1.0, 1.0, -1.0, 0.0, np.nan]), 9) == pytest.approx((1 + 3) / 5)
    assert p_above_zero(np.ones(100), 9) == pytest.approx(1 / 100)
    assert np.isnan(p_above_zero(np.array([np.nan, 1.0]), 9))


def test_few_pairs_prove_nothing():
    # Three pairs that all come out above zero do so by chance in one case of eight.
    assert p_above_zero(np.ones(2000), 3) == 1 / 8


def test_where_a_circuit_uses_all_channels_there_are_no_others_to_compare_with(tmp_path):
    bridge, delta = Bridges(4, 6, [SitePair(0, 0)], None)[0], torch.ones(2, 3, 6)
    like = torch.ones(2, 3, 4)
    g = torch.Generator().manual_seed(0)
    assert random_nodes(bridge, delta, torch.ones(6, dtype=torch.bool), 6, like, g).isnan().all()
    assert random_nodes(bridge, delta, torch.arange(6) < 5, 5, like, g).isfinite().all()
    assert shortened(other_channels(bridge, delta, torch.ones(6, dtype=torch.bool), 6, g), like).isnan().all()


def test_holm_steps_down():
    # Worked out by hand: sorted .005 .01 .03 .04 times 4 3 2 1, made rising.
    assert np.allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    with_gap = holm(np.array([0.04, np.nan, 0.9]))
    assert np.allclose(with_gap[[0, 2]], [0.08, 0.9]) and np.isnan(with_gap[1])


# --- channels -----------------------------------------------------------------------------------------------------


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


# --- carriers -----------------------------------------------------------------------------------------------------


@pytest.fixture
def bridge():
    made = Bridges(6, 5, [SitePair(0, 0)], None, seed=3)[0].requires_grad_(False)
    made.scale.fill_(7.0)
    made.sparse_scale.fill_(0.3)
    made.decoder.bias.fill_(2.0)
    return made


def test_a_carried_change_is_the_change_of_what_is_decoded(bridge):
    g = torch.Generator().manual_seed(0)
    h, delta = torch.randn(4, 3, 5, generator=g), torch.randn(4, 3, 5, generator=g)
    expected = bridge.decode(h + delta) - bridge.decode(h)
    assert torch.allclose(carried(bridge, delta), expected, atol=1e-4)


def test_nulls_are_as_long_at_every_token_and_zero_where_nothing_changes(bridge):
    g = torch.Generator().manual_seed(0)
    delta = torch.randn(4, 3, 5, generator=g)
    delta[:, 0] = 0
    used = torch.tensor([True, True, False, False, False])
    like = carried(bridge, delta * used)
    for null in (
        random_directions(like, g),
        random_nodes(bridge, delta, used, 2, like, g),
        shuffled_bridge(bridge, delta * used, like, g),
    ):
        assert torch.allclose(null.norm(dim=-1), like.norm(dim=-1), rtol=1e-4)
        assert not null[:, 0].any() and not torch.allclose(null[:, 1], like[:, 1], rtol=0.1)
    assert not matched(torch.zeros(2, 2, 6), torch.ones(2, 2, 6)).any()


def test_other_channels_are_removed_no_further_than_to_their_means(bridge):
    g = torch.Generator().manual_seed(0)
    delta = torch.randn(4, 3, 5, generator=g)
    used = torch.tensor([True, True, False, False, False])
    others = other_channels(bridge, delta, used, 3, g)
    # All that are left: their own change, as long as it is.
    assert torch.equal(others, carried(bridge, delta * ~used))
    like = torch.randn(4, 3, 4, generator=g) * torch.tensor([0.0, 0.01, 100.0]).view(1, 3, 1)
    length = shortened(others, like).norm(dim=-1)
    assert not length[:, 0].any()
    assert torch.allclose(length[:, 1], like[:, 1].norm(dim=-1), rtol=1e-4)
    assert torch.equal(shortened(others, like)[:, 2], others[:, 2])


def test_random_channels_are_never_the_circuits_and_a_draw_belongs_to_a_pair():
    used = torch.zeros(20, dtype=torch.bool)
    used[:5] = True
    chosen = random_channels(used, 5, 200, torch.Generator().manual_seed(0)).squeeze(1)
    assert not chosen[:, :5].any() and (chosen.sum(1) == 5).all()
    assert torch.equal(chosen[0::2], chosen[1::2]) and len(chosen.unique(dim=0)) > 100
    # Each of the 15 others is drawn about a third of the time.
    assert ((chosen[:, 5:].float().mean(0) - 1 / 3).abs() < 0.12).all()
    assert (random_channels(used, 18, 2, torch.Generator().manual_seed(0)).sum(-1) == 15).all()


def test_a_shuffled_bridge_is_a_decoder_with_its_columns_in_another_order(bridge):
    delta = torch.zeros(400, 1, 5)
    delta[..., 1] = 1.0
    like = torch.full((400, 1, 6), 2.0)
    columns = shuffled_bridge(bridge, delta, like, torch.Generator().manual_seed(1))[:, 0]
    alike = torch.nn.functional.cosine_similarity(columns[:, None], bridge.decoder.weight.T, dim=-1)
    # One column of the decoder each time, every one equally often, the same for both prompts of a pair.
    assert torch.allclose(alike.max(1).values, torch.ones(400), atol=1e-4)
    counts = alike.argmax(1).bincount(minlength=5)
    assert (counts > 50).all() and torch.equal(alike.argmax(1)[0::2], alike.argmax(1)[1::2])


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
