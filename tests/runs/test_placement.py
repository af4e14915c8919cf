"""Where bridges stand: as many as evenly, both ends among them, and close together where a profile rises."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bridges.behaviours.encoded import EncodedPairs
from bridges.behaviours.pair import Pair
from bridges.bridge import pair_sites
from bridges.nodes import NodeBus
from bridges.runs import placement
from bridges.runs.placement import ceiling_profile, measured_sites, place_pairs
from bridges.stack import ResidualStack

# --- places -----------------------------------------------------------------------------------------------------------


def _step(n: int, at: int, height: float = 1.0) -> dict[int, float]:
    """A profile that rises from 0 to ``height`` in the sublayer before site ``at``."""
    return {site: height * (site >= at) for site in range(n + 1)}


@pytest.mark.parametrize("n_dense", [4, 12, 24, 60])
@pytest.mark.parametrize(("n_sparse", "every"), [(8, None), (8, 2), (4, 1), (30, None), (12, 5)])
def test_places_rise_strictly_and_keep_ends_and_count(n_dense, n_sparse, every):
    even = pair_sites(n_dense, n_sparse, every)
    for at in range(1, n_dense + 1):
        placed = place_pairs(n_dense, n_sparse, every, {"b": _step(n_dense, at)})
        dense = [pair.dense for pair in placed]
        assert [pair.sparse for pair in placed] == [pair.sparse for pair in even]
        assert dense[0] == 0 and dense[-1] == n_dense
        assert all(a < b for a, b in itertools.pairwise(dense)), (at, dense)


@pytest.mark.parametrize("at", [1, 7, 30, 52, 60])
def test_bridges_stand_close_together_where_a_profile_rises(at):
    placed = [pair.dense for pair in place_pairs(60, 8, None, {"b": _step(60, at)})]
    # Of nine, at most three need not be near: what is even and the two ends.
    assert sum(abs(site - at) <= 6 for site in placed) >= 5, placed
    assert {at - 1, at} <= set(placed)
    if at not in (1, 60):
        assert abs(sum(site < at for site in placed if abs(site - at) <= 6) - 3) <= 1


def test_two_profiles_share_the_bridges():
    placed = [p.dense for p in place_pairs(60, 12, None, {"early": _step(60, 12), "late": _step(60, 48)})]
    assert sum(abs(site - 12) <= 5 for site in placed) >= 3 and sum(abs(site - 48) <= 5 for site in placed) >= 3


def test_profiles_that_say_nothing_leave_bridges_even():
    even = pair_sites(30, 8, None)
    nothing: dict[str, dict[int, float]] = {
        "low": _step(30, 20, 0.49),
        "unknown": dict.fromkeys(range(31), math.nan),
        "always there": dict.fromkeys(range(31), 1.0),
        "unmeasured": {},
    }
    assert place_pairs(30, 8, None, {}) == even
    assert place_pairs(30, 8, None, nothing) == even
    assert place_pairs(30, 8, None, nothing | {"b": _step(30, 20)}) == place_pairs(30, 8, None, {"b": _step(30, 20)})


def test_sites_that_could_not_be_measured_are_passed_over():
    profile = _step(30, 20)
    for site in (0, 3, 15, 30):
        gone = profile | {site: math.nan}
        assert place_pairs(30, 8, None, {"b": gone}) == place_pairs(30, 8, None, {"b": profile}), site


def test_a_profile_of_few_sites_is_enough():
    sites = measured_sites(60)
    assert sites[0] == 0 and sites[-1] == 60 and len(sites) <= placement.SITES + 1 and sites == sorted(set(sites))
    assert measured_sites(4) == [0, 1, 2, 3, 4]
    placed = place_pairs(60, 8, None, {"b": {site: float(site >= 50) for site in sites}})
    assert sum(45 <= pair.dense <= 50 for pair in placed) >= 3


# --- profiles ---------------------------------------------------------------------------------------------------------

WORDS = 6


class Mover(nn.Module, ResidualStack):
    """A model of sublayers that do nothing, but for one that writes the second token into the last one's stream.

    The stream is a token, one-hot, and beside it what the answer is read off.
    """

    def __init__(self, n_sublayers: int, mover: int, strength: float = 3.0) -> None:
        super().__init__()
        self.d_model, self.n_sublayers, self.n_layers = 2 * WORDS, n_sublayers, n_sublayers
        self.vocab_size, self.context, self.mover = WORDS, 16, mover
        self.strength = nn.Parameter(torch.tensor(strength), requires_grad=False)
        self.nodes: Any = NodeBus({})

    def embed(self, ids: Tensor) -> Tensor:
        tokens = nn.functional.one_hot(ids, WORDS).float()
        return torch.cat([tokens, torch.zeros_like(tokens)], -1)

    def sublayer(self, index: int, h: Tensor) -> Tensor:
        if index != self.mover:
            return h
        moved = torch.zeros_like(h)
        moved[:, -1, WORDS:] = self.strength * h[:, 1, :WORDS]
        return h + moved

    def unembed(self, h: Tensor, ids: Tensor) -> Tensor:
        return h[..., WORDS:]


def _pairs(count: int = 4) -> EncodedPairs:
    """Prompts ``[0, cue, 5, 5]`` that are answered with their cue."""
    rng = np.random.default_rng(0)
    cues = torch.tensor(np.stack([rng.permutation([1, 2, 3, 4])[:2] for _ in range(count)]))
    ids = torch.tensor([0, 0, 5, 5]).repeat(count, 2, 1)
    ids[:, :, 1] = cues
    pairs = tuple(Pair("a", "b", "c", "d", "t") for _ in range(count))
    return EncodedPairs("cue", "train", 0, pairs, ids, torch.full((count, 2), 4), cues, count)


@pytest.mark.parametrize("tokens", [1, 100, 4096])
@pytest.mark.parametrize("mover", [0, 3, 5])
def test_a_profile_is_nothing_before_the_cue_is_moved_and_all_of_it_after(mover, tokens, monkeypatch):
    monkeypatch.setattr(placement, "_TOKENS", tokens)
    found = ceiling_profile(Mover(6, mover), _pairs(), range(7))
    assert found == pytest.approx([float(site > mover) for site in range(7)])
    placed = [pair.dense for pair in place_pairs(6, 4, None, {"cue": dict(enumerate(found))})]
    assert {mover, mover + 1} <= set(placed)


def test_some_sites_alone_can_be_measured():
    assert ceiling_profile(Mover(6, 3), _pairs(), [1, 6]) == pytest.approx([0, 1])


def test_a_model_that_tells_nothing_apart_has_no_profile():
    found = ceiling_profile(Mover(6, 3, strength=0.0), _pairs(), range(7))
    assert len(found) == 7 and all(math.isnan(share) for share in found)
    assert place_pairs(6, 4, None, {"cue": dict(enumerate(found))}) == pair_sites(6, 4)
