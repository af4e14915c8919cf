"""Names that a reader gave to nodes: read from the file that the page saves, kept with the run, seen in Python."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from bridges.cli.report import main
from bridges.errors import CheckpointError
from bridges.report.names import Names, read_names

GIVEN = {"names": {"1.mlp_neuron:242": "finds the bracket"}, "groups": {"brackets": ["1.mlp_neuron:242", "0.v:1"]}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "given.json"
    path.write_text(json.dumps(GIVEN))
    return path


def test_names_and_groups_of_nodes(file):
    names = read_names(file)
    assert names.of("1.mlp_neuron", 242) == "finds the bracket" and names.of("1.mlp_neuron", 242, "dense") == ""
    assert names.group("0.v", 1) == "brackets" and names.group("0.v", 2) == ""


def test_the_command_keeps_the_file_with_the_run_and_the_page_shows_it(file, tmp_path, make_full, capsys):
    run = make_full(tmp_path / "run")
    assert main([str(run), "--names", str(file)]) == 0
    assert json.loads((run / "names.json").read_text()) == GIVEN
    assert "finds the bracket" in (run / "report.html").read_text(encoding="utf-8")
    capsys.readouterr()
    # Without the option, what is kept is shown again.
    assert main([str(run)]) == 0 and "finds the bracket" in (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ["no json", "[]", '{"names": {"0.v:1": 3}}', '{"groups": {"a": "0.v:1"}}'])
def test_a_file_that_holds_no_names_is_refused_before_anything_is_written(text, tmp_path, make_full, capsys):
    run, path = make_full(tmp_path / "run"), tmp_path / "bad.json"
    path.write_text(text)
    assert main([str(run), "--names", str(path)]) == 1
    assert "holds no names of nodes" in capsys.readouterr().err and not (run / "names.json").exists()
    with pytest.raises(CheckpointError, match="It must be what the report saves"):
        read_names(path)


def test_a_run_without_the_file_has_no_names(full):
    assert read_names(full) == Names()


def test_python_reads_them_back(tmp_path, make_full, monkeypatch):
    # Not at the top: the notebook's classes import torch.
    from bridges.runs import notebook

    folder = make_full(tmp_path / "run")
    (folder / "names.json").write_text(json.dumps(GIVEN))
    run = object.__new__(notebook.Run)
    run.folder = SimpleNamespace(path=folder)  # type: ignore[assignment]
    run.config = SimpleNamespace(circuits=SimpleNamespace(method="learned"))  # type: ignore[assignment]
    monkeypatch.setattr(notebook.Circuit, "load", lambda path: SimpleNamespace(nodes={}))
    nodes = run.circuit("bracket_counting").nodes.set_index(["point", "channel"])
    assert nodes.loc[("1.mlp_neuron", 242), "name"] == "finds the bracket"
    assert nodes.loc[("0.v", 1), "group"] == "brackets" and nodes.loc[("0.v", 1), "name"] == ""
    assert (nodes["name"] != "").sum() == 1 and (nodes["group"] != "").sum() == 2
    assert set(run.circuit("bracket_counting", "dense", allow_missed=True).nodes["name"]) == {""}
