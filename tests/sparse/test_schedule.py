"""Both schedules by hand, and the last step's promise however short the training."""

from __future__ import annotations

import itertools

import pytest

from bridges.sparse import Schedule


def test_linear_annealing_and_rate_by_hand():
    s = Schedule(steps=100, target=0.1, warmup=0.1, anneal=0.5)
    assert s.warmup_steps == 10
    for step, fraction in ((0, 1.0), (9, 1.0), (10, 0.9775), (29, 0.55), (48, 0.1225), (49, 0.1), (70, 0.1), (99, 0.1)):
        assert s.fraction(step) == pytest.approx(fraction), step
    for step, factor in ((0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (55, 0.5), (99, 1 / 90)):
        assert s.lr_factor(step) == pytest.approx(factor), step


def test_exponential_annealing_by_hand():
    s = Schedule(steps=100, target=0.01, warmup=0.1, anneal=0.5, shape="exponential")
    for step, fraction in ((9, 1.0), (19, 0.01**0.25), (29, 0.1), (49, 0.01), (99, 0.01)):
        assert s.fraction(step) == pytest.approx(fraction), step


def test_annealing_goes_on_from_a_sparser_start():
    linear = Schedule(steps=100, target=0.1, start=0.5, warmup=0.1, anneal=0.5)
    assert [linear.fraction(s) for s in (0, 29, 49)] == pytest.approx([0.5, 0.3, 0.1])
    steep = Schedule(steps=100, target=0.02, start=0.5, warmup=0.1, anneal=0.5, shape="exponential")
    assert [steep.fraction(s) for s in (0, 29, 49)] == pytest.approx([0.5, 0.1, 0.02])


def test_sharkfin_is_one_over_the_root_of_the_fraction():
    s = Schedule(steps=100, target=0.04, warmup=0.1, anneal=0.5)
    assert [s.boost(step) for step in (0, 29, 60)] == pytest.approx([1.0, 0.52**-0.5, 5.0])
    off = Schedule(steps=100, target=0.04, warmup=0.1, anneal=0.5, sharkfin=False)
    assert {off.boost(step) for step in range(100)} == {1.0}


@pytest.mark.parametrize("shape", ["linear", "exponential"])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 7, 50])
def test_the_last_step_meets_the_target_and_nothing_rises_on_the_way(steps, shape):
    for warmup in (0.0, 0.01, 0.3, 1.0):
        for anneal in (0.0, 0.5, 0.8, 1.0):
            s = Schedule(steps, 0.05, warmup=warmup, anneal=anneal, shape=shape)
            fractions = [s.fraction(step) for step in range(steps)]
            assert fractions[-1] == pytest.approx(0.05, abs=1e-12)
            assert all(a >= b for a, b in itertools.pairwise(fractions))
            assert all(0.05 - 1e-12 <= f <= 1 for f in fractions)
            assert all(0 < s.lr_factor(step) <= 1 for step in range(steps))


def test_nothing_is_pruned_during_warm_up():
    s = Schedule(steps=1000, target=0.001, warmup=0.02, anneal=0.5)
    assert all(s.fraction(step) == 1.0 for step in range(20))
    assert s.fraction(20) < 1.0
