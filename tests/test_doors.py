"""Hydra's own doors: folders of the user's with every check on, options anywhere, errors in one line of ours."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf.errors import InterpolationKeyError
from tqdm import tqdm

import bridges
from bridges.cli.overrides import check_command_line, groups, in_words
from bridges.cli.run import _fail
from bridges.errors import ConfigError


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder of YAML files: a model, an experiment in a folder of its own, a group of the user's."""
    for file, text in {
        "model/mine.yaml": "name: tinypython\nlabel: mine\n",
        "experiment/paper/one.yaml": "# @package _global_\nseed: 3\n",
        "extra/more.yaml": "# @package _global_\nsparsity: 0.5\n",
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    return tmp_path


def _ways(folder: Path) -> list[list[str]]:
    return [
        [f"--config-dir={folder}"],
        ["--config-dir", str(folder)],
        ["-cd", str(folder)],
        [f"hydra.searchpath=[{folder}]"],
        [f"hydra.searchpath=[file://{folder}]"],
        [f"hydra.searchpath=[{folder},pkg://somewhere]"],
    ]


@pytest.mark.parametrize("way", range(6))
def test_a_folder_of_the_user_s_is_searched_and_everything_is_checked(mine, way):
    door = _ways(mine)[way]
    check_command_line([*door, "model=mine", "experiment=paper/one", "+extra=more", "train.lr=1e-3"])
    check_command_line([*door, "model=gpt2"])
    for wrong, message in {
        "model=mien": "'mine'",
        "model=gtp2": "'gpt2'",
        "train.lrr=1": "train.lr",
        "seed=x": "Integer",
        "experiment=paper/tow": "paper/one",
        "+extra=mroe": "'more'",
    }.items():
        with pytest.raises(ConfigError, match=re.escape(message)):
            check_command_line([*door, wrong])
    with pytest.raises(ConfigError, match="no such choice"):
        check_command_line(["model=mine"])
    with pytest.raises(ConfigError, match="extra is no setting"):
        check_command_line(["+extra=more"])


def test_what_the_user_s_folder_holds_is_composed(mine, cli):
    code, out, err = cli(f"--config-dir={mine}", "--cfg", "job", "model=mine", "experiment=paper/one", "+extra=more")
    assert code == 0, err
    assert "label: mine" in out and "seed: 3" in out and "sparsity: 0.5" in out


def test_groups_of_the_user_s_come_to_ours(mine):
    ours, both = groups(), groups([mine])
    assert set(both["model"]) == {*ours["model"], "mine"} and both["extra"] == ["more"]
    assert "paper/one" in both["experiment"] and both["experiment/paper"] == ["one"]
    assert not any(group.startswith("hydra") for group in both)


def test_options_may_stand_between_settings(tmp_path):
    place = ["--config-dir", str(tmp_path)]
    given = ["seed=0,1", "-m", "sparsity=0.1", *place, "train.lr=1e-3"]
    assert check_command_line(given) == ["-m", *place, "seed=0,1", "sparsity=0.1", "train.lr=1e-3"]


def test_several_values_are_a_sweep_and_a_quoted_comma_is_none(tmp_path):
    check_command_line(["-m", "seed=0,1", "model=gpt2,tinypython"])
    check_command_line(["seed=0,1", "hydra.mode=MULTIRUN"])
    check_command_line(['data.pattern="a,b"'])
    with pytest.raises(ConfigError, match=r"put -m before .* 'seed=\"a,b\"'"):
        check_command_line(["seed=0,1"])
    with pytest.raises(ConfigError, match="'gpt2'"):
        check_command_line(["-m", "model=gtp2,tinypython"])


def test_references_to_other_settings_are_left_to_composition():
    check_command_line(["seed=${foo}", "name=${oc.env:HOME}", "data.max_chars=${train.tokens}"])


def test_what_is_wrong_is_found_before_a_folder_is_made(tmp_path):
    with pytest.raises(ConfigError):
        check_command_line([f"runs_dir={tmp_path / 'runs'}", "seed=x"])
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hydra.job.nme=3"], "hydra.job.nme"),
        (["runs_dir=${foo}"], "Interpolation key 'foo' not found"),
        (["--config-name=nope"], "nope"),
        (["--shell-completion"], "--shell-completion takes one of install=<shell>"),
        (["-sc", "install=nope"], "No completion plugin for 'nope'"),
    ],
)
def test_hydra_s_own_errors_are_one_line(arguments, message, cli):
    code, out, err = cli(*arguments)
    assert code == 1 and err.startswith("error: ") and err.count("\n") == 1, out + err
    assert message in err and "HYDRA_FULL_ERROR" not in out + err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"# @package _global_\nseed: [3\n", "one.yaml, line 3: this is no YAML"),
        (b"# @package _global_\nname: \xe9\n", "no UTF-8 text"),
        (b"seed: 3\n", "the file's first line must be `# @package _global_`"),
        (b"# @package _global_\nsede: 3\n", "Key 'sede' not in 'Config'"),
    ],
    ids=["no-yaml", "no-text", "no-package", "no-setting"],
)
def test_what_is_wrong_in_a_file_of_the_user_s_is_one_line(mine, cli, text, message):
    (mine / "experiment" / "paper" / "one.yaml").write_bytes(text)
    code, out, err = cli(f"--config-dir={mine}", "experiment=paper/one")
    assert code == 1 and err.startswith("error: ") and err.count("\n") == 1, out + err
    assert message in err


def test_shell_completion_is_hydra_s(cli):
    code, out, err = cli("-sc", "install=bash")
    assert code == 0 and "complete -o nospace" in out and not err


def test_an_error_stands_in_a_line_of_its_own_under_a_bar(capsys):
    bar = tqdm(total=2, mininterval=0)
    bar.update()
    with pytest.raises(SystemExit):
        _fail(ConfigError("what to do"))
    assert capsys.readouterr().err.endswith("\nerror: what to do\n") and bar.disable


def test_a_debugger_sees_hydra_s_errors_as_they_are(cli, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(HydraException):
        cli("hydra.job.nme=3")


def test_errors_of_libraries_in_words():
    error = InterpolationKeyError("Interpolation key 'foo' not found\n    full_key: seed\n    object_type=Config")
    assert in_words(error) == "seed: Interpolation key 'foo' not found."
    composed = ConfigCompositionException("Could not override 'a.b'.\nTo append use +a.b=1")
    composed.__cause__ = error
    assert (
        in_words(composed) == "Could not override 'a.b'. To append use +a.b=1: seed: Interpolation key 'foo' not found."
    )
    assert (
        in_words(MissingConfigException("Cannot find primary config 'x'.\n", "x")) == "Cannot find primary config 'x'."
    )
    assert in_words(PermissionError(13, "Permission denied", "/x")) == (
        "PermissionError: [Errno 13] Permission denied: '/x'."
    )


@pytest.mark.parametrize("theirs", ["analysis.py", "analysis/__init__.py"])
def test_a_module_of_the_user_s_with_our_name_is_not_taken_for_ours(tmp_path, theirs):
    """`bridges compare` where the working directory, which Python searches first, holds an `analysis` too."""
    (tmp_path / theirs).parent.mkdir(exist_ok=True)
    (tmp_path / theirs).write_text("raise SystemExit('a file of the user was imported')\n")
    env = os.environ | {"PYTHONPATH": str(Path(bridges.__file__).parent.parent)}
    line = [sys.executable, "-m", "bridges", "compare", "--help"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, env=env, timeout=120)
    assert done.returncode == 0 and "usage: python -m analysis.compare" in done.stdout, done.stdout + done.stderr
