"""The Python of the documentation: every snippet runs, on a small planted run in place of the one that it names."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pandas as pd
import pytest

import bridges
from bridges.behaviours.from_file import load as load_pairs
from bridges.dense import FAMILIES

from .conftest import BEHAVIOUR, ROOT

FENCE = re.compile(r'^```python(?: title="(?P<file>[\w.]+)")?\n(?P<code>.*?)^```$', re.M | re.S)
# The tutorial has a test of its own, of what it prints.
PAGES = ["README.md", *sorted(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md") if file.stem != "tutorial")]
# Behaviours and folders of the pages, in whose place the planted one stands.
NAMES, FOLDER = re.compile(r"\b(for_while|while_return_true)\b"), re.compile(r"runs/(<folder>|first)")


def snippets(text: str, files: bool = False) -> dict[str, str]:
    """Python in a page in its order, ``{line: code}``; or its complete files, ``{name: code}``."""
    found = {}
    for match in FENCE.finditer(text):
        if bool(match["file"]) is files:
            found[match["file"] or str(text[: match.start()].count("\n") + 2)] = match["code"]
    return found


def planted(code: str, folder: Path) -> str:
    return FOLDER.sub(str(folder), NAMES.sub(BEHAVIOUR, code))


@pytest.mark.parametrize("name", [name for name in PAGES if snippets((ROOT / name).read_text())])
def test_a_page_s_snippets_run_one_after_the_other(name, page, finished_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    values: dict[str, object] = {}
    for line, code in snippets(page(name)).items():
        exec(compile(planted(code, finished_run), f"{name}, line {line}", "exec"), values)
    assert isinstance(values["run"], bridges.Run)


def test_the_tutorial_s_circuit_is_broken_and_steers(page, finished_run, tmp_path, monkeypatch, capsys):
    """What its snippets print is what its text says."""
    monkeypatch.chdir(tmp_path)
    values: dict[str, object] = {}
    for code in snippets(page("docs/tutorial.md")).values():
        exec(planted(code, finished_run), values)
    out = capsys.readouterr().out
    accuracy = {k.strip(): float(v) for k, v in re.findall(r"^(.+?)\s+logit difference.*accuracy (\S+)$", out, re.M)}
    assert accuracy["dense model"] > 0.9 and accuracy["circuit alone"] > 0.9
    assert abs(accuracy["model without the circuit"] - 0.5) < 0.2
    (top,) = [value for name, value in accuracy.items() if name.startswith("without ")]
    assert top < 0.8
    moved = [float(after) for after in re.findall(r"^(?:0\.0|0\.5|1\.0) (\S+)$", out, re.M)]
    assert len(moved) == 3 and moved[0] < 0.1 and moved[2] > 0.5
    assert (tmp_path / "circuit.png").read_bytes()[:4] == b"\x89PNG"


# --- complete files -----------------------------------------------------------------------------------------------


def run_file(name: str, page, folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """Write a file of ``docs/extending.md`` and run it as a program."""
    (folder / name).write_text(snippets(page("docs/extending.md"), files=True)[name])
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(folder / name), run_name="__main__")


def test_the_dense_family_is_one(page, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(FAMILIES, "gpt_bigcode", None)  # taken away again afterwards
    run_file("bigcode.py", page, tmp_path, monkeypatch)
    assert "{'0.k': (1, 10, 4), '1.k': (1, 10, 4)}" in capsys.readouterr().out


def test_the_suite_makes_pairs_that_a_run_reads(page, tmp_path, monkeypatch):
    run_file("suite.py", page, tmp_path, monkeypatch, str(tmp_path / "pairs.jsonl"))
    _, tokenizer = bridges.load_dense("tinypython", check=False)
    suite = load_pairs(tmp_path / "pairs.jsonl", tokenizer)
    assert set(suite) == {"if_return", "while_assert"}
    lines = pd.read_json(tmp_path / "pairs.jsonl", lines=True)
    assert (lines.groupby(["behaviour", "split"]).size() == 128).all()
    assert set(lines["clean_token"]) == {":\n"} or set(lines["clean_token"].str[0]) == {":"}


def test_the_control_measures_a_circuit(page, finished_run, tmp_path, monkeypatch, capsys):
    from bridges.circuits.controls import REGISTRY

    monkeypatch.setitem(REGISTRY, "zero", None)
    run_file("zero.py", page, tmp_path, monkeypatch, str(finished_run), BEHAVIOUR)
    out = capsys.readouterr().out
    value = re.search(r"^\s*zero\s+accuracy\s+(\S+)", out, re.M)
    assert value is not None and 0.5 <= float(value[1]) <= 1.0
    assert out.count("stochastic") == 3
