"""Sampled crossings stand for all of them, whatever decides how often each is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from bridges.training.crossings import Crossings, Sampler, draw, inclusion


@pytest.mark.parametrize("count", [1, 2, 4])
def test_inclusion_is_proportional_and_adds_up(count):
    sizes = np.array([1.0, 2.0, 3.0, 4.0, 90.0])
    chance = inclusion(sizes, count)
    assert chance.sum() == pytest.approx(count) and (chance <= 1).all() and (chance > 0).all()
    free = chance < 1
    assert np.allclose(chance[free] / sizes[free], (chance[free] / sizes[free])[0])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_estimate_is_unbiased_for_any_sizes(count):
    rng = np.random.default_rng(0)
    sizes, values = rng.uniform(0.1, 5, 6), rng.uniform(-1, 1, 6)
    chance = inclusion(sizes, count)
    estimates, seen, n = [], np.zeros(6), 20_000
    for _ in range(n):
        crossings = draw(sizes, count, rng)
        assert len(set(crossings.bridges)) == count and list(crossings.bridges) == sorted(crossings.bridges)
        seen[list(crossings.bridges)] += 1
        estimates.append(values[list(crossings.bridges)] @ np.array(crossings.weights))
    assert np.abs(seen / n - chance).max() < 0.015
    assert np.mean(estimates) == pytest.approx(values.sum(), abs=4 * np.std(estimates) / n**0.5)


def test_sizes_in_proportion_leave_no_variance():
    sizes = np.array([0.1, 0.5, 1.0, 2.0])
    rng = np.random.default_rng(1)
    for _ in range(50):
        crossings = draw(sizes, 1, rng)
        assert sizes[list(crossings.bridges)] @ np.array(crossings.weights) == pytest.approx(sizes.sum())


def test_importance_draws_what_has_a_large_kl_more_often():
    sampler = Sampler(4, 1, seed=0, importance=True)
    before = [sampler(step)[1].bridges[0] for step in range(400)]
    assert all(60 < before.count(i) < 140 for i in range(4))
    every = Crossings.alike(range(4), 4)
    sampler.see({"kl_s2d": (every, [0.1, 0.1, 0.1, 5.0])})
    after = [sampler(step) for step in range(400)]
    counts = [sum(second.bridges == (i,) for _, second in after) for i in range(4)]
    assert counts[3] > 4 * max(counts[:3]) and min(counts[:3]) > 10
    # The other direction has not been seen, and stays even.
    assert all(60 < sum(first.bridges == (i,) for first, _ in after) < 140 for i in range(4))
    sampler.see({"kl_s2d": (Crossings((3,), (1.0,)), [0.0])})
    assert sampler.means["kl_s2d"] == pytest.approx([0.1, 0.1, 0.1, 4.5])
