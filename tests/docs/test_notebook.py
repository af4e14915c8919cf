"""The notebook "Read and break a circuit", executed from top to bottom on a small planted run."""

from __future__ import annotations

import re
from typing import Any

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

from .conftest import BEHAVIOUR, ROOT

NOTEBOOK = ROOT / "analysis" / "read_a_circuit.ipynb"


@pytest.fixture(scope="module")
def outputs(finished_run, tmp_path_factory) -> dict[str, list[Any]]:
    """The outputs of each cell by its id."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRIDGES_RUN", str(finished_run))
        patch.setenv("PYTHONPATH", str(ROOT))
        place = {"metadata": {"path": str(tmp_path_factory.mktemp("notebook"))}}
        NotebookClient(notebook, timeout=600, kernel_name="python3", resources=place).execute()
    return {cell["id"]: cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"}


def table(cell: list[Any]) -> pd.DataFrame:
    """The last table that a cell shows, its first column as index."""
    html = next(output["data"]["text/html"] for output in reversed(cell) if "text/html" in output.get("data", {}))
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S) for row in re.findall(r"<tr.*?</tr>", html, re.S)]
    frame = pd.DataFrame(rows[1:], columns=rows[0])
    frame = frame.set_index(frame.columns[0])
    return frame.apply(lambda column: pd.to_numeric(column, errors="coerce"))


def pictures(cell: list[Any]) -> int:
    return sum("image/png" in output.get("data", {}) for output in cell)


def test_the_circuit_is_shown(outputs):
    assert BEHAVIOUR in str(outputs["verdicts"]) and pictures(outputs["draw"]) == 1
    assert "->" in outputs["prompts"][0]["text"]


def test_ablating_it_takes_the_behaviour_away(outputs):
    shown = table(outputs["ablate"])["accuracy"]
    assert shown["dense model"] > 0.9 and shown["circuit alone"] > 0.9
    assert shown["sparse model without the circuit"] < 0.7
    assert table(outputs["knock-out"])["accuracy left"].min() < 0.7


def test_swapping_it_turns_the_answer_round(outputs):
    turned = table(outputs["swap"])["share that now favours the other answer"]
    assert turned["as it is"] < 0.1 and turned["circuit swapped"] > 0.9 and turned["random nodes"] < 0.5


def test_it_steers_the_dense_model(outputs):
    assert pictures(outputs["where"]) == 1 and pictures(outputs["steer"]) == 1
    steered = table(outputs["steer"])
    assert steered["after"].mean() > steered["before"].mean() + 0.4


def test_hybrids_are_measured_at_every_bridge(outputs):
    # Three layers have six sublayers, and seven sites.
    assert table(outputs["hybrid"]).shape == (2, 7)


def test_outputs_are_stored_without_warnings_and_places_on_a_machine():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    stored = {cell["id"]: cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"}
    assert all(stored.values()) and all(pictures(stored[name]) for name in ("draw", "where", "steer"))
    everything = [output for cell in stored.values() for output in cell]
    assert not any(output.get("name") == "stderr" or output["output_type"] == "error" for output in everything)
    assert not re.search(r"/(?:home|root|tmp|Users|mnt|lib)/", str(everything))
