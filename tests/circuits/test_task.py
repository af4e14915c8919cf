"""Unexplained variance, faithfulness and calibration, each worked out by hand or with numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bridges.circuits import node_sets
from bridges.circuits.bootstrap import Resampler
from bridges.circuits.faithful import faithfulness_estimates
from bridges.circuits.node_sets import set_logit_diffs
from bridges.circuits.task import (
    Calibration,
    Prompts,
    by_length,
    calibrate,
    logit_diff,
    prompts,
    task_loss,
    unexplained,
)

from .conftest import quote_pairs


@pytest.fixture
def diffs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of a circuit and its model on 20 pairs, and the sign of each prompt's right candidate."""
    g = torch.Generator().manual_seed(0)
    sign = torch.tensor([1.0, -1.0] * 20)
    sign[4:8] *= -1
    model = 3 + torch.randn(40, generator=g)
    return 0.8 * model + 0.3 * torch.randn(40, generator=g), model, sign


def test_unexplained_variance_is_numpys(diffs):
    found, model, sign = (x.double().numpy() for x in diffs)
    by_hand = np.mean((found * sign - model * sign) ** 2) / np.var(model * sign)
    assert float(unexplained(*diffs)) == pytest.approx(by_hand, rel=1e-5)


def test_what_differs_between_the_prompts_of_a_pair_is_what_has_to_be_explained():
    """The variance of logit differences turned to their right answers would be zero in both cases."""
    model, sign = torch.full((8,), 2.0), torch.tensor([1.0, -1.0] * 4)
    assert float(unexplained(model, model, sign)) == 0
    # The mean of either candidate, whatever the prompt: nothing is explained.
    assert float(unexplained(torch.zeros(8), model, sign)) == 1
    # One off by a half of the model's.
    assert float(unexplained(model / 2, model, sign)) == 0.25


@pytest.mark.parametrize("factor", [0.5, 1.5, 2.0, 4.0])
def test_a_multiple_of_the_logit_difference_explains_less(diffs, factor):
    """Two-way cross-entropy would call every larger one better."""
    _, model, sign = diffs
    exact, multiple = unexplained(model, model, sign), unexplained(factor * model, model, sign)
    assert float(exact) == 0 and float(multiple) > 0.1
    if factor > 1:
        assert task_loss(factor * model) < task_loss(model)


def test_estimates_are_the_numbers_that_they_are_called_by(diffs):
    found, model, sign = diffs
    estimates = faithfulness_estimates(found, model, sign, Resampler(20, 300, 0))
    assert estimates["fvu"].value == pytest.approx(float(unexplained(found, model, sign)), rel=1e-5)
    assert estimates["faithfulness"].value == pytest.approx(float(found.mean() / model.mean()), rel=1e-5)
    assert estimates["accuracy"].value == pytest.approx(float((found > 0).float().mean()))
    share = float((found > 0).sum() / (model > 0).sum())
    assert estimates["accuracy_share"].value == pytest.approx(share)
    for name, estimate in estimates.items():
        assert estimate.low <= estimate.value <= estimate.high, name
    assert estimates["fvu"].low < estimates["fvu"].high


def test_a_faithful_interval_is_that_of_resampled_pairs(diffs):
    found, model, sign = diffs
    draws = Resampler(20, 40, 3)
    estimate = faithfulness_estimates(found, model, sign, draws)["fvu"]
    by_hand = []
    for times in draws.counts:
        rows = np.repeat(np.arange(20), times.astype(int))
        at = torch.from_numpy(np.stack([2 * rows, 2 * rows + 1], 1).ravel())
        by_hand.append(float(unexplained(found[at], model[at], sign[at])))
    assert np.allclose([estimate.low, estimate.high], np.percentile(by_hand, [2.5, 97.5]), rtol=1e-4)


def test_a_model_that_gives_one_answer_has_nothing_to_explain():
    constant = torch.tensor([2.0, -2.0] * 4)
    sign = torch.tensor([1.0, -1.0] * 4)
    estimates = faithfulness_estimates(constant, constant, sign, Resampler(4, 20, 0))
    assert np.isnan(estimates["fvu"].value)


def test_calibration_finds_a_planted_shift_and_never_makes_things_worse():
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(400, generator=generator)
    sign = torch.where(torch.rand(400, generator=generator) < 0.5, 1.0, -1.0)
    # Right answers up to a shift of the first candidate, which calibration has to take back.
    diffs = truth.abs() - 3.0 * sign
    found = calibrate(diffs, sign)
    assert found.shift / found.scale == pytest.approx(3.0, abs=0.3)
    assert (found.apply(diffs, sign) > 0).float().mean() > 0.9
    noise = torch.randn(400, generator=generator)
    assert task_loss(calibrate(noise, sign).apply(noise, sign)) <= task_loss(noise) + 1e-6
    assert Calibration().apply(noise, sign).equal(noise)


def test_padding_changes_nothing(quote_model):
    pairs = quote_pairs(6, 0)
    padded = torch.cat([pairs.ids, torch.full((6, 2, 3), 2)], -1)
    longer = type(pairs)(**{**pairs.__dict__, "ids": padded})
    torch.testing.assert_close(logit_diff(quote_model, prompts(pairs)), logit_diff(quote_model, prompts(longer)))


def _of_several_lengths() -> Prompts:
    """Pairs cut off after four to eight tokens."""
    some = prompts(quote_pairs(24, seed=2))
    return replace(some, last=(3 + torch.arange(24) * 7 % 5).repeat_interleave(2))


def test_parts_of_similar_length_hold_every_pair_once():
    some = _of_several_lengths()
    parts = by_length(some, 3)
    assert len(parts) == 3 and sorted(torch.cat(parts).tolist()) == list(range(48))
    assert all(torch.equal(part[1::2], part[::2] + 1) for part in parts)
    widths = [some.take(part).ids.shape[1] for part in parts]
    assert widths == sorted(widths) and widths[0] < widths[-1]
    # Too few for parts of four pairs, and some of the prompts alone.
    assert len(by_length(some, 7)) == 1
    assert sorted(torch.cat(by_length(some, 2, torch.arange(16, 48))).tolist()) == list(range(16, 48))


@pytest.mark.parametrize("by_prompt", [False, True])
def test_node_sets_give_the_same_in_parts_of_similar_length(quote_model, monkeypatch, by_prompt):
    some = _of_several_lengths()
    g = torch.Generator().manual_seed(0)
    sets, fill = {}, {}
    for point, width in quote_model.nodes.widths.items():
        sets[point] = torch.rand(3, width, generator=g) < 0.3
        fill[point] = torch.randn(*(some.ids.shape if by_prompt else ()), width, generator=g)
    found = set_logit_diffs(quote_model, some, sets, fill)
    monkeypatch.setattr(node_sets, "PARTS", 1)
    torch.testing.assert_close(found, set_logit_diffs(quote_model, some, sets, fill))
