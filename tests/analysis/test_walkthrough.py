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
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
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
    other = shared | {"verdicts": verdicts | {"quote": "undecided"}}
    write_run(tmp_path / "two", sparsity=0.02, kl=1.625, sparse={"quote": 2}, dense={"quote": 64}, started="1", **other)
    write_run(tmp_path / "again", sparsity=0.1, seed=1, verdicts={"quote": "not", "swap": "not"}, started="2")
    write_run(tmp_path / "going", status="running")
    rows = [("fvu", "quote", 0.125, "held"), ("share_to_dense", "quote", 0.625, "open"), ("fvu", "swap", 9.5, "missed")]
    keys = ("criterion", "behaviour", "value", "state")
    write_rows(first, "claims", [dict(zip(keys, row, strict=True)) | {"claim": "sufficient"} for row in rows])
    edge = {"model": "sparse", "method": "learned", "source": "0.mlp_in", "target": "0.mlp_neuron"}
    attributions = {"quote": [0.25, -1.5], "swap": [7.0, 7.0, 7.0]}
    rows = [
        edge | {"behaviour": name, "attribution": value, "source_channel": 40 + i}
        for name, values in attributions.items()
        for i, value in enumerate(values)
    ]
    write_rows(first, "edges", rows)

    out = executed(tmp_path, monkeypatch)
    assert "Runs(4 runs, 1 problems" in out["load"] and "going" in out["load"]
    assert "1.625" in out["overview"], "KL of the sparse model"
    assert "<figure>" in out["frontier"] and "64.0" in out["frontier"]
    assert out["heatmap"].strip() == "<figure>"
    assert "quote in ten: reproduced" in out["claims"] and "<figure>" in out["claims"]
    assert "0.625" in out["claims"] and "share_to_dense" in out["claims"] and "9.5" not in out["claims"]
    assert "quote in ten: 2 edges" in out["edges"] and "7.0" not in out["edges"]
    assert out["edges"].index("-1.50") < out["edges"].index("0.25"), "what matters most first"
    assert "16.00" in out["sizes"] and "32.00" in out["sizes"] and "<figure>" in out["sizes"]
    assert "Both `reproduced` and `not`: quote." in out["seeds"] and "<figure>" in out["seeds"]
    assert "first: two; second: again" in out["compare"] and "quote: undecided → not" in out["compare"]
    assert "lower in again on 3 of 3" in out["compare"] and "<figure>" in out["compare"]


def test_missing_tables_are_one_sentence(tmp_path, write_run, monkeypatch):
    write_run(tmp_path / "only")
    out = executed(tmp_path, monkeypatch)
    assert "<figure>" in out["frontier"], "what was measured is shown"
    missing = {"heatmap": "verdicts", "claims": "claims", "edges": "a table 'edges'", "sizes": "circuits"}
    for cell, what in missing.items():
        assert out[cell].strip().count("\n") == 0 and f"No finished run has {what} (1 of 1 run finished)" in out[cell]
    assert "`python -m bridges.run -m seed=1,2`" in out["seeds"]
    assert "takes two finished runs" in out["compare"] and "`python -m bridges.run seed=1`" in out["compare"]
