"""What a run's folder says after an error, wherever it happened; a run in this process, stage by stage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from accelerate import Accelerator

from bridges import kernels
from bridges.config import Config, from_dict
from bridges.errors import BridgesError, CheckpointError, ConfigError, DataError, DivergenceError, ModelError
from bridges.runs import pipeline, stages
from bridges.storage.folder import RunFolder


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


def settings(workplace: Path, **sections) -> Config:
    values = {
        "model": {"name": str(workplace / "dense"), "label": "dense"},
        "data": {"source": "files", "path": str(workplace / "text"), "context": 32},
        "sparse": {"d_model": 16, "d_head": 4},
        "train": {"tokens": 128, "batch": 2, "log_every": 1},
        "eval": {"sequences": 4, "bootstrap": 20, "ridge_tokens": 256},
        "behaviours": {"suite": "none"},
        "kernels": "python",
    }
    for name, section in sections.items():
        values[name] = values.get(name, {}) | section if isinstance(section, dict) else section
    return from_dict(values)


@pytest.fixture(scope="module")
def finished(workplace: Path, accelerator: Accelerator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pipeline") / "whole"
    pipeline.run(settings(workplace), path, accelerator, lambda text: None)
    assert RunFolder(path).status["status"] == "finished"
    return path


def _fails(config: Config, path: Path, accelerator: Accelerator, error: type[BaseException], message: str) -> None:
    with pytest.raises(error, match=message):
        pipeline.run(config, path, accelerator, lambda text: None)
    status = RunFolder(path).status
    assert status["status"] == "failed"
    assert error.__name__ in status["message"] and message in status["message"]


def _leaves_nothing(
    config: Config, path: Path, accelerator: Accelerator, error: type[BaseException], message: str
) -> None:
    """Nothing was computed: there is no folder, and in one that was there before only what was in it."""
    with pytest.raises(error, match=message):
        pipeline.run(config, path, accelerator, lambda text: None)
    assert not path.exists()
    path.mkdir()
    (path / "notes.txt").write_text("mine")
    with pytest.raises(error, match=message):
        pipeline.run(config, path, accelerator, lambda text: None)
    assert [p.name for p in path.iterdir()] == ["notes.txt"]


@pytest.fixture(autouse=True)
def python_kernels(monkeypatch):
    monkeypatch.setattr(kernels, "_chosen", "python")


def test_before_the_first_stage(workplace, accelerator, tmp_path, monkeypatch):
    def unavailable():
        raise kernels.KernelsUnavailable("no compiler here")

    monkeypatch.setattr(kernels, "library", unavailable)
    _leaves_nothing(settings(workplace, kernels="cpp"), tmp_path / "run", accelerator, BridgesError, "no compiler here")


def test_while_tracking_is_opened(workplace, accelerator, tmp_path, monkeypatch):
    def refused(**options):
        raise ConfigError("no such project")

    monkeypatch.setattr(pipeline, "open_tracker", refused)
    _leaves_nothing(settings(workplace), tmp_path / "run", accelerator, ConfigError, "no such project")


def test_in_preparation(workplace, accelerator, tmp_path):
    missing = settings(workplace, model={"name": "/nowhere/dense"})
    _leaves_nothing(missing, tmp_path / "model", accelerator, ModelError, "/nowhere/dense")
    longer = settings(workplace, data={"context": 64})
    _leaves_nothing(longer, tmp_path / "context", accelerator, ConfigError, "data.context=64")
    odd = settings(workplace, train={"batch": 2, "accumulate": 2}, data={"path": "/nowhere/text"})
    _leaves_nothing(odd, tmp_path / "data", accelerator, DataError, "/nowhere/text")


def test_in_preparation_of_a_run_that_is_gone_on_with(workplace, accelerator, finished, tmp_path):
    """What was computed stays, and so does the record of the failure."""
    path = shutil.copytree(finished, tmp_path / "run")
    folder = RunFolder(path)
    folder.write_status("running", stages={k: v for k, v in folder.status["stages"].items() if k != "evaluate"})
    values = yaml.safe_load((path / "config.yaml").read_text())
    values["model"]["name"] = "/nowhere/dense"
    (path / "config.yaml").write_text(yaml.safe_dump(values))
    _fails(folder.config, path, accelerator, ModelError, "/nowhere/dense")
    assert folder.status["stages"]["prepare"]["status"] == "failed"
    assert (path / "tables" / "training.parquet").exists() and (path / "model").is_dir()


def test_in_training(workplace, accelerator, tmp_path):
    steep = settings(workplace, train={"lr": 1e30})
    _fails(steep, tmp_path / "run", accelerator, DivergenceError, "NaN or infinity")
    assert RunFolder(tmp_path / "run").status["stages"]["train"]["status"] == "failed"


def test_between_two_stages(workplace, accelerator, finished, tmp_path):
    """The trained model has gone, and what comes next needs it."""
    path = shutil.copytree(finished, tmp_path / "run")
    folder = RunFolder(path)
    folder.write_status("running", stages={k: v for k, v in folder.status["stages"].items() if k != "evaluate"})
    shutil.rmtree(path / "model")
    _fails(settings(workplace), path, accelerator, CheckpointError, "cannot be read")


@pytest.mark.parametrize("where", ["measure_paths", "headline"])
def test_in_evaluation_and_after_it(workplace, accelerator, finished, tmp_path, monkeypatch, where):
    path = shutil.copytree(finished, tmp_path / "run")
    folder = RunFolder(path)
    folder.write_status("running", stages={k: v for k, v in folder.status["stages"].items() if k != "evaluate"})

    def broken(*args, **options):
        raise ZeroDivisionError("while measuring")

    with monkeypatch.context() as patch:
        patch.setattr(stages if where == "measure_paths" else pipeline, where, broken)
        _fails(settings(workplace), path, accelerator, ZeroDivisionError, "while measuring")
    pipeline.run(settings(workplace), path, accelerator, lambda text: None)
    assert RunFolder(path).status["status"] == "finished" and RunFolder(path).status["message"] is None
