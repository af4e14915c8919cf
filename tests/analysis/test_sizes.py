"""Sizes of circuits: means and ratios worked out by hand, and what is left out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis.circuits import geometric_mean, selected_circuits
from analysis.sizes import coverage, main, size_summary, sizes, sizes_figure, sizes_text
from bridges.errors import BridgesError

SPARSE = {"quote": 2, "brackets": 8, "kwarg": 5, "swap": -40, "lambda": 7}
DENSE = {"quote": 8, "brackets": 512, "kwarg": -900, "swap": 80}


@pytest.fixture
def runs(tmp_path, write_run):
    write_run(tmp_path / "a", sparse=SPARSE, dense=DENSE, kl=0.5)
    return analysis.load(tmp_path)


def test_geometric_mean():
    assert geometric_mean([2, 8]) == pytest.approx(4.0)
    assert geometric_mean([0, 16, 4]) == pytest.approx(8.0), "no edges are in no mean"
    assert np.isnan(geometric_mean([])) and np.isnan(geometric_mean([0]))


def test_only_pairs_at_the_same_target_count(runs):
    frame = sizes(runs).set_index("behaviour")
    assert frame["status"].to_dict() == {
        "brackets": "counted",
        "kwarg": "target not reached: dense",
        "lambda": "no dense circuit",
        "quote": "counted",
        "swap": "target not reached: sparse",
    }
    assert frame.loc["brackets", "edge_ratio"] == 64.0 and frame.loc["quote", "edge_ratio"] == 4.0
    assert frame.loc["brackets", "node_ratio"] == pytest.approx(513 / 9)
    assert frame["edge_ratio"].notna().sum() == 2
    assert np.isnan(frame.loc["swap", "sparse_edges"]) and frame.loc["swap", "dense_edges"] == 80, "missed: no size"
    assert (frame["ce_sparse"] == 2.5).all() and (frame["ce_dense"] == 2.0).all()


def test_coverage_by_hand(runs):
    frame = coverage(runs).set_index("model")
    assert frame.index.tolist() == ["sparse", "dense"]
    row = frame.loc["sparse"]
    assert (row["behaviours"], row["found"], row["without_edges"]) == (5, 4, 0)
    assert row["edges"] == pytest.approx((2 * 8 * 5 * 7) ** 0.25) and row["ce"] == 2.5
    row = frame.loc["dense"]
    assert (row["behaviours"], row["found"]) == (4, 3) and row["edges"] == pytest.approx((8 * 512 * 80) ** (1 / 3))
    assert (row["objective"], row["target"], row["ce"]) == ("faithful", 0.15, 2.0)


def test_circuits_without_edges_stand_apart_and_are_in_no_mean(tmp_path, write_run, capsys):
    sparse = {"quote": 2, "brackets": 8, "colon": 0, "comma": 4}
    write_run(tmp_path / "a", sparse=sparse, dense={"quote": 8, "brackets": 512, "colon": 3, "comma": 0})
    runs = analysis.load(tmp_path)
    status = sizes(runs).set_index("behaviour")["status"]
    assert (status["colon"], status["comma"]) == ("without edges: sparse", "without edges: dense")
    [row] = size_summary(sizes(runs)).to_dict("records")
    assert (
        row["behaviours"] == 2
        and row["sparse_edges"] == pytest.approx(4.0)
        and row["edge_ratio"] == pytest.approx(16.0)
    )
    found = coverage(runs).set_index("model")
    assert found["found"].to_dict() == {"sparse": 4, "dense": 4} and (found["without_edges"] == 1).all()
    assert found.loc["sparse", "edges"] == pytest.approx(4.0) and found.loc["dense", "edges"] == pytest.approx(
        23.07, abs=0.01
    )
    assert main([str(tmp_path)]) == 0
    assert "in no mean: colon (sparse), comma (dense)" in capsys.readouterr().out


def test_summary_by_hand(runs):
    [row] = size_summary(sizes(runs)).to_dict("records")
    assert (row["behaviours"], row["left_out"]) == (2, 3)
    assert row["sparse_edges"] == pytest.approx(4.0) and row["dense_edges"] == pytest.approx(64.0)
    assert row["edge_ratio"] == pytest.approx(16.0)
    # Two behaviours: a resample is (4, 4), (4, 64), (64, 4) or (64, 64), so the ends are the two ratios themselves.
    assert (row["edge_ratio_low"], row["edge_ratio_high"]) == (pytest.approx(4.0), pytest.approx(64.0))
    text = sizes_text(sizes(runs), coverage(runs))
    assert "2 of 5 pairs counted" in text and "no dense circuit: 1" in text and "16.00" in text


def test_the_interval_follows_the_standard_error(tmp_path, write_run):
    rng = np.random.default_rng(0)
    ratios = np.exp(rng.normal(np.log(16), 0.8, 400))
    dense = {f"b{i}": round(1000 * ratio) for i, ratio in enumerate(ratios)}
    write_run(tmp_path / "a", sparse=dict.fromkeys(dense, 1000), dense=dense)
    [row] = size_summary(sizes(analysis.load(tmp_path))).to_dict("records")
    logs = np.log(np.array(list(dense.values())) / 1000)
    half = 1.96 * logs.std(ddof=1) / np.sqrt(len(logs))
    assert np.log(row["edge_ratio_low"]) == pytest.approx(logs.mean() - half, abs=0.1 * half)
    assert np.log(row["edge_ratio_high"]) == pytest.approx(logs.mean() + half, abs=0.1 * half)


def test_targets_that_differ_are_no_pair(tmp_path, write_run):
    dense = {"name": "quote", "model": "dense", "edges": 64, "target": 0.3}
    write_run(tmp_path / "a", sparse={"quote": 4}, circuit_rows=[dense])
    assert sizes(analysis.load(tmp_path))["status"].tolist() == ["different targets"]
    [row] = size_summary(sizes(analysis.load(tmp_path))).to_dict("records")
    assert row["behaviours"] == 0 and np.isnan(row["edge_ratio"])
    sizes_figure(sizes(analysis.load(tmp_path)))
    write_run(tmp_path / "b", sparse={"quote": 4}, circuit_rows=[dense | {"target": 0.15, "objective": "task_loss"}])
    assert sizes(analysis.load(tmp_path))["status"].tolist() == ["different targets", "different objectives"]


def test_baselines_and_repeated_searches_are_not_taken(tmp_path, write_run):
    rows = [
        {"name": "quote", "model": "sparse", "edges": 1, "method": "random"},
        {"name": "quote", "model": "sparse", "edges": 9, "seed": 2},
        {"name": "quote", "model": "sparse", "edges": 5, "seed": 1},
    ]
    write_run(tmp_path / "a", seed=1, circuit_rows=rows)
    write_run(tmp_path / "b", seed=1, circuit_rows=rows, settings={"circuits.method": "random"})
    circuits = selected_circuits(analysis.load(tmp_path))
    assert circuits.set_index("run")["edges"].to_dict() == {"a": 5, "b": 1}


def test_figure_shows_each_behaviour_and_the_loss(runs, tmp_path, write_run):
    left, right = sizes_figure(sizes(runs)).axes
    names = [label.get_text() for label in left.get_yticklabels()]
    assert names[-2:] == ["quote", "brackets"], "the largest ratio on top"
    assert names[:3] == ["swap (not found: sparse)", "lambda (no dense circuit)", "kwarg (not found: dense)"]
    points = {line.get_label(): line.get_xydata().tolist() for line in left.lines}
    assert sorted(points["sparse circuit"]) == [[2, 3], [8, 4]]
    assert sorted(points["dense circuit"]) == [[8, 3], [512, 4]]
    assert sorted(points["sparse, in no mean"]) == [[5, 2], [7, 1]] and points["dense, in no mean"] == [[80, 0]]
    points = {line.get_label(): np.array(line.get_xydata()) for line in right.lines}
    assert np.allclose(points["sparse model"], [[2.5, 4.0]]) and np.allclose(points["dense model"], [[2.0, 64.0]])
    write_run(tmp_path / "b", sparse={"quote": 3}, dense={"quote": 6})
    left, _ = sizes_figure(sizes(analysis.load(tmp_path))).axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["a (2)", "b (1)"]
    diamonds = [line.get_xydata()[0].tolist() for line in left.lines if line.get_marker() == "D"]
    assert np.allclose(diamonds, [[16, 0], [2, 1]])


def test_no_circuits_is_one_sentence(tmp_path, write_run, capsys):
    write_run(tmp_path / "a")
    with pytest.raises(BridgesError, match=r"No finished run has circuits \(1 of 1 run finished\): `python"):
        sizes(analysis.load(tmp_path))
    write_run(tmp_path / "empty", circuit_rows=[])
    write_run(tmp_path / "going", sparse={"quote": 3}, status="running")
    assert main([str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and "2 of 3 runs finished" in err


def test_the_command(runs, tmp_path, capsys):
    assert main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "Geometric means" in out and "`python -m bridges.run circuits=published`" in out
    assert (tmp_path / "sizes.png").stat().st_size > 10_000
    assert pd.read_csv(tmp_path / "sizes.csv").query("behaviour == 'brackets'")["edge_ratio"].item() == 64.0


def test_sparse_circuits_alone_and_baselines_alone(tmp_path, write_run):
    write_run(tmp_path / "sparse" / "a", sparse={"quote": 4})
    frame = sizes(analysis.load(tmp_path / "sparse"))
    assert frame["status"].tolist() == ["no dense circuit"] and frame["sparse_edges"].tolist() == [4]
    assert "0 of 1 pairs counted" in sizes_text(frame, coverage(analysis.load(tmp_path / "sparse")))
    left, right = sizes_figure(frame).axes
    assert {line.get_label(): line.get_xydata().tolist() for line in left.lines}["sparse, in no mean"] == [[4, 0]]
    assert [line.get_xydata().tolist() for line in right.lines] == [[[3.0, 4.0]]], "its size against its loss"
    random = {"name": "quote", "model": "sparse", "edges": 1, "method": "random"}
    write_run(tmp_path / "random" / "a", circuit_rows=[random])
    with pytest.raises(BridgesError, match="none has one of the method it was set to search by"):
        sizes(analysis.load(tmp_path / "random"))


def test_what_is_missing_is_one_command(tmp_path, write_run, capsys):
    command = ["python", "-m", "bridges.run", "model=gpt2", "circuits=published"]
    row = {"name": "quote", "model": "sparse", "edges": 4, "objective": "task_loss"}
    write_run(tmp_path / "a", circuit_rows=[row], command=command)
    assert main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "`python -m bridges.run model=gpt2 circuits=published 'circuits.models=[sparse,dense]'`" in out
    assert "its own objective" not in out
