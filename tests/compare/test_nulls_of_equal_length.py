"""Nulls are as long as the change they stand beside, at every token, and have none of what it says."""

from __future__ import annotations

import pytest
import torch

from bridges.bridge import Bridges, SitePair
from bridges.circuits.bridge_context import map_through_bridge
from bridges.compare.nulls import (
    TO_DENSE,
    TO_SPARSE,
    matched,
    null_to_dense,
    null_to_sparse,
    random_channels,
    random_directions,
    shortened,
    shuffled_channels,
)

USED = torch.tensor([True, True, False, False, False])


@pytest.fixture
def bridge():
    made = Bridges(6, 5, [SitePair(0, 0)], None, seed=3)[0].requires_grad_(False)
    made.scale.fill_(7.0)
    made.sparse_scale.fill_(0.3)
    made.decoder.bias.fill_(2.0)
    return made


@pytest.fixture
def change():
    """A change of the sparse stream, nothing at the first token."""
    made = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    made[:, 0] = 0
    return made


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", TO_DENSE)
def test_to_dense(name, bridge, change):
    own = map_through_bridge(bridge, change * USED)
    other = Bridges(6, 5, [SitePair(0, 0)], None, seed=4)[0].requires_grad_(False)
    null = null_to_dense(name, own, change * USED, change, USED, bridge, other, seeded())
    torch.testing.assert_close(null.norm(dim=-1), own.norm(dim=-1), rtol=1e-4, atol=1e-5)
    assert not null[:, 0].any() and not torch.allclose(null[:, 1], own[:, 1], rtol=0.1)
    again = null_to_dense(name, own, change * USED, change, USED, bridge, other, seeded(1))
    # An untrained bridge has nothing to draw.
    assert torch.equal(null, again) == (name == "untrained_bridge")


@pytest.mark.parametrize("name", TO_SPARSE)
def test_to_sparse(name, change):
    shared = torch.tensor([[False, True, True]] * 4)
    foreign = torch.randn(4, 3, 5, generator=seeded(7))
    null = null_to_sparse(name, change, foreign, seeded(5), shared)
    torch.testing.assert_close(null.norm(dim=-1), change.norm(dim=-1), rtol=1e-4, atol=1e-5)
    assert not null[:, 0].any() and not torch.allclose(null[:, 1], change[:, 1], rtol=0.1)


def test_other_channels_are_decoded_from_channels_that_the_circuit_does_not_use(bridge, change):
    own = map_through_bridge(bridge, change * USED)
    # Two of the three others: with one row that only they can span.
    null = null_to_dense("other_channels", own, change * USED, change, USED, bridge, bridge, seeded())
    columns = bridge.decoder.weight[:, ~USED]
    for row in null[:, 1]:
        left = row - columns @ torch.linalg.lstsq(columns, row[:, None]).solution[:, 0]
        assert left.norm() < 1e-3 * row.norm()


def test_a_circuit_that_uses_every_channel_has_no_others(bridge, change):
    every = torch.ones(5, dtype=torch.bool)
    own = map_through_bridge(bridge, change)
    assert null_to_dense("other_channels", own, change, change, every, bridge, bridge, seeded()).isnan().all()


def test_a_token_without_length_stays_so():
    assert not matched(torch.zeros(2, 2, 6), torch.ones(2, 2, 6)).any()
    assert not random_directions(torch.zeros(2, 2, 6), seeded()).any()
    x, like = torch.full((1, 2, 4), 3.0), torch.tensor([[[1.0], [9.0]]]).expand(1, 2, 4)
    # Only what is longer is made shorter.
    assert shortened(x, like)[0, 0].tolist() == [1.0] * 4 and torch.equal(shortened(x, like)[0, 1], x[0, 1])


def test_random_channels_are_never_the_circuits_and_a_draw_belongs_to_a_pair():
    used = torch.zeros(20, dtype=torch.bool)
    used[:5] = True
    chosen = random_channels(used, 200, seeded()).squeeze(1)
    assert not chosen[:, :5].any() and (chosen.sum(1) == 5).all()
    assert torch.equal(chosen[0::2], chosen[1::2]) and len(chosen.unique(dim=0)) > 100
    # Each of the 15 others is drawn about a third of the time.
    assert ((chosen[:, 5:].float().mean(0) - 1 / 3).abs() < 0.12).all()
    used[:18] = True
    # Where fewer are left, those.
    assert (random_channels(used, 2, seeded()).sum(-1) == 2).all()


def test_shuffled_channels_are_the_same_values_elsewhere_in_an_order_of_each_pair(change):
    found = shuffled_channels(change, seeded())
    assert torch.equal(found.sort(-1).values, change.sort(-1).values) and not torch.equal(found, change)
    alike = change.clone()
    alike[1::2] = alike[0::2]
    both = shuffled_channels(alike, seeded())
    assert torch.equal(both[0::2], both[1::2])
    marks = shuffled_channels(torch.arange(5.0).expand(800, 1, 5), seeded())[0::2, 0]
    # Every channel comes to every place equally often.
    assert ((marks == 0).float().mean(0) - 0.2).abs().max() < 0.07
