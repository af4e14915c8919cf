"""Checkpoints: training goes on bit for bit after any interruption, and from the newest one that is whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from bridges.config import TermConfig
from bridges.errors import CheckpointError

from .conftest import Stopped, assert_identical, steps_in, stop_at, weights


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
        first = make_trainer(folder, steps=steps, checkpoint_every=every, log_row=stop_at(every + 1), **settings)
        with pytest.raises(Stopped):
            first.fit()
        assert steps_in(first.checkpoints) == [f"step-{every}"]
        second = make_trainer(folder, seed=9, steps=steps, checkpoint_every=100, **settings)
        assert second.restore() and second.progress.step == every
        resumed, _ = second.fit()
        pd.testing.assert_frame_equal(resumed, rows, check_exact=True)
        assert_identical(weights(second), weights(whole))


def test_a_training_interrupted_again_and_again_goes_on_bit_for_bit(make_trainer):
    whole = make_trainer("whole", steps=6)
    rows, _ = whole.fit()
    for step in range(1, 6):
        trainer = make_trainer("often", seed=step - 1, steps=6, checkpoint_every=1, log_row=stop_at(step + 1))
        assert trainer.restore() == (step > 1)
        with pytest.raises(Stopped):
            trainer.fit()
    last = make_trainer("often", seed=7, steps=6)
    assert last.restore() and last.progress.step == 5
    before = last.progress.seconds
    assert before > 0
    resumed, timing = last.fit()
    pd.testing.assert_frame_equal(resumed, rows, check_exact=True)
    assert_identical(weights(last), weights(whole))
    assert last.progress.seconds > before
    assert list(timing["step"]) == [1, 2, 3, 4, 5, 6] and timing["seconds"].is_monotonic_increasing


def test_a_finished_training_has_nothing_left_to_do(make_trainer):
    first = make_trainer(steps=3)
    rows, _ = first.fit()
    assert steps_in(first.checkpoints) == ["step-3"]
    second = make_trainer(seed=4, steps=3)
    assert second.restore()
    again, _ = second.fit()
    pd.testing.assert_frame_equal(again, rows, check_exact=True)
    assert_identical(weights(second), weights(first))


def test_the_first_checkpoint_is_absent(make_trainer):
    trainer = make_trainer()
    before = weights(trainer)
    assert trainer.restore() is False
    assert trainer.progress.step == 0
    assert_identical(weights(trainer), before)


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
    assert steps_in(whole.checkpoints) == ["step-4", "step-5"]
    damage(whole.checkpoints / "step-5")
    trainer = make_trainer(seed=3, steps=5)
    assert trainer.restore() and trainer.progress.step == 4
    assert "step-5 cannot be read" in caplog.text
    resumed, _ = trainer.fit()
    pd.testing.assert_frame_equal(resumed, rows, check_exact=True)
    assert_identical(weights(trainer), weights(whole))
    healed = make_trainer(seed=8, steps=5)
    assert healed.restore() and healed.progress.step == 5


def test_nothing_but_damaged_checkpoints_is_an_error_that_leaves_the_weights(make_trainer):
    whole = make_trainer(steps=4, checkpoint_every=2)
    whole.fit()
    _cut(whole.checkpoints / "step-2" / "sparse.safetensors")
    _cut(whole.checkpoints / "step-4" / "optimizer.pt")
    trainer = make_trainer(seed=3, steps=4)
    before = weights(trainer)
    with pytest.raises(CheckpointError, match=r"step-4: .*step-2: .*Remove that folder"):
        trainer.restore()
    assert_identical(weights(trainer), before)


def test_a_half_written_checkpoint_is_ignored_and_replaced(make_trainer):
    first = make_trainer(steps=6, checkpoint_every=2, log_row=stop_at(3))
    with pytest.raises(Stopped):
        first.fit()
    half = first.checkpoints / ".step-4.tmp"
    shutil.copytree(first.checkpoints / "step-2", half)
    (half / "optimizer.pt").unlink()
    (half / "left over").touch()
    second = make_trainer(seed=3, steps=6, checkpoint_every=2)
    assert second.restore() and second.progress.step == 2
    second.fit()
    assert steps_in(second.checkpoints) == ["step-4", "step-6"]
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
    assert steps_in(trainer.checkpoints) == left
