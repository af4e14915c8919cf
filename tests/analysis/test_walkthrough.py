"""The notebook, run from top to bottom on synthetic runs: what its cells show is what was planted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

import analysis

NOTEBOOK = Path(analysis.__file__).with_name("walkthrough.ipynb")


def executed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Text of each code cell's outputs by the cell's id; pictures as ``<figure>``."""
    monkeypatch.setenv("BRIDGES_RUNS", str(folder))
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.execute()
    return {c["id"]: "\n".join(map(_text, c["outputs"])) for c in notebook["cells"] if c["cell_type"] == "code"}


def _text(output: dict[str, Any]) -> str:
    if output["output_type"] == "stream":
        return str(output["text"])
    assert output["output_type"] in ("display_data", "execute_result"), output
    return "<figure>" if "image/png" in output["data"] else str(output["data"]["text/plain"])


def test_it_is_kept_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(code) >= 7 and all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
    above = [a for a, b in zip(notebook["cells"], notebook["cells"][1:], strict=False) if b["cell_type"] == "code"]
    assert all(cell["cell_type"] == "markdown" and cell["source"].count(".") >= 2 for cell in above)


def test_it_shows_what_was_planted(tmp_path, write_run, write_rows, monkeypatch):
    verdicts = {"swap": "not", "quote": "reproduced", "else": "dense model cannot"}
    shared = {"verdicts": verdicts, "accuracy": {"quote": 0.5, "swap": 0.25}, "moved": {"quote": 0.75}}
    first = write_run(tmp_path / "ten", sparsity=0.1, sparse={"quote": 4, "swap": 9}, dense={"quote": 64}, **shared)
    write_run(tmp_path / "two", sparsity=0.02, kl=1.625, sparse={"quote": 2}, dense={"quote": 64}, **shared)
    write_run(tmp_path / "going", status="running")
    criteria = [("sufficiency", "quote", 0.125, 0.3), ("transfer", "quote", 0.625, 0.5), ("sufficiency", "swap", 9, 1)]
    keys = ("criterion", "behaviour", "value", "threshold")
    write_rows(first, "evidence", [dict(zip(keys, row, strict=True)) | {"passed": True} for row in criteria])
    edge = {"model": "sparse", "method": "learned", "source": "0.mlp_in", "target": "0.mlp_neuron"}
    weights = {"quote": [0.25, -1.5], "swap": [7.0, 7.0, 7.0]}
    rows = [
        edge | {"behaviour": name, "weight": weight, "source_channel": 40 + i}
        for name, values in weights.items()
        for i, weight in enumerate(values)
    ]
    write_rows(first, "edges", rows)

    out = executed(tmp_path, monkeypatch)
    assert "Runs(3 runs, 1 problems" in out["load"] and "going" in out["load"]
    assert "1.625" in out["overview"] and "3.25" in out["overview"], "KL of the sparse model, and dense to sparse"
    assert "<figure>" in out["frontier"] and "64.0" in out["frontier"]
    assert out["heatmap"].strip() == "<figure>"
    assert "quote in ten: reproduced" in out["evidence"]
    assert "0.625" in out["evidence"] and "transfer" in out["evidence"] and "9.0" not in out["evidence"]
    assert "quote in ten: 2 edges" in out["edges"] and "7.0" not in out["edges"]
    assert out["edges"].index("-1.50") < out["edges"].index("0.25"), "the strongest first"
    assert "first: ten; second: two" in out["compare"] and "No verdict changed." in out["compare"]
    assert "lower in two on 0 of 3" in out["compare"] and "<figure>" in out["compare"]


def test_missing_tables_are_one_sentence(tmp_path, write_run, monkeypatch):
    write_run(tmp_path / "only")
    out = executed(tmp_path, monkeypatch)
    assert "<figure>" in out["frontier"], "what was measured is shown"
    for cell, what in (("heatmap", "verdicts"), ("evidence", "verdicts"), ("edges", "'edges'")):
        assert out[cell].strip().count("\n") == 0 and f"is finished and has {what}" in out[cell].replace("a table ", "")
    assert out["compare"].strip() == "Comparing takes two finished runs of the same dense model."
