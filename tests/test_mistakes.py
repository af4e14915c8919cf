"""A hundred mistakes, each of which ends in one clear line: on the command line, in settings, in files, in Python."""

from __future__ import annotations

import json
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pandas as pd
import pytest
from accelerate import Accelerator
from hydra import compose, initialize_config_dir

import bridges
from bridges import kernels
from bridges.behaviours import load as load_pairs
from bridges.cli.export import export
from bridges.cli.overrides import check_command_line, conf_folder
from bridges.cli.run import _composed
from bridges.config import Config, from_dict, to_dict
from bridges.dense import load_dense
from bridges.errors import BridgesError
from bridges.hybrid import Path as MixedPath
from bridges.nodes import record
from bridges.report import write_report
from bridges.runs import pipeline
from bridges.storage.folder import RunFolder, write_atomically
from bridges.storage.tables import read_table, write_table


def _one_line(message: str) -> None:
    assert message.strip() and "\n" not in message.strip() and "Traceback" not in message
    assert len(message) < 900, message
    assert "weights_only=False" not in message


# --- the command line, before anything is composed ----------------------------------------------------------------

COMMANDS = [
    # Misspelt keys.
    ("train.lrr=3", "train.lr"),
    ("sede=3", "seed"),
    ("trian.lr=3", "train.lr"),
    ("sparse.dmodel=64", "sparse.d_model"),
    ("data.contxt=64", "data.context"),
    ("tokens=1000", "train.tokens"),
    ("circuits.control.seeds=3", "circuits.controls.seeds"),
    ("+train.momentum=0.9", "train.momentum is no setting"),
    ("++nothing=1", "nothing is no setting"),
    # Misspelt choices.
    ("model=gtp2", "gpt2"),
    ("data=flies", "files"),
    ("train=quik", "quick"),
    ("behaviours=pyton", "python"),
    ("experiment=tinypyton", "tinypython"),
    ("launcher=jobib", "joblib"),
    ("hydra/launcher=slrum", "slurm"),
    ("tracking=wanbd", "wandb"),
    ("model=null", "a group cannot be empty"),
    ("model={name: gpt2}", "there is no such choice"),
    # Wrong types.
    ("seed=one", "could not be converted to Integer"),
    ("seed=1.5", "could not be converted to Integer"),
    ("train.lr=fast", "could not be converted to Float"),
    ("train.sharkfin=maybe", "not a valid bool"),
    ("tracking.tags=abc", "not a ListConfig"),
    ("behaviours.names=for_while", "not a ListConfig"),
    ("circuits.controls=many", "circuits.controls=many"),
    ("seed=[0,1]", "seed=[0, 1]"),
    # What Hydra's language does not read.
    ("data.pattern=[", "cannot be read"),
    ("train.lr='unclosed", "cannot be read"),
    ("name=a=b", "cannot be read"),
    ("data.path={", "cannot be read"),
    (f"seed={'9' * 5000}", "too many digits"),
    (f"data.pattern={'[' * 100_000}", "brackets"),
    # What is no setting at all.
    ("gpt2", "Did you mean model=gpt2?"),
    ("runs/2026-01-01", "write key=value"),
    ("sparsiti", "Did you mean 'sparsity'"),
    ("~data.path", "no setting can be taken away"),
    ("~model", "a group cannot be empty"),
    ("+seed=3", "write seed=3"),
    ("+model=gpt2", "write model=gpt2"),
    ("seed=0,1", "put -m before"),
    ("model=gpt2,tinypython", "put -m before"),
    # Options.
    ("--confg-dir=x", "--config-dir"),
    ("--seed=3", "--seed is no option"),
    ("--config-dir=/nowhere/conf", "no such folder"),
    ("hydra.searchpath=[/nowhere/conf]", "no such folder"),
    ("hydra.searchpath=/nowhere/conf", "takes a list"),
    ("--cfg=jobs", "job"),
    ("--resolve", "--cfg job"),
    # Folders that cannot be made.
    ("runs_dir=/dev/null/runs", "cannot be made"),
    ("hydra.run.dir=/proc/x", "cannot be made"),
    (f"runs_dir=/tmp/{'x' * 300}", "cannot be made"),
]


@pytest.mark.parametrize(("argument", "message"), COMMANDS, ids=[c[0][:40] for c in COMMANDS])
def test_on_the_command_line(argument: str, message: str) -> None:
    with pytest.raises(BridgesError) as caught:
        check_command_line([argument])
    _one_line(str(caught.value))
    assert message in str(caught.value)


# --- settings that compose and cannot be ---------------------------------------------------------------------------

SETTINGS = [
    ("seed=-1", "seed=-1"),
    ("seed=18446744073709551615", "must lie between 0 and 2147483647"),
    ("seed=${foo}", "Interpolation key 'foo' not found"),
    ("name=${oc.env:BRIDGES_NOPE}", "BRIDGES_NOPE"),
    ("name=..", "plain name"),
    ("name=.", "plain name"),
    ("name=a/b", "plain name"),
    ("name=", "name is empty"),
    (f"name={'x' * 250}", "250 bytes"),
    ("runs_dir=", "runs_dir is empty"),
    ("resume=", "resume is empty"),
    ("runs_dir=' '", "runs_dir is empty"),
    ("resume=' '", "resume is empty"),
    ("data.path=' '", "data.path is empty"),
    (f"data.path=/tmp/{'x' * 300}", "data.path holds a name of 300 bytes"),
    (f"model.name=/tmp/{'x/' * 2500}", "model.name holds a path of 5005 bytes"),
    (f"sparse.init={'x' * 300}", "file systems allow 255"),
    ("resume='/tmp/" + "ü" * 200 + "'", "resume holds a name of 400 bytes"),
    (f"behaviours.path={'x' * 300}", "behaviours.path holds"),
    ("sparsity=0", "(0, 1]"),
    ("sparsity=nan", "finite"),
    ("sparse.width=inf", "finite"),
    ("sparse.init=", "sparse.init is empty"),
    ("train.weight_decay=nan", "finite"),
    (f"train.tokens={10**30}", "too large"),
    ("train.batch=0", "greater than 0"),
    ("train.precision=f32", "fp32"),
    ("train.hybrid_sites=some", "'all' or a whole number"),
    ("data=files", "data.path=<folder>"),
    ("data=hub", "data.path=<dataset id>"),
    ("behaviours=file", "behaviours.path="),
    ("model=hf", "model.name is empty"),
    ("data.context=1", "at least 2"),
    ("circuits.method=random", "circuits.baselines=[random]"),
    ("circuits.controls.names=[necesity]", "necessity"),
    ("tracking.project=a/b", "W&B takes no /"),
    (f"tracking.tags=[{'x' * 65}]", "65 characters; W&B takes 64"),
    ("tracking.entity=team/project", "tracking.project"),
    ("tracking.tags=[' ']", "empty tag"),
    (f"tracking.group={'x' * 200}", "200 characters; W&B takes 128"),
]


@pytest.fixture
def hydra_finds_the_settings() -> Iterator[None]:
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        yield


@pytest.mark.parametrize(("argument", "message"), SETTINGS, ids=[c[0][:40] for c in SETTINGS])
def test_in_a_setting(argument: str, message: str, hydra_finds_the_settings: None) -> None:
    check_command_line([argument])
    with pytest.raises(BridgesError) as caught:
        _composed(compose("config", overrides=[argument]))
    _one_line(str(caught.value))
    assert message in str(caught.value)


# --- runs, whole: nothing is left behind ---------------------------------------------------------------------------

RUNS = [
    (["model.name=/nowhere/dense"], "There is no folder"),
    (["model.name=./dense"], "There is no folder"),
    (["model.name=gpt2"], "neither a local folder nor complete"),
    (["data.path=/nowhere/text"], "does not exist"),
    (["data.pattern=**/*.nothing"], "holds no text in files that match"),
    (["data.path={empty}"], "holds no text"),
    (["data.path={file}"], "is a file"),
    (["data.context=64"], "is longer than the 32 tokens"),
    (["data.max_chars=10"], "Give more text"),
    (["sparse.init=/nowhere/pair"], "nor a folder with model/ in it"),
    (["sparse.init=shipped"], "no trained pair ships"),
    (["sparse.d_model=1000000"], "GiB"),
    (["behaviours=file", "behaviours.path=/nowhere.jsonl"], "Cannot read /nowhere.jsonl"),
    (["behaviours.names=[for_whlie]"], "for_while"),
    (["data=hub", "data.path=owner/data"], "data"),
    (["kernels=cpp"], "no compiler here"),
]


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Path]:
    """A machine without network, compiler and cached models; an empty folder and a file."""

    def no_compiler() -> None:
        raise kernels.KernelsUnavailable("no compiler here")

    def unreachable(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(kernels, "library", no_compiler)
    monkeypatch.setattr(kernels, "_chosen", "python")
    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("text")
    return {"empty": tmp_path / "empty", "file": tmp_path / "file.txt"}


def _filled(overrides: list[str], places: dict[str, Path]) -> list[str]:
    return [re.sub(r"\{(empty|file)\}", lambda m: str(places[m[1]]), o) for o in overrides]


@pytest.mark.parametrize(("overrides", "message"), RUNS, ids=[" ".join(c[0])[:40] for c in RUNS])
def test_a_run(
    overrides: list[str],
    message: str,
    alone: dict[str, Path],
    command: Callable[..., list[str]],
    hydra_finds_the_settings: None,
    tmp_path: Path,
) -> None:
    given = command("kernels=python", *_filled(overrides, alone))[3:]
    check_command_line(given)
    config = _composed(compose("config", overrides=given))
    path = tmp_path / "runs" / "one"
    with pytest.raises(BridgesError) as caught:
        pipeline.run(config, path, Accelerator(cpu=True), lambda text: None)
    _one_line(str(caught.value))
    assert message in str(caught.value)
    assert not path.exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [(["train.lrr=3"], "train.lr"), (["name=.."], "plain name"), (["data.path={empty}"], "holds no text")],
)
def test_a_whole_command(
    overrides: list[str],
    message: str,
    alone: dict[str, Path],
    cli: Callable[..., tuple[int, str, str]],
    command: Callable[..., list[str]],
    tmp_path: Path,
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    code, out, err = cli(*command("kernels=python", f"runs_dir={runs}", *_filled(overrides, alone))[3:])
    assert code == 1 and err.startswith("error: "), out + err
    _one_line(err)
    assert message in err and list(runs.iterdir()) == []


# --- Python, and the files of a run --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mistakes") / "whole"
    values = {
        "model": {"name": str(workplace / "dense"), "label": "dense"},
        "data": {"source": "files", "path": str(workplace / "text"), "context": 32},
        "sparse": {"d_model": 16, "d_head": 4},
        "train": {"tokens": 128, "batch": 2, "log_every": 1, "checkpoint_every": 1},
        "eval": {"sequences": 4, "bootstrap": 20, "ridge_tokens": 256},
        "behaviours": {"suite": "none"},
        "kernels": "python",
    }
    pipeline.run(from_dict(values), path, Accelerator(cpu=True), lambda text: None)
    return path


def _jsonl(folder: Path, text: str) -> Path:
    (folder / "pairs.jsonl").write_text(text)
    return folder / "pairs.jsonl"


def _broken(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder


PAIR = {"clean": "a", "counterfactual": "b", "clean_token": "c", "counterfactual_token": "d"}
HALF = PAIR | {"clean": "\ud800"}

CALLS: list[tuple[str, Callable[[Path], Any], str]] = [
    ("load nothing", lambda run: bridges.load(""), "names no run"),
    ("load a folder that is no run", lambda run: bridges.load(run / "tables"), "no run folder"),
    ("load a misspelt run", lambda run: bridges.load(run.parent / "whol"), "whole"),
    ("load from the Hub offline", lambda run: bridges.load("owner/run"), "neither a run folder here nor"),
    ("a misspelt table", lambda run: bridges.load(run).table("site"), "sites"),
    ("a table of nobody's", lambda run: read_table(run, "nothing"), "has no table"),
    ("a table with no such columns", lambda run: write_table(run, "sites", pd.DataFrame({"a": [1]})), "sites"),
    ("a table that is not registered", lambda run: write_table(run, "mine", pd.DataFrame()), "no table 'mine'"),
    ("two ways to mix", lambda run: bridges.load(run).hybrid(None, dense_until=1, path="D"), "exactly one"),
    ("a path that is none", lambda run: MixedPath.parse("D0-X3"), "D0-X3"),
    ("a circuit of no model", lambda run: bridges.load(run).circuit("x", model="medium"), "no model 'medium'"),
    ("a circuit that nobody searched for", lambda run: bridges.load(run).circuit("x"), "circuits"),
    ("a node that is none", lambda run: record(bridges.load(run).sparse, "*.mlp_nuron").__enter__(), "mlp_neuron"),
    ("a report of nothing", lambda run: write_report(run / "tables"), "no run folder"),
    ("an export of a run that is none", lambda run: export(run / "tables", run.parent / "out"), "no run folder"),
    ("an export into a file", lambda run: export(run, run / "config.yaml" / "x"), "cannot be made"),
    ("an unknown setting in Python", lambda run: from_dict({"sed": 1}), "Unknown key sed"),
    ("a section that is a number", lambda run: from_dict({"train": 3}), "must be a section"),
    ("a number that YAML reads as text", lambda run: from_dict({"train": {"lr": "1e-3"}}), "wrong type"),
    ("a name with a path in Python", lambda run: Config(name="../x"), "plain name"),
    ("a model in an empty folder", lambda run: load_dense(str(run / "tables")), "no config.json"),
    ("a model in an unknown package", lambda run: load_dense("package:nothing_at_all"), "not installed"),
    ("pairs in an empty file", lambda run: load_pairs(_jsonl(run, "\n")), "is empty"),
    ("pairs that are no JSON", lambda run: load_pairs(_jsonl(run, "clean: a")), "line 1: this is no JSON"),
    (
        "pairs with half a character",
        lambda run: load_pairs(_jsonl(run, json.dumps(PAIR | {"clean": "\ud800"}))),
        "half",
    ),
    ("a config.yaml cut short", lambda run: RunFolder(_broken(run, "config.yaml", "{a: [")).config, "is damaged"),
    ("an empty config.yaml", lambda run: RunFolder(_broken(run, "config.yaml", "")).config, "holds no settings"),
    ("a checkpoint folder gone wrong", lambda run: _resume_without_weights(run), "No checkpoint in"),
    (
        "a tokenizer cut short",
        lambda run: bridges.load(_broken(run, "model/tokenizer.json", "{")).tokenizer,
        "tokenizer",
    ),
    ("weights that are no weights", lambda run: _load_broken_weights(run), "cannot be read"),
    ("bridges cut short", lambda run: bridges.load(_broken(run, "bridges/bridges.json", "{")).bridges, "No readable"),
    ("other settings under the same name", lambda run: _run_again(run, seed=9), "other settings"),
]


def _run_again(run: Path, **changes: Any) -> None:
    values = to_dict(RunFolder(run).config) | changes
    pipeline.run(from_dict(values), run, Accelerator(cpu=True), lambda text: None)


def _resume_without_weights(run: Path) -> None:
    for weights in run.glob("checkpoints/*/*.safetensors"):
        weights.write_bytes(b"nothing")
    write_atomically(run / "status.json", json.dumps({"status": "failed", "stages": {}, "started": "x"}))
    _run_again(run)


def _load_broken_weights(run: Path) -> Any:
    (run / "model" / "model.safetensors").write_bytes(b"nothing")
    return bridges.load(run).sparse


@pytest.mark.parametrize(("call", "message"), [c[1:] for c in CALLS], ids=[c[0] for c in CALLS])
def test_in_python(
    call: Callable[[Path], Any], message: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(kernels, "_chosen", "python")
    run = tmp_path / "whole"
    shutil.copytree(finished, run)
    with pytest.raises(BridgesError) as caught:
        call(run)
    _one_line(str(caught.value))
    assert message in str(caught.value)


def test_there_are_a_hundred() -> None:
    assert len(COMMANDS) + len(SETTINGS) + len(RUNS) + len(CALLS) >= 100
