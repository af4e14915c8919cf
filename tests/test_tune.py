"""Tuning training: what is tried, what it is worth, what is kept, and what a kill costs."""

from __future__ import annotations

import math

import optuna
import pandas as pd
import pytest
from accelerate import Accelerator

from analysis.load import load
from bridges.config import Config, from_dict
from bridges.data.blocks import TokenBlocks
from bridges.dense import load_dense
from bridges.errors import BridgesError, ConfigError, DivergenceError
from bridges.runs import pipeline
from bridges.runs.initialise import choose_start
from bridges.runs.pipeline import plan_of
from bridges.storage.tables import read_table
from bridges.tuning import training as module
from bridges.tuning.training import BATCH, KEYS, SAMPLING, composed, main, one_trial, places, tried, tune

quiet = {"say": lambda line: None}


@pytest.fixture
def config(workplace) -> Config:
    return from_dict(
        {
            "model": {"name": str(workplace / "dense"), "label": "dense"},
            "data": {"source": "files", "path": str(workplace / "text"), "context": 32},
            "sparse": {"d_model": 16, "d_head": 4},
            "train": {"tokens": 128, "batch": 2, "log_every": 1, "bridge_lr": 1e-3},
            "eval": {"sequences": 2, "ridge_tokens": 256},
            "kernels": "python",
        }
    )


def _started(config: Config):
    """The dense model, the start and the accelerator of a study."""
    dense, _ = load_dense(config.model.name)
    return dense, choose_start(config, dense, config.data.context, None), Accelerator(cpu=True)


@pytest.fixture
def bowl(monkeypatch):
    """The rates tried, with a bowl around a rate of 1e-3 in place of training and measuring."""
    rates: list[float] = []

    def stand_in(base, config):
        rates.append(config.train.lr)
        far = abs(math.log10(config.train.lr) + 3)
        curve = pd.DataFrame({"tokens": [64, 128], "kl": [2 + far, 1 + far]})
        return {"sparse": 1 + far, "d2s": 2 + far, "s2d": 3 + far}, curve

    monkeypatch.setattr(module, "one_trial", stand_in)
    return rates


def test_what_is_tried_first_is_what_is_given_and_the_rest_lies_around(config, bowl):
    frame = tune(config, 12, ["train.lr"], **quiet)
    assert bowl[0] == config.train.lr and len(set(bowl)) == 12
    assert all(config.train.lr / 5 * 0.99 <= rate <= config.train.lr * 5 * 1.01 for rate in bowl)
    assert frame["value"].tolist() == pytest.approx([2 + abs(math.log10(rate) + 3) for rate in bowl])
    assert frame["train.lr"].tolist() == bowl
    # 3e-3 is given; TPE comes nearer to the bottom than its first draws.
    assert min(frame["value"]) < frame["value"][0] and frame["value"][9:].mean() < frame["value"][1:8].mean()


def test_only_what_has_a_value_is_tuned(config):
    config.train.terms.kl_d2s, config.train.terms.kl_s2d = None, 0.0
    assert set(places(optuna, config, KEYS)) == set(KEYS) - {"train.terms.kl_d2s", "train.terms.kl_s2d", SAMPLING}
    config.train.hybrid_sites = "1"
    assert places(optuna, config, [SAMPLING])[SAMPLING].choices == ("uniform", "importance")
    assert places(optuna, config, [BATCH])[BATCH].choices == (1, 2, 4, 8)
    with pytest.raises(ConfigError, match=r"train\.lrr cannot be tuned.*train\.lr"):
        places(optuna, config, ["train.lrr"])
    with pytest.raises(ConfigError, match="None of"):
        places(optuna, config, ["train.terms.kl_d2s"])
    with pytest.raises(ConfigError, match="trials=0"):
        tune(config, 0, **quiet)


def test_a_trial_changes_its_settings_alone(config):
    changed = tried(config, {"train.lr": 0.00123456, "train.terms.kl": 2.0, BATCH: 4})
    assert (changed.train.lr, changed.train.terms.kl, changed.train.batch) == (0.00123, 2.0, 4)
    assert config.train.lr == 3e-3 and config.train.terms.kl == 1.0
    changed.train.lr, changed.train.terms.kl, changed.train.batch = 3e-3, 1.0, 2
    assert changed == config
    with pytest.raises(ConfigError, match="accumulate"):
        tried(config, {BATCH: 3, "train.accumulate": 2})


def test_a_trial_is_worth_what_a_run_measures(config, tmp_path, monkeypatch):
    """Were the validation split the held-out one, the figures would be those of the run's own table."""
    chunks = TokenBlocks.chunks
    shown = lambda self, split, *n: chunks(self, split.replace("validation", "test"), *n)  # noqa: E731
    monkeypatch.setattr(TokenBlocks, "chunks", shown)
    found = tune(config, 1, ["train.lr"], **quiet).iloc[0]
    config.behaviours.suite, config.eval.bootstrap = "none", 20
    pipeline.run(config, tmp_path / "run", Accelerator(cpu=True), lambda text: None)
    paths = read_table(tmp_path / "run", "paths").query("bridges == 'trained'").groupby("kind")["kl"].mean()
    wanted = [paths[kind] for kind in ("pure_sparse", "single_d2s", "single_s2d")]
    assert found[["sparse", "d2s", "s2d"]].tolist() == pytest.approx(wanted) and len(set(wanted)) == 3
    assert found["value"] == pytest.approx(sum(wanted) / 3)


def test_every_trial_begins_where_the_first_did(config, monkeypatch):
    seen = []

    def twice(base, config):
        seen.extend(one_trial(base, config)[0] for _ in range(2))
        return one_trial(base, config)

    monkeypatch.setattr(module, "one_trial", twice)
    frame = tune(config, 1, ["train.lr"], **quiet)
    assert seen[0] == seen[1] == frame[["sparse", "d2s", "s2d"]].iloc[0].to_dict()


def test_what_does_not_fit_into_memory_is_no_end(config, monkeypatch):
    """Only batches of four and more are too much here; the given one of two is not."""
    budget = plan_of(tried(config, {BATCH: 2}), *_started(config)).memory
    monkeypatch.setattr("bridges.training.plan.available_memory", lambda device: budget)
    frame = tune(config, 10, [BATCH], **quiet)
    failed = frame["error"].fillna("").str.startswith("MemoryBudgetError")
    assert failed.any() and failed.tolist() == (frame[BATCH] > 2).tolist()


def test_a_killed_study_goes_on_where_it_was(config, bowl, tmp_path, monkeypatch):
    whole = tune(config, 6, ["train.lr"], **quiet)
    del bowl[:]
    stand_in = module.one_trial

    def dying(base, config):
        if len(bowl) == 3:
            raise KeyboardInterrupt
        return stand_in(base, config)

    monkeypatch.setattr(module, "one_trial", dying)
    with pytest.raises(KeyboardInterrupt):
        tune(config, 6, ["train.lr"], tmp_path, **quiet)
    monkeypatch.setattr(module, "one_trial", stand_in)
    rest = tune(config, 6, ["train.lr"], tmp_path, **quiet)
    assert len(bowl) == 6
    assert rest.drop(columns="seconds").equals(whole.drop(columns="seconds"))
    assert len(pd.read_csv(tmp_path / "trials.csv")) == 6 and (tmp_path / "study.png").stat().st_size > 10_000
    assert pd.read_csv(tmp_path / "curves.csv").groupby("trial").size().tolist() == [2] * 6
    config.train.tokens = 1280
    with pytest.raises(ConfigError, match=r"other train\.tokens"):
        tune(config, 7, ["train.lr"], tmp_path, **quiet)


def test_a_trial_that_diverges_is_no_end(config, bowl, monkeypatch):
    stand_in = module.one_trial

    def diverging(base, config):
        if config.train.lr != 3e-3:
            raise DivergenceError("NaN at step 1")
        return stand_in(base, config)

    monkeypatch.setattr(module, "one_trial", diverging)
    frame = tune(config, 3, ["train.lr"], **quiet)
    assert frame["error"].fillna("").tolist() == ["", *["DivergenceError: NaN at step 1"] * 2]
    assert frame["value"].isna().tolist() == [False, True, True]
    config.train.lr = 1e-3
    with pytest.raises(BridgesError, match=r"None of 2 trials.*NaN at step 1"):
        tune(config, 2, ["train.lr"], **quiet)


def test_the_command(tiny_settings, bowl, tmp_path, capsys):
    arguments = [a for a in tiny_settings if not a.startswith("runs_dir")]
    assert composed(arguments).train.tokens == 640
    options = ["--trials", "2", "--keys", "train.lr"]
    assert main([*arguments, *options, f"runs_dir={tmp_path}", "kernels=python"]) == 0
    out = capsys.readouterr().out
    (folder,) = tmp_path.glob("tune-*")
    best = pd.read_csv(folder / "trials.csv")["value"].min()
    assert f"Best of 2 trials: {best:.4f}" in out and str(folder) in out and "train.lr=" in out
    assert main([*arguments, f"runs_dir={tmp_path}", "train.lrr=1"]) == 1
    assert "train.lr" in capsys.readouterr().err


def test_it_is_no_run(bowl, tmp_path, config):
    """Its folder lies beside the runs, and their analysis passes it over."""
    tune(config, 1, ["train.lr"], tmp_path / "tune-x", **quiet)
    with pytest.raises(BridgesError, match="There are no runs"):
        load(tmp_path)
