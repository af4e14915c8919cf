"""Every command after one run: it shows something, or names the command that makes what it needs."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import analysis

ROOT = Path(analysis.__file__).parent
# They need a second run, so after one they name a command.
NEED_MORE = {"compare", "seeds"}


@pytest.fixture
def one(tmp_path, write_run, write_rows):
    """A run of the default kind: circuits of both models, one of them without edges, verdicts, claims, training."""
    verdicts = {"quote": "reproduced", "swap": "not", "colon": "last token suffices"}
    folder = write_run(
        tmp_path / "runs" / "only",
        accuracy={"quote": 0.9, "swap": 0.6},
        verdicts=verdicts,
        moved={"quote": 0.7},
        sparse={"quote": 4, "swap": -9, "colon": 0},
        dense={"quote": 64, "swap": 50, "colon": 3},
        command=["python", "-m", "bridges.run"],
    )
    claim = {"behaviour": "quote", "claim": "done", "criterion": "dense_accuracy", "state": "held", "value": 0.9}
    write_rows(folder, "claims", [claim])
    write_rows(folder, "training", [{"step": s, "tokens": 64 * s, "total": 3.0 / s} for s in (1, 2, 3)])
    return folder.parent


@pytest.mark.parametrize("name", analysis.MODULES)
def test_every_command(name, one, monkeypatch, capsys):
    monkeypatch.chdir(one.parent)
    status = import_module(f"analysis.{name}").main([])
    out, error = capsys.readouterr()
    if name in NEED_MORE:
        assert status == 1 and not out and error.count("\n") == 1
        assert re.search(r"`python -m bridges\.run (-m )?seed=1(,2)?`", error)
        return
    assert status == 0 and not error
    assert len(out.splitlines()) >= 4 and ("only" in out or "quote" in out)
    written = [Path(word) for word in out.split() if word.endswith(".png")]
    assert written and all(path.stat().st_size > 10_000 for path in written)
    assert all(path.with_suffix(".csv").is_file() for path in written)


def test_a_run_that_stopped_names_the_command_that_goes_on(tmp_path, write_run, capsys):
    folder = write_run(tmp_path / "a", sparse={"a": 3}, status="failed")
    for name in ("sizes", "claims", "heatmap"):
        assert import_module(f"analysis.{name}").main([str(tmp_path)]) == 1
        assert f"`python -m bridges.run resume={folder}` goes on with one that is failed." in capsys.readouterr().err


def test_modules_can_be_reached_from_the_package():
    assert all(getattr(analysis, name).main for name in analysis.MODULES)
    assert set(analysis.MODULES) <= set(dir(analysis))
    with pytest.raises(AttributeError, match="no attribute 'heat'"):
        _ = analysis.heat


def imports(path: Path) -> set[str]:
    """The modules of the package that one imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            found |= {node.module} if node.module else {alias.name for alias in node.names}
        names = [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        assert not any(str(name).split(".")[0] == "analysis" for name in names), f"{path.name}: imports by its name"
    return found


def test_imports_have_no_circle():
    graph = {path.stem: imports(path) for path in ROOT.glob("*.py")}
    while graph:
        free = {name for name, needs in graph.items() if not needs & set(graph)}
        assert free, f"a circle among {', '.join(sorted(graph))}"
        graph = {name: needs for name, needs in graph.items() if name not in free}


def test_it_works_inside_another_package(one, tmp_path):
    """As in a wheel, where it is `bridges.analysis`."""
    house = tmp_path / "house"
    house.mkdir()
    (house / "__init__.py").touch()
    (house / "analysis").symlink_to(ROOT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT.parent)])}

    def call(*arguments: str) -> str:
        line = [sys.executable, "-m", "house.analysis.summary", *arguments]
        done = subprocess.run(line, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "only" in call(str(one))
    assert "usage: python -m house.analysis.summary" in call("--help")
