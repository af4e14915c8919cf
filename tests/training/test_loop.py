"""Training: it learns, keeps its promise, and fails loudly."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from bridges.config import TermConfig
from bridges.errors import ConfigError, DivergenceError
from bridges.sparse import budget
from bridges.training.optimizers import OptimizerSet
from bridges.training.timing import time_step

from .conftest import assert_identical, steps_in, weights


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_loss_falls(make_trainer, optimizer):
    trainer = make_trainer(steps=30, sparsity=0.5, optimizer=optimizer)
    rows, timing = trainer.fit()
    assert list(rows["step"]) == list(timing["step"]) == list(range(1, 31))
    for term in ("total", "ce", "kl", "nmse_encoder", "kl_d2s", "kl_s2d"):
        assert rows[term].tail(5).mean() < 0.9 * rows[term].head(3).mean(), term


def test_rows_say_what_was_done(make_trainer):
    logged = []
    trainer = make_trainer(
        steps=7,
        log_every=3,
        log_row=lambda row, step: logged.append((step, row)),
        sharkfin=False,
        warmup=0.3,
        terms=TermConfig(ce=0.5, kl=None, nmse_encoder=0.0),
    )
    rows, timing = trainer.fit()
    assert list(rows["step"]) == [3, 6, 7] == [step for step, _ in logged]
    assert list(rows["tokens"]) == [3 * 32, 6 * 32, 7 * 32]
    assert "kl" not in rows and {"ce", "nmse_encoder", "nmse_decoder", "kl_d2s", "kl_s2d"} <= set(rows)
    weighted = rows[[c for c in rows if c.endswith("_weighted")]].sum(axis=1)
    assert list(weighted) == pytest.approx(list(rows["total"]), rel=1e-5)
    assert list(rows["ce_weighted"]) == pytest.approx(list(0.5 * rows["ce"]), rel=1e-6)
    assert list(rows["nmse_encoder_weighted"]) == [0, 0, 0]
    assert list(rows["lr"]) == pytest.approx([0.01, 0.01 * 2 / 5, 0.01 * 1 / 5])
    assert rows["l0_target"].iloc[-1] == pytest.approx(0.3)
    assert rows["l0_actual"].iloc[-1] == pytest.approx(0.3, abs=0.005)
    assert (rows["grad_rms"] > 0).all() and (rows["dead_neurons"] == 0).all()
    assert (timing["tokens_per_second"] > 0).all() and timing["seconds"].is_monotonic_increasing


@pytest.mark.parametrize("sparsity", [0.3, 0.011])
def test_final_matrices_are_inside_their_budgets(make_trainer, sparsity):
    trainer = make_trainer(steps=5, sparsity=sparsity)
    rows, _ = trainer.fit()
    for name, p in trainer.sparse.sparse_matrices().items():
        assert 0 < int(p.count_nonzero()) <= budget(p.numel(), sparsity), name
    nonzeros = sum(int(p.count_nonzero()) for p in trainer.sparse.sparse_matrices().values())
    numel = sum(p.numel() for p in trainer.sparse.sparse_matrices().values())
    assert rows["l0_actual"].iloc[-1] == nonzeros / numel


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulated_gradients_are_those_of_the_whole_batch(make_trainer, accumulate):
    whole, split = make_trainer(), make_trainer(accumulate=accumulate)
    assert [len(ids) for ids in split.micro_batches(0)] == [4 // accumulate] * accumulate
    a, b = whole.gradients(2), split.gradients(2)
    assert (
        a.keys() == b.keys() >= {"ce", "kl", "nmse_encoder", "nmse_decoder", "kl_d2s", "kl_s2d", "total", "kl_weighted"}
    )
    for name in a:
        torch.testing.assert_close(b[name], a[name], msg=name)
    for p, q in zip(whole.parameters, split.parameters, strict=True):
        torch.testing.assert_close(q.grad, p.grad, rtol=1e-4, atol=1e-6)


def test_accumulated_training_reports_the_same_rows_to_rounding(make_trainer):
    # ε = 0.1 keeps AdamW from turning rounding into whole steps.
    settings = {"eps": 0.1, "steps": 4, "sparsity": 1.0}
    a, _ = make_trainer("a", **settings).fit()
    b, _ = make_trainer("b", accumulate=2, **settings).fit()
    for name in ("ce", "kl", "nmse_encoder", "nmse_decoder", "kl_d2s", "kl_s2d", "total", "grad_rms"):
        assert list(b[name]) == pytest.approx(list(a[name]), rel=1e-4), name


def test_a_batch_that_cannot_be_split_is_refused(make_trainer):
    with pytest.raises(ConfigError, match=r"train\.batch=4 must be a multiple of"):
        make_trainer(accumulate=3)


def test_the_gradients_rms_is_clipped_or_normalised(make_trainer):
    for rule, limit in (("clip", 1e-3), ("clip", 1e3), ("normalise", 0.5)):
        trainer = make_trainer(gradient_rms=rule, max_grad_rms=limit)
        trainer.gradients(0)
        flat = torch.cat([p.grad.flatten() for p in trainer.parameters if p.grad is not None])
        before = float(flat.square().mean().sqrt())
        assert trainer.rescale_gradients() == pytest.approx(before, rel=1e-5)
        flat = torch.cat([p.grad.flatten() for p in trainer.parameters if p.grad is not None])
        after = float(flat.square().mean().sqrt())
        assert after == pytest.approx(limit if rule == "normalise" else min(limit, before), rel=1e-4)


def test_sampled_sites_follow_from_seed_and_step(make_trainer):
    trainer, other = make_trainer(hybrid_sites="2"), make_trainer(seed=1, hybrid_sites="2")
    drawn = [[c.bridges for c in trainer.sampler(step)] for step in range(200)]
    assert drawn[::-1] == [[c.bridges for c in other.sampler(step)] for step in reversed(range(200))]
    for direction in (0, 1):
        samples = [sites[direction] for sites in drawn]
        assert all(len(set(s)) == 2 and list(s) == sorted(s) and set(s) <= set(range(5)) for s in samples)
        counts = [sum(i in s for s in samples) for i in range(5)]
        assert all(50 < c < 110 for c in counts), counts
    assert any(first != second for first, second in drawn)
    for all_of_them in ("all", "5", "99"):
        drawn = make_trainer(hybrid_sites=all_of_them).sampler(3)
        assert [(c.bridges, c.weights) for c in drawn] == [((0, 1, 2, 3, 4), (1.0,) * 5)] * 2


def test_a_frozen_bigram_and_the_dense_model_stay_as_they_are(make_trainer):
    for train_bigram in (False, True):
        trainer = make_trainer(str(train_bigram), steps=2, train_bigram=train_bigram)
        table = trainer.sparse.bigram.weight.clone()
        dense = {name: value.clone() for name, value in trainer.dense.state_dict().items()}
        trainer.fit()
        assert torch.equal(table, trainer.sparse.bigram.weight) != train_bigram
        assert_identical(dense, trainer.dense.state_dict())


def test_each_kind_of_parameter_has_its_own_rate(make_trainer):
    trainer = make_trainer(optimizer="muon", lr=0.1, muon_lr=0.2, bridge_lr=0.3, weight_decay=0.05)
    found = {}
    for group in trainer.optimizer.groups:
        for p in group["params"]:
            found[id(p)] = (group["peak_lr"], group["boosted"], group["weight_decay"])
    for name, p in trainer.sparse.named_parameters():
        covered = name in trainer.sparse.sparse_matrices()
        rate = 0.2 if covered and name.startswith("blocks.") else 0.1
        assert found[id(p)] == (rate, covered, 0.05 if p.ndim == 2 else 0.0), name
    for name, p in trainer.bridges.named_parameters():
        assert found[id(p)] == (0.3, False, 0.05 if p.ndim == 2 else 0.0), name
    assert len(found) == len(trainer.parameters)


@pytest.mark.parametrize("sharkfin", [True, False])
def test_sparse_matrices_are_stepped_faster_the_fewer_weights_are_left(make_trainer, sharkfin):
    """By one over the root of that fraction; what stays dense keeps its rate."""
    trainer = make_trainer(steps=8, sparsity=0.04, warmup=0.2, sharkfin=sharkfin)
    boosts = []
    for step in range(8):
        trainer.step()
        factor = trainer.schedule.lr_factor(step)
        boost = trainer.schedule.fraction(step) ** -0.5 if sharkfin else 1.0
        for group in trainer.optimizer.groups:
            assert group["lr"] == pytest.approx(group["peak_lr"] * factor * (boost if group["boosted"] else 1.0))
        boosts.append(boost)
    assert {group["boosted"] for group in trainer.optimizer.groups} == {True, False}
    assert boosts[0] == pytest.approx(1) if not sharkfin else boosts[-1] == pytest.approx(5)


def test_bridges_follow_the_sparse_streams_size_at_every_step(make_trainer):
    """Their scales are buffers that no gradient reaches."""
    trainer = make_trainer(steps=3)
    for _ in range(3):
        before = [float(bridge.sparse_scale) for bridge in trainer.bridges]
        trainer.step()
        sizes = trainer.sizes.tolist()
        wanted = [b + 0.05 * (size - b) for b, size in zip(before, sizes, strict=True)]
        assert [float(bridge.sparse_scale) for bridge in trainer.bridges] == pytest.approx(wanted, rel=1e-5)
        assert any(abs(w - b) > 1e-3 for w, b in zip(wanted, before, strict=True))
    # What they follow is how large the stream is.
    ids = trainer.data.take("train", 4)
    for pair, size in zip(trainer.bridges.pairs, sizes, strict=True):
        stream = trainer.sparse.run(torch.as_tensor(ids).long()).sites[pair.sparse]
        assert size == pytest.approx(float(stream.square().mean(-1).sqrt().mean()), rel=0.5)


def test_timing_a_step_leaves_nothing_behind(make_trainer):
    timed, plain = make_trainer("timed", steps=3), make_trainer("plain", steps=3)
    assert time_step(timed) > 0
    assert all(p.grad is None for p in timed.parameters)
    timed.fit()
    plain.fit()
    assert_identical(weights(timed), weights(plain))


def test_crossings_begin_when_they_are_asked_for(make_trainer, monkeypatch):
    late, never = make_trainer("late", steps=6, hybrid_from=0.5), make_trainer("never", steps=6, hybrid_from=1.0)
    seen: list[int] = []
    run = late.dense.run_from

    def counted(*args, **kwargs):
        seen.append(late.progress.step)
        return run(*args, **kwargs)

    monkeypatch.setattr(late.dense, "run_from", counted)
    rows, _ = late.fit()
    # Before, neither direction is computed or logged, and the sum is that of the other terms.
    crossed = rows[["kl_d2s", "kl_s2d"]]
    assert crossed[:3].isna().all(axis=None) and (crossed[3:] > 0).all(axis=None)
    weighted = rows[[c for c in rows if c.endswith("_weighted")]].sum(axis=1)
    assert list(weighted) == pytest.approx(list(rows["total"]), rel=1e-5)
    # The dense model's own pass alone, then the one that goes on from the bridges too.
    assert [seen.count(step) for step in range(6)] == [1, 1, 1, 2, 2, 2]
    assert not {"kl_d2s", "kl_s2d"} & set(never.fit()[0])


def test_the_time_of_a_step_counts_those_with_crossings_and_those_without(make_trainer, monkeypatch):
    trainer = make_trainer("late", steps=8, hybrid_from=0.75)
    clock = [0.0]
    monkeypatch.setattr("bridges.training.timing.time.perf_counter", lambda: clock[0])

    def gradients(step: int) -> None:
        clock[0] += 1.0 if step < 6 else 9.0
        for p in trainer.parameters:
            p.grad = torch.ones_like(p)

    monkeypatch.setattr(trainer, "gradients", gradients)
    assert time_step(trainer) == pytest.approx((6 * 1 + 2 * 9) / 8)
    trainer.progress.step = 7
    assert time_step(trainer) == pytest.approx(9)


def test_the_time_of_a_step_counts_the_update_and_the_projection(make_trainer, monkeypatch):
    trainer = make_trainer("late", steps=8, train_bigram=False)
    clock = [0.0]
    monkeypatch.setattr("bridges.training.timing.time.perf_counter", lambda: clock[0])

    def costs(target, name: str, seconds: float) -> None:
        run = getattr(target, name)

        def costly(*args):
            clock[0] += seconds
            return run(*args)

        monkeypatch.setattr(target, name, costly)

    for target, name, seconds in (
        (trainer, "gradients", 1.0),
        (trainer.projector, "project", 0.5),
        (trainer, "rescale_gradients", 0.25),
        (OptimizerSet, "step", 0.125),
    ):
        costs(target, name, seconds)
    assert time_step(trainer) == pytest.approx(1.875)
    # Where a second optimizer does not fit into memory, passes alone are timed.
    monkeypatch.setattr("bridges.training.timing.available_memory", lambda device: 1000)
    assert time_step(trainer) == pytest.approx(1)


def test_trial_steps_have_as_few_weights_as_there_will_be(make_trainer, monkeypatch):
    trainer = make_trainer(steps=400, sparsity=0.02, hybrid_from=0.5, anneal=1.0, anneal_shape="linear")
    before, seen = weights(trainer), []
    run = trainer.gradients

    def watched(step: int):
        kept = trainer.projector.nonzeros()
        share = sum(kept.values()) / sum(p.numel() for p in trainer.projector.matrices.values())
        seen.append((step, share))
        return run(step)

    monkeypatch.setattr(trainer, "gradients", watched)
    time_step(trainer)
    # Three in each half, the first one twice; each within its third.
    steps = [step for step, _ in seen]
    assert len(steps) == 8 and steps[0] == steps[1] and steps[4] == steps[5]
    edges = [0, 66, 133, 200, 266, 333, 400]
    assert [sum(a <= step < b for step in set(steps)) for a, b in pairwise(edges)] == [1] * 6
    for step, share in seen:
        assert share == pytest.approx(trainer.schedule.fraction(step), abs=0.02)
    assert_identical(weights(trainer), before)


# --- what can go wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_divergence_names_the_step_and_keeps_the_last_checkpoint(make_trainer, value):
    def poison(row, step) -> None:
        if step == 4:
            with torch.no_grad():
                trainer.sparse.head.weight[0, 0] = value

    trainer = make_trainer(steps=8, checkpoint_every=3, log_row=poison)
    with pytest.raises(DivergenceError, match=r"step 5 of 8.*ce.*last good state is .*step-3\b.*train\.lr"):
        trainer.fit()
    assert steps_in(trainer.checkpoints) == ["step-3"]
    again = make_trainer(seed=5, steps=8)
    assert again.restore() and again.progress.step == 3
    assert all(torch.isfinite(w).all() for w in weights(again).values())


def test_divergence_in_a_gradient_alone_and_before_any_checkpoint(make_trainer, monkeypatch):
    trainer = make_trainer()
    plain = trainer.gradients

    def gradients(step):
        values = plain(step)
        trainer.parameters[0].grad[0, 0] = float("nan")
        return values

    monkeypatch.setattr(trainer, "gradients", gradients)
    before = weights(trainer)
    with pytest.raises(DivergenceError, match=r"step 1 of 6, first in the gradients\. No checkpoint"):
        trainer.fit()
    assert_identical(weights(trainer), before)
