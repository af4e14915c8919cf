"""Training: it learns, keeps its promise, goes on bit for bit after any interruption, and fails loudly."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from accelerate import Accelerator

from bridges.config import Config, DataConfig, SparseConfig, TermConfig, TrainConfig
from bridges.errors import CheckpointError, ConfigError, DivergenceError
from bridges.sparse import budget
from bridges.training.loop import Trainer
from bridges.training.plan import time_step
from bridges.training.readings import Readings

CONTEXT = 8


class Stopped(Exception):
    """What an interrupted training ends with here."""


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


@pytest.fixture
def make_trainer(make_pair, tiny_blocks, accelerator, tmp_path) -> Callable[..., Trainer]:
    """``make_trainer(folder, seed, steps, log_row, sparsity, **train settings)``; the weights follow from ``seed``."""

    def make(
        folder: str = "run",
        seed: int = 0,
        steps: int = 6,
        log_row=lambda row, step: None,
        sparsity: float = 0.3,
        train_bigram: bool = True,
        **train,
    ) -> Trainer:
        pair = make_pair(seed)
        settings = {"batch": 4, "lr": 0.01, "precision": "fp32", "log_every": 1, "checkpoint_every": 100} | train
        settings["tokens"] = steps * settings["batch"] * CONTEXT
        config = Config(
            sparsity=sparsity,
            data=DataConfig(context=CONTEXT),
            sparse=SparseConfig(floor=2, train_bigram=train_bigram),
            train=TrainConfig(**settings),
        )
        # The dense stack stays the same one whatever the trained weights start from.
        dense = make_pair(0).dense
        return Trainer(config, dense, pair.sparse, pair.bridges, tiny_blocks(), accelerator, tmp_path / folder, log_row)

    return make


def _weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    states = {"sparse": trainer.sparse.state_dict(), "bridges": trainer.bridges.state_dict()}
    return {f"{part}.{name}": value.clone() for part, state in states.items() for name, value in state.items()}


def _assert_identical(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def _steps(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def _stop_at(wanted: int):
    def log_row(row, step) -> None:
        if step == wanted:
            raise Stopped

    return log_row


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


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"optimizer": "muon", "hybrid_sites": "2", "accumulate": 2, "anneal_shape": "exponential"},
        {"hybrid_sites": "1", "hybrid_sampling": "importance"},
    ],
    ids=["adamw", "muon, sampled sites", "sites by importance"],
)
def test_an_interrupted_training_goes_on_bit_for_bit(make_trainer, settings):
    steps = 5
    whole = make_trainer("whole", steps=steps, **settings)
    rows, _ = whole.fit()
    for every in range(1, steps):
        folder = f"every-{every}"
        first = make_trainer(folder, steps=steps, checkpoint_every=every, log_row=_stop_at(every + 1), **settings)
        with pytest.raises(Stopped):
            first.fit()
        assert _steps(first.checkpoints) == [f"step-{every}"]
        second = make_trainer(folder, seed=9, steps=steps, checkpoint_every=100, **settings)
        assert second.restore() and second.progress.step == every
        resumed, _ = second.fit()
        pd.testing.assert_frame_equal(resumed, rows, check_exact=True)
        _assert_identical(_weights(second), _weights(whole))


def test_a_training_interrupted_again_and_again_goes_on_bit_for_bit(make_trainer):
    whole = make_trainer("whole", steps=6)
    rows, _ = whole.fit()
    for step in range(1, 6):
        trainer = make_trainer("often", seed=step - 1, steps=6, checkpoint_every=1, log_row=_stop_at(step + 1))
        assert trainer.restore() == (step > 1)
        with pytest.raises(Stopped):
            trainer.fit()
    last = make_trainer("often", seed=7, steps=6)
    assert last.restore() and last.progress.step == 5
    before = last.progress.seconds
    assert before > 0
    resumed, timing = last.fit()
    pd.testing.assert_frame_equal(resumed, rows, check_exact=True)
    _assert_identical(_weights(last), _weights(whole))
    assert last.progress.seconds > before
    assert list(timing["step"]) == [1, 2, 3, 4, 5, 6] and timing["seconds"].is_monotonic_increasing


def test_a_finished_training_has_nothing_left_to_do(make_trainer):
    first = make_trainer(steps=3)
    rows, _ = first.fit()
    assert _steps(first.checkpoints) == ["step-3"]
    second = make_trainer(seed=4, steps=3)
    assert second.restore()
    again, _ = second.fit()
    pd.testing.assert_frame_equal(again, rows, check_exact=True)
    _assert_identical(_weights(second), _weights(first))


def test_the_first_checkpoint_is_absent(make_trainer):
    trainer = make_trainer()
    before = _weights(trainer)
    assert trainer.restore() is False
    assert trainer.progress.step == 0
    _assert_identical(_weights(trainer), before)


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
        assert trainer._rescale_gradients() == pytest.approx(before, rel=1e-5)
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
        _assert_identical(dense, trainer.dense.state_dict())


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
    _assert_identical(_weights(timed), _weights(plain))


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
    assert _steps(trainer.checkpoints) == ["step-3"]
    again = make_trainer(seed=5, steps=8)
    assert again.restore() and again.progress.step == 3
    assert all(torch.isfinite(w).all() for w in _weights(again).values())


def test_divergence_in_a_gradient_alone_and_before_any_checkpoint(make_trainer, monkeypatch):
    trainer = make_trainer()
    plain = trainer.gradients

    def gradients(step):
        values = plain(step)
        trainer.parameters[0].grad[0, 0] = float("nan")
        return values

    monkeypatch.setattr(trainer, "gradients", gradients)
    before = _weights(trainer)
    with pytest.raises(DivergenceError, match=r"step 1 of 6, first in the gradients\. No checkpoint"):
        trainer.fit()
    _assert_identical(_weights(trainer), before)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE = {
    "sparse cut": lambda f: _cut(f / "sparse.safetensors"),
    "bridges cut": lambda f: _cut(f / "bridges.safetensors"),
    "optimizer cut": lambda f: _cut(f / "optimizer.pt"),
    "table cut": lambda f: _cut(f / "training.parquet"),
    "file empty": lambda f: (f / "optimizer.pt").write_bytes(b""),
    "file missing": lambda f: (f / "bridges.safetensors").unlink(),
    "folder empty": lambda f: [path.unlink() for path in f.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=list(DAMAGE))
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(make_trainer, damage, caplog):
    whole = make_trainer(steps=5, checkpoint_every=2)
    rows, _ = whole.fit()
    assert _steps(whole.checkpoints) == ["step-4", "step-5"]
    damage(whole.checkpoints / "step-5")
    trainer = make_trainer(seed=3, steps=5)
    assert trainer.restore() and trainer.progress.step == 4
    assert "step-5 cannot be read" in caplog.text
    resumed, _ = trainer.fit()
    pd.testing.assert_frame_equal(resumed, rows, check_exact=True)
    _assert_identical(_weights(trainer), _weights(whole))
    healed = make_trainer(seed=8, steps=5)
    assert healed.restore() and healed.progress.step == 5


def test_nothing_but_damaged_checkpoints_is_an_error_that_leaves_the_weights(make_trainer):
    whole = make_trainer(steps=4, checkpoint_every=2)
    whole.fit()
    _cut(whole.checkpoints / "step-2" / "sparse.safetensors")
    _cut(whole.checkpoints / "step-4" / "optimizer.pt")
    trainer = make_trainer(seed=3, steps=4)
    before = _weights(trainer)
    with pytest.raises(CheckpointError, match=r"step-4: .*step-2: .*Remove that folder"):
        trainer.restore()
    _assert_identical(_weights(trainer), before)


def test_a_half_written_checkpoint_is_ignored_and_replaced(make_trainer):
    first = make_trainer(steps=6, checkpoint_every=2, log_row=_stop_at(3))
    with pytest.raises(Stopped):
        first.fit()
    half = first.checkpoints / ".step-4.tmp"
    shutil.copytree(first.checkpoints / "step-2", half)
    (half / "optimizer.pt").unlink()
    (half / "left over").touch()
    second = make_trainer(seed=3, steps=6, checkpoint_every=2)
    assert second.restore() and second.progress.step == 2
    second.fit()
    assert _steps(second.checkpoints) == ["step-4", "step-6"]
    assert not (second.checkpoints / "step-4" / "left over").exists()


def test_a_checkpoint_of_other_settings_is_an_error(make_trainer, make_pair):
    make_trainer(steps=2).fit()
    other = make_trainer(steps=2)
    other.sparse = make_pair(0, d_mlp=20).sparse
    with pytest.raises(CheckpointError, match=r"other shapes.*sparse\.init.*size mismatch"):
        other.restore()


@pytest.mark.parametrize(("keep", "left"), [(1, ["step-12"]), (3, ["step-10", "step-11", "step-12"])])
def test_as_many_checkpoints_stay_as_asked_for(make_trainer, keep, left):
    terms = TermConfig(kl_d2s=None, kl_s2d=None)
    trainer = make_trainer(steps=12, checkpoint_every=1, keep_checkpoints=keep, terms=terms)
    trainer.fit()
    assert _steps(trainer.checkpoints) == left


def test_readings_are_means_over_steps_and_bridges():
    readings = Readings(bridges=4)
    readings.add({"total": 9.0, "kl": 1.0, "kl_d2s": 2.0, "kl_s2d": 8.0})
    assert readings.text() == "kl 1.00 d→s 0.50 s→d 2.00"
    for _ in range(200):
        readings.add({"total": 9.0, "kl": 3.0, "kl_d2s": 4.0, "kl_s2d": 6.0})
    assert readings.text() == "kl 3.00 d→s 1.00 s→d 1.50"
    # A single step moves a reading by no more than its share.
    readings.add({"total": 9.0, "kl": 13.0, "kl_d2s": 4.0, "kl_s2d": 6.0})
    assert readings.text().startswith("kl 4.00 ")


def test_readings_show_what_is_computed():
    readings = Readings(bridges=2)
    assert readings.text() == ""
    readings.add({"total": 2.5, "ce": 2.5})
    assert readings.text() == "loss 2.500"
    readings.add({"total": 2.5, "kl_s2d": 3.0})
    assert readings.text() == "s→d 1.50"


@pytest.mark.parametrize("hybrid_sites", ["all", "1"])
def test_the_progress_bar_shows_kls_and_costs_no_pass(make_trainer, capsys, monkeypatch, hybrid_sites):
    trainer = make_trainer(steps=3, hybrid_sites=hybrid_sites)
    calls = []
    real = type(trainer.dense).run
    monkeypatch.setattr(type(trainer.dense), "run", lambda self, *a, **k: calls.append(1) or real(self, *a, **k))
    rows, _ = trainer.fit()
    assert len(calls) == 3  # one of the dense model a step, as the objective asks
    last = capsys.readouterr().err.rsplit("training:", 1)[1]
    found = re.search(r"kl (\d+\.\d\d) d→s (\d+\.\d\d) s→d (\d+\.\d\d), [\d,]+ tokens/s", last)
    assert found, last
    decay = pd.Series([0.81, 0.9, 1.0])
    for shown, term, count in zip(
        found.groups(), ("kl", "kl_d2s", "kl_s2d"), (1, *[len(trainer.bridges)] * 2), strict=True
    ):
        assert float(shown) == pytest.approx((rows[term] * decay).sum() / decay.sum() / count, abs=0.006)
