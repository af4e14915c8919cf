"""Resampling of frames and pairs, intervals and p-values, each against a value worked out another way."""

from __future__ import annotations

import numpy as np
import pytest

from bridges.circuits.bootstrap import Resampler, estimate, holm, p_above_zero, share_of
from bridges.fidelity.hybrids import bootstrap_interval


def draws_of(n: int, resamples: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, n, (resamples, n))


def test_ratio_and_its_interval_are_those_of_the_resampled_units():
    above, below = np.random.default_rng(0).normal(size=20), np.random.default_rng(1).uniform(1, 2, 20)
    r = Resampler(20, 100, 3)
    values, at = r.ratio(above, below), draws_of(20, 100, 3)
    assert np.allclose(values[0], above.sum() / below.sum())
    assert np.allclose(values[1:], above[at].sum(1) / below[at].sum(1))
    # A mean is a ratio, and its interval that of the project's other tables.
    found = estimate(r.ratio(above, np.ones(20)))
    assert np.allclose([found.value, found.low, found.high], bootstrap_interval(above, 100, 3))


def test_correlation_is_numpys_in_the_data_and_in_every_draw():
    x = np.random.default_rng(0).normal(size=(15, 3)) + 1e4
    y = 0.5 * x + np.random.default_rng(1).normal(size=(15, 3))
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


def test_holm_steps_down():
    # Worked out by hand: sorted .005 .01 .03 .04 times 4 3 2 1, made rising.
    assert np.allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    with_gap = holm(np.array([0.04, np.nan, 0.9]))
    assert np.allclose(with_gap[[0, 2]], [0.08, 0.9]) and np.isnan(with_gap[1])


def test_a_share_of_few_draws_may_be_larger_with_more():
    # Clopper and Pearson, from their table: of 50 draws 45, 97.5 % from above.
    assert share_of(45, 50).high == pytest.approx(0.9667, abs=1e-3) and share_of(45, 50).low == 0.9
    assert (share_of(50, 50).value, share_of(50, 50).high) == (1.0, 1.0)
    assert share_of(0, 50).high == pytest.approx(1 - 0.025 ** (1 / 50), abs=1e-9)


# --- frames -------------------------------------------------------------------------------------------------------


def width(values: np.ndarray, groups: tuple[str, ...]) -> float:
    found = estimate(Resampler(len(values), 600, 0, groups).ratio(values, np.ones(len(values))))
    return found.high - found.low


def test_pairs_of_a_frame_that_are_alike_count_once():
    """Eight frames of eight pairs: where the pairs of a frame say the same there are eight values, not 64."""
    frames = tuple(f"frame {i // 8}" for i in range(64))
    rng = np.random.default_rng(0)
    alike, each = np.repeat(rng.normal(size=8), 8), rng.normal(size=64)
    assert width(alike, frames) > 2 * width(alike, ())
    # The interval of a mean of eight.
    assert width(alike, frames) == pytest.approx(2 * 1.96 * alike.std() / np.sqrt(8), rel=0.15)
    # Where they do not, it is at most a little wider than of 64 pairs.
    assert width(each, frames) < 1.6 * width(each, ())


def test_every_draw_holds_as_many_frames_and_the_pairs_of_a_drawn_frame():
    groups = ("a",) * 3 + ("b",) * 5
    counts = Resampler(8, 200, 1, groups).counts
    of_a = counts[:, :3].sum(1)
    assert set(of_a) == {0, 3, 6} and (counts[:, 3:].sum(1) == (2 - of_a / 3) * 5).all()
    # A single frame says nothing of other frames: its pairs are drawn as they are.
    assert np.array_equal(Resampler(8, 50, 1, ("a",) * 8).counts, Resampler(8, 50, 1).counts)
