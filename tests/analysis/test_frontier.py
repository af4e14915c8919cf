"""What sparsity and width cost and buy, against numbers by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis.frontier import costs, costs_figure, main
from bridges.errors import BridgesError


@pytest.fixture
def grid(tmp_path, write_run):
    """Two sparsities at each of two widths, two seeds at one place; one run has neither circuits nor verdicts."""
    verdicts = {"a": "reproduced", "b": "reproduced", "c": "not", "d": "dense model cannot", "e": "last token suffices"}
    verdicts |= {"f": "undecided"}
    edges = {"sparse": {"a": 2, "b": 8, "c": -3}, "dense": {"a": 32, "b": 128, "c": 9}}
    write_run(tmp_path / "w64-s10", width=64, sparsity=0.1, kl=1.0, verdicts=verdicts, **edges)
    write_run(tmp_path / "w64-s10-1", width=64, sparsity=0.1, kl=1.4, seed=1, verdicts={"a": "partial"}, **edges)
    write_run(tmp_path / "w64-s02", width=64, sparsity=0.02, kl=2.0, verdicts=verdicts | {"a": "partial"})
    write_run(tmp_path / "w128-s10", width=128, sparsity=0.1, kl=0.5, settings={"sparse.width": 2.0})
    write_run(tmp_path / "w128-s02", width=128, sparsity=0.02, kl=1.5, settings={"sparse.width": 2.0})
    write_run(tmp_path / "going", status="running")
    return tmp_path


def test_costs_by_hand(grid):
    frame = costs(analysis.load(grid)).set_index("run")
    assert sorted(frame.index) == ["w128-s02", "w128-s10", "w64-s02", "w64-s10", "w64-s10-1"]
    assert set(frame["settings"]) == {""}, "sparse.width follows from the width"
    assert frame["width"].to_dict()["w128-s02"] == 128
    row = frame.loc["w64-s10"]
    assert (row["kl_sparse"], row["kl_d2s"], row["kl_s2d"]) == (1.0, 2.0, 3.0)
    assert (row["edges_sparse"], row["edges_dense"]) == (pytest.approx(4.0), pytest.approx(64.0))
    assert (row["behaviours"], row["reproduced"], row["judged"]) == (2, 2, 4)
    assert (row["partial"], row["undecided"]) == (0, 1)
    assert row["nonzeros"] == 2 * 640 and row["fraction"] == pytest.approx(0.1)
    assert frame.loc["w64-s02", "reproduced"] == 1 and frame.loc["w64-s10-1", "reproduced"] == 0
    assert frame.loc["w128-s10", ["edges_sparse", "behaviours", "reproduced"]].isna().all()


def test_one_colour_per_width_and_seeds_averaged(grid):
    figure = costs_figure(costs(analysis.load(grid)))
    assert [axis.get_ylabel() for axis in figure.axes] == [
        "KL to the dense model (nats per token)",
        "edges, geometric mean",
        "behaviours reproduced",
    ]
    solid = [line for line in figure.axes[0].lines if line.get_linestyle() == "-" and len(line.get_xdata()) == 2]
    lines = {line.get_color(): np.array(line.get_xydata()) for line in solid}
    assert len(lines) == 2
    values = list(lines.values())
    assert any(np.allclose(line, [[0.02, 2.0], [0.1, 1.2]]) for line in values), "64 wide, mean of two seeds"
    assert any(np.allclose(line, [[0.02, 1.5], [0.1, 0.5]]) for line in values), "128 wide"
    assert [text.get_text() for text in figure.axes[1].texts] == ["2"], "behaviours behind each mean"


def test_settings_that_differ_get_panels(tmp_path, write_run):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", settings={"train.lr": 0.1})
    frame = costs(analysis.load(tmp_path))
    assert frame["settings"].tolist() == ["train.lr=0.1", "train.lr=nan"]
    assert len(costs_figure(frame).axes) == 2


def test_the_command(grid, tmp_path, write_run, capsys):
    assert main([str(grid)]) == 0
    out = capsys.readouterr().out
    assert "going: running" in out and "No run has" not in out and "A frontier takes" not in out
    assert (grid / "costs.png").stat().st_size > 10_000
    assert pd.read_csv(grid / "costs.csv").set_index("run").loc["w64-s10", "edges_dense"] == pytest.approx(64)


def test_without_circuits_or_verdicts_it_says_so(tmp_path, write_run, capsys):
    write_run(tmp_path / "runs" / "a", circuit_rows=[])
    assert main([str(tmp_path / "runs")]) == 0
    out = capsys.readouterr().out
    assert "No run has circuits with edges yet" in out and "No run has verdicts yet" in out
    assert "edges_sparse" not in out and "reproduced" not in out, "no empty columns"
    assert len(costs_figure(costs(analysis.load(tmp_path))).axes) == 1
    write_run(tmp_path / "other" / "b", status="running")
    with pytest.raises(BridgesError, match="No finished run"):
        costs(analysis.load(tmp_path / "other"))


def test_one_run_has_points_and_the_command_for_more(tmp_path, write_run, capsys):
    command = ["/bin/python", "-m", "bridges.run", "model=gpt2", "sparsity=0.1"]
    write_run(tmp_path / "a", sparse={"a": 3, "b": 27, "c": 0, "d": -5}, verdicts={"a": "partial"}, command=command)
    assert main([str(tmp_path)]) == 0
    assert "`python -m bridges.run -m model=gpt2 sparsity=0.02,0.05,0.2`" in capsys.readouterr().out
    frame = costs(analysis.load(tmp_path))
    # No dense circuits were searched for: the mean is over the sparse ones that were found and have edges.
    assert frame["edges_sparse"].item() == pytest.approx(9.0) and frame["behaviours"].item() == 2
    assert np.isnan(frame["edges_dense"].item()) and frame["reproduced"].item() == 0
    points = [line.get_xydata().tolist() for line in costs_figure(frame).axes[1].lines if line.get_marker() == "o"]
    assert np.allclose(points[0], [[0.1, 9.0]])
