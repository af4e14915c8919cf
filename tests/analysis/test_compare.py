"""Two runs compared: tests against values by hand and tables in print, and runs that cannot be compared."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis.compare import compare, compare_figure, compare_text, main
from analysis.paired import fewest_differences, holm, paired_tests, rank_biserial
from bridges.errors import BridgesError

NAMES = [f"b{i}" for i in range(6)]


@pytest.fixture
def folder(tmp_path, write_run):
    """`new` is better in every behaviour by 1 … 6 per cent, its circuits half as large, share moved unchanged."""
    old = dict.fromkeys(NAMES, 0.5)
    new = {name: 0.5 + 0.01 * (i + 1) for i, name in enumerate(NAMES)}
    moved = dict.fromkeys(NAMES, 0.4)
    verdicts = dict.fromkeys(NAMES, "partial")
    write_run(
        tmp_path / "old", kl=1.0, accuracy=old, moved=moved, verdicts=verdicts, sparse=dict.fromkeys(NAMES[:4], 8)
    )
    write_run(
        tmp_path / "new",
        sparsity=0.2,
        kl=0.5,
        accuracy=new,
        moved=moved,
        verdicts=verdicts | {"b2": "reproduced"},
        sparse={"b0": 4, "b1": 4, "b2": 4, "b3": -4, "b4": 4},
    )
    return tmp_path


def test_tests_by_hand(folder):
    result = compare(analysis.load(folder), "old", "new")
    tests = result.tests.set_index("measure")
    row = tests.loc["accuracy"]
    # Six differences of one sign: two of 2⁶ sign patterns are as extreme.
    assert row["p"] == pytest.approx(2 / 64) and row["p_holm"] == pytest.approx(3 * 2 / 64)
    assert (row["n"], row["n_changed"], row["rank_biserial"]) == (6, 6, 1.0)
    assert row["median"] == pytest.approx(0.035)
    row = tests.loc["edges"]
    # b3 missed its target, b4 was not searched in the old run: three circuits, all halved, tied.
    assert (row["n"], row["median"], row["rank_biserial"]) == (3, -1.0, -1.0)
    assert row["p"] == pytest.approx(2 / 8) and row["p_holm"] == pytest.approx(2 * 2 / 8)
    row = tests.loc["share_moved"]
    assert (row["n"], row["n_changed"], row["p"], row["rank_biserial"]) == (6, 0, 1.0, 0.0)
    assert any("fewer than 6 behaviours" in note and "edges" in note for note in result.notes)


def test_direction_paths_and_verdicts(folder):
    runs = analysis.load(folder)
    result = compare(runs, "old", folder / "new")
    paths = result.paths.set_index("path")
    assert paths["difference"].to_dict() == {"S": -0.5, "D0-S1": -1.0, "S0-D1": -1.5}, "trained or none, no pure dense"
    assert result.verdicts.to_dict("records") == [{"behaviour": "b2", "first": "partial", "second": "reproduced"}]
    back = compare(runs, "new", "old")
    assert (back.paths.set_index("path").loc[paths.index, "difference"] == -paths["difference"]).all()
    assert back.tests.set_index("measure").loc["accuracy", "rank_biserial"] == -1.0
    text = compare_text(result)
    assert "b2: partial → reproduced" in text and "lower in new on 3 of 3" in text


def test_signed_ranks_against_the_textbook():
    # Darwin's maize: cross- against self-fertilised, eighths of an inch; W+ = 96, W- = 24, two-sided p = 0.0413.
    darwin = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    [row] = paired_tests(pd.DataFrame({"measure": "height", "difference": darwin})).to_dict("records")
    assert row["p"] == pytest.approx(0.0413, abs=1e-4)
    assert row["rank_biserial"] == pytest.approx((96 - 24) / 120)
    assert rank_biserial(np.array([1.0, -2.0, 3.0])) == pytest.approx((1 - 2 + 3) / 6)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []
    n = fewest_differences()
    assert 2 / 2**n < 0.05 <= 2 / 2 ** (n - 1)


def test_not_comparable(folder, write_run, capsys):
    write_run(folder / "other", accuracy={"b0": 0.5}, settings={"model.name": "org/large", "model.label": "tiny"})
    write_run(folder / "going", status="running")
    runs = analysis.load(folder)
    with pytest.raises(BridgesError, match=r"not comparable: .*dense models \(model.name: org/tiny and org/large\)"):
        compare(runs, "old", "other")
    with pytest.raises(BridgesError, match="going is running"):
        compare(runs, "old", "going")
    with pytest.raises(BridgesError, match="Did you mean 'old'"):
        compare(runs, "odl", "new")
    with pytest.raises(BridgesError, match="given twice"):
        compare(runs, "old", folder / "old")
    assert main(["old", "other", "--runs", str(folder)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_other_behaviours_leave_the_paths(folder, write_run):
    write_run(folder / "english", accuracy={"b0": 0.9}, settings={"behaviours.suite": "english"})
    write_run(folder / "names", accuracy={"z": 0.9}, verdicts={"z": "not"})
    write_run(folder / "text", accuracy={"z": 0.9}, settings={"data.source": "files"})
    runs = analysis.load(folder)
    for name, reason in (("english", "different suites"), ("names", "none in common")):
        result = compare(runs, "old", name)
        assert result.tests.empty and len(result.paths) == 3 and result.verdicts.empty
        assert any(reason in note for note in result.notes) and reason in compare_text(result)
        compare_figure(result)
    result = compare(runs, "names", "text")
    assert result.paths.empty and any("different text (data.source: python and files)" in n for n in result.notes)
    assert result.tests["n"].tolist() == [1]
    with pytest.raises(BridgesError, match=r"not comparable\. .*none in common\. .*different text"):
        compare(runs, "old", "text")


def test_circuits_for_different_targets_are_no_pair(tmp_path, write_run):
    write_run(tmp_path / "a", sparse={"q": 4, "r": 4})
    write_run(tmp_path / "b", circuit_rows=[{"name": n, "model": "sparse", "edges": 2, "target": t}
                                            for n, t in (("q", 0.3), ("r", 0.15))])  # fmt: skip
    result = compare(analysis.load(tmp_path), "a", "b")
    assert result.differences["behaviour"].tolist() == ["r"]
    assert any("1 circuits were searched for with different objectives or targets" in note for note in result.notes)
    rows = [{"name": n, "model": "sparse", "edges": 2, "objective": "task_loss"} for n in ("q", "r")]
    write_run(tmp_path / "c", circuit_rows=rows)
    result = compare(analysis.load(tmp_path), "a", "c")
    assert result.differences.empty and any("2 circuits were searched" in note for note in result.notes)


def test_circuits_without_edges_are_not_compared_by_edges(tmp_path, write_run):
    write_run(tmp_path / "a", sparse={"q": 4, "r": 4})
    write_run(tmp_path / "b", sparse={"q": 0, "r": 2})
    result = compare(analysis.load(tmp_path), "a", "b")
    assert result.differences[["behaviour", "difference"]].to_numpy().tolist() == [["r", -1.0]]
    assert any("Without edges in one of the runs, and so not compared by edges: q." in note for note in result.notes)


def test_figure(folder):
    result = compare(analysis.load(folder), "old", "new")
    axes = compare_figure(result).axes
    assert len(axes) == 4
    points = {line.get_label(): np.array(line.get_xydata()) for line in axes[0].lines}
    assert np.allclose(points["new"][points["new"][:, 1] == 5], [[0.51, 5]]), "b0 on top"
    kl = {line.get_label(): line.get_xydata().tolist() for line in axes[3].lines}
    assert kl["pure sparse"] == [[1.0, 0.5]] and kl["single s2d"] == [[3.0, 1.5]]


def test_the_command(folder, capsys):
    assert main(["old", "new", "--runs", str(folder)]) == 0
    assert "b2: partial → reproduced" in capsys.readouterr().out
    assert (folder / "compare.png").stat().st_size > 10_000
    frame = pd.read_csv(folder / "compare.csv").set_index(["measure", "behaviour_or_path"])
    assert frame.loc[("kl", "S0-D1"), "difference"] == -1.5 and frame.loc[("edges", "b1"), "difference"] == -1
    (folder / "compare.png").unlink()
    assert main([str(folder / "old"), str(folder / "new")]) == 0
    assert (folder / "compare.png").is_file(), "beside the runs"


def test_without_names_the_two_that_began_last(tmp_path, write_run, capsys):
    write_run(tmp_path / "old", started="2026-01-01", kl=1.0)
    write_run(tmp_path / "b", started="2026-01-03", kl=2.0, seed=1)
    write_run(tmp_path / "a", started="2026-01-02", kl=3.0, seed=2)
    write_run(tmp_path / "other", started="2026-01-04", settings={"model.name": "org/large"})
    write_run(tmp_path / "going", started="2026-01-05", status="running")
    assert main(["--runs", str(tmp_path)]) == 0
    assert "first: a; second: b;" in capsys.readouterr().out
    assert main(["b", "--runs", str(tmp_path)]) == 1
    assert "b is one run; give the one it is to be compared with" in capsys.readouterr().err


def test_after_one_run_the_command_for_another(tmp_path, write_run, capsys):
    write_run(tmp_path / "a", command=["python", "-m", "bridges.run", "model=gpt2"])
    assert main(["--runs", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "takes two finished runs" in error and "`python -m bridges.run model=gpt2 seed=1`" in error
