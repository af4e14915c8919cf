"""The world changes between a run's beginning and its end: whoever goes on is told, and must say so to go on."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

import bridges
from bridges import kernels
from bridges.config import BehavioursConfig, Config, from_dict
from bridges.errors import CheckpointError
from bridges.runs import pipeline
from bridges.runs.inputs import behaviour_inputs, check_inputs, other_versions
from bridges.storage.folder import RunFolder


@pytest.fixture(autouse=True)
def python_kernels(monkeypatch):
    monkeypatch.setattr(kernels, "_chosen", "python")


@pytest.fixture(scope="module")
def world(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run (``run``), and beside it its own dense model (``dense``) and text (``text``)."""
    root = tmp_path_factory.mktemp("world")
    for part in ("dense", "text"):
        shutil.copytree(workplace / part, root / part)
    values = {
        "model": {"name": str(root / "dense"), "label": "dense"},
        "data": {"source": "files", "path": str(root / "text"), "context": 32},
        "sparse": {"d_model": 16, "d_head": 4},
        "train": {"tokens": 128, "batch": 2, "log_every": 1, "checkpoint_every": 1},
        "eval": {"sequences": 4, "bootstrap": 20, "ridge_tokens": 256},
        "behaviours": {"suite": "none"},
        "kernels": "python",
    }
    pipeline.run(from_dict(values), root / "run", Accelerator(cpu=True), lambda text: None)
    return root


@pytest.fixture
def begun(world: Path, tmp_path: Path) -> Path:
    """The run, its measuring still to be done, with text and model of its own that may be changed."""
    root = shutil.copytree(world, tmp_path / "world")
    folder = RunFolder(root / "run")
    folder.write_status("running", stages={k: v for k, v in folder.status["stages"].items() if k != "evaluate"})
    values = yaml.safe_load((root / "run" / "config.yaml").read_text())
    values["model"]["name"], values["data"]["path"] = str(root / "dense"), str(root / "text")
    (root / "run" / "config.yaml").write_text(yaml.safe_dump(values))
    return root


def _go_on(root: Path, allow_changed: bool = False) -> list[str]:
    config = RunFolder(root / "run").config
    config.allow_changed = allow_changed
    said: list[str] = []
    pipeline.run(config, root / "run", Accelerator(cpu=True), said.append)
    assert RunFolder(root / "run").status["status"] == "finished"
    return said


def _train_again(root: Path) -> None:
    file = root / "dense" / "model.safetensors"
    state = load_file(file)
    state["transformer.h.1.mlp.c_fc.weight"] += 1e-3
    save_file(state, file, metadata={"format": "pt"})


def test_what_a_run_was_begun_with_is_on_record(world):
    record = json.loads((world / "run" / "inputs.json").read_text())
    text = record["text"]
    assert (text["source"], text["path"]) == ("files", str(world / "text"))
    assert sum(text["documents"].values()) == 120 and all(count > 0 for count in text["tokens"].values())
    assert record["model"]["name"] == str(world / "dense") and len(record["model"]["hash"]) == 32


def test_nothing_has_changed_where_everything_only_lies_elsewhere(begun):
    assert not any("although it has changed" in line for line in _go_on(begun))


def test_a_text_file_more_is_refused_with_source_and_counts(begun):
    (begun / "text" / "new.py").write_text("print(1)\n" * 200)
    with pytest.raises(CheckpointError) as caught:
        _go_on(begun)
    message = str(caught.value)
    assert f"data.source=files data.path={begun / 'text'}" in message and "allow_changed=true" in message
    assert "120 documents" in message and "121 documents" in message and "\n" not in message
    assert RunFolder(begun / "run").status["stages"]["prepare"]["status"] == "failed"
    said = _go_on(begun, allow_changed=True)
    assert any("Going on although it has changed. Text of" in line for line in said)
    record = json.loads((begun / "run" / "inputs.json").read_text())
    assert sum(record["text"]["documents"].values()) == 121
    assert sum(record["earlier"][0]["text"]["documents"].values()) == 120


def test_a_short_file_at_the_end_is_refused_too(begun):
    """It fills no block, so that the tokens that training reads are the same."""
    names = (f"zz{i}.py" for i in range(100))
    (begun / "text" / next(n for n in names if bridges.data.corpus.Document(n, "").split == "train")).write_text("x\n")
    with pytest.raises(CheckpointError, match="121 documents"):
        _go_on(begun)


def test_other_words_in_as_many_files_are_refused(begun):
    file = begun / "text" / "0.py"
    file.write_text(file.read_text().replace("return x + 0", "return x + 7"))
    with pytest.raises(CheckpointError, match=r"120 documents .* as before, with other contents"):
        _go_on(begun)


def test_a_dense_model_that_was_trained_again_is_refused(begun):
    _train_again(begun)
    with pytest.raises(CheckpointError, match=re.escape(f"Dense model {begun / 'dense'}: other weights")):
        _go_on(begun)
    _go_on(begun, allow_changed=True)


def test_prompt_pairs_that_were_added_to_are_refused(tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text("{}\n{}\n")
    config = Config(behaviours=BehavioursConfig(suite="file", path=str(file)))
    check_inputs(tmp_path, behaviour_inputs(config), False, write=True)
    check_inputs(tmp_path, behaviour_inputs(config), False)
    file.write_text("{}\n{}\n{}\n")
    with pytest.raises(CheckpointError, match=r"Prompt pairs of .*pairs\.jsonl: 2 lines then, 3 now"):
        check_inputs(tmp_path, behaviour_inputs(config), False)
    file.write_text("{}\n[]\n")
    with pytest.raises(CheckpointError, match="2 lines as before, with other contents"):
        check_inputs(tmp_path, behaviour_inputs(config), False)
    assert behaviour_inputs(Config()) == {}


def test_a_run_that_is_opened_tells_too(begun):
    (begun / "text" / "new.py").write_text("print(1)\n" * 200)
    opened = bridges.load(begun / "run")
    assert opened.dense.d_model == 16
    with pytest.raises(CheckpointError, match="121 documents"):
        _ = opened.data
    assert sum(bridges.load(begun / "run", allow_changed=True).data.documents.values()) == 121
    _train_again(begun)
    with pytest.raises(CheckpointError, match="other weights"):
        _ = bridges.load(begun / "run").dense
    changed = bridges.load(begun / "run", allow_changed=True)
    ids = torch.tensor([[1, 2, 3]])
    assert changed.hybrid(ids, dense_until=1).shape == (1, 3, 300)


def test_the_flag_goes_with_resume_on_the_command_line(begun, cli: Callable[..., tuple[int, str, str]]):
    (begun / "text" / "new.py").write_text("print(1)\n" * 200)
    code, _, err = cli(f"resume={begun / 'run'}")
    assert code == 1 and err.count("\n") == 1 and "allow_changed=true" in err
    code, out, err = cli(f"resume={begun / 'run'}", "allow_changed=true")
    assert code == 0 and "Going on although" in out, out + err
    # What was allowed once is on record, and needs no leave again.
    assert RunFolder(begun / "run").config.allow_changed is False
    folder = RunFolder(begun / "run")
    folder.write_status("running", stages={k: v for k, v in folder.status["stages"].items() if k != "evaluate"})
    _go_on(begun)


def test_other_versions_are_told(begun):
    file = begun / "run" / "environment.json"
    values = json.loads(file.read_text())
    now = values["versions"]["torch"]
    values["versions"]["torch"] = "1.0"
    file.write_text(json.dumps(values))
    assert other_versions(begun / "run") == [f"torch 1.0 → {now}"]
    assert any(f"torch 1.0 → {now}" in line for line in _go_on(begun))
