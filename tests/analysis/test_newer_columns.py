"""Tables of a newer version, with columns nobody here knows, some of them named as settings are: nothing changes."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import analysis
from analysis.circuits import selected_circuits
from analysis.compare import compare
from analysis.frontier import costs, frontier
from analysis.heatmap import MEASURES, heatmap
from analysis.overview import overview
from analysis.seeds import seed_values
from analysis.sizes import coverage, sizes
from analysis.stability import verdict_stability

UNMEASURED = ("faithfulness", "accuracy_without", "ceiling", "share_back", "reach_fvu")
NEW = {"unheard_of": 1.5, "sparsity": 0.9, "width": 3, "settings": "x", "group": "y", "status": "new", "run": "z"}


@pytest.fixture
def folder(tmp_path, write_run):
    for seed in (0, 1):
        verdicts = {"a": "reproduced", "b": "not"}
        values = {"verdicts": verdicts, "accuracy": {"a": 0.5, "b": 0.25}, "moved": {"a": 0.5, "b": 0.1}}
        write_run(tmp_path / f"s{seed}", seed=seed, sparse={"a": 4, "b": 9}, dense={"a": 64, "b": 81}, **values)
    return tmp_path


def everything(folder):
    runs = analysis.load(folder)
    assert runs.problems.empty
    comparison = compare(runs, "s0", "s1")
    maps = [heatmap(runs, measure) for measure in MEASURES if measure not in UNMEASURED]
    tables = [
        function(runs)
        for function in (frontier, costs, sizes, coverage, selected_circuits, seed_values, verdict_stability)
    ]
    return [overview(runs), comparison.tests, comparison.paths, *maps, *tables]


def test_columns_that_nobody_knows_change_nothing(folder):
    before = everything(folder)
    for path in (folder / "s1" / "tables").glob("*.parquet"):
        table = pq.read_table(path)
        for name, value in NEW.items():
            table = table.append_column(name, pa.array([value] * len(table)))
        pq.write_table(table, path)
    assert "unheard_of" in analysis.load(folder).table("verdicts")
    for old, new in zip(before, everything(folder), strict=True):
        pd.testing.assert_frame_equal(old, new)
