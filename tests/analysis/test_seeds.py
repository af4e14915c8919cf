"""Spread over seeds, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis.seeds import main, seed_values, seeds_figure, spread
from analysis.stability import seed_verdicts, stability_figure, stability_table, stability_text, verdict_stability
from analysis.verdicts import modal_verdict
from bridges.errors import BridgesError

GROUP = "sparsity=0.1"


@pytest.fixture
def folder(tmp_path, write_run):
    """Three seeds at 10 %, two at 2 % without circuits or verdicts, a lone run at 1 %."""
    write_run(
        tmp_path / "s0",
        seed=0,
        kl=1.0,
        sparse={"a": 2, "b": 8, "c": 1000},
        verdicts={"a": "reproduced", "b": "reproduced", "c": "not"},
    )
    write_run(
        tmp_path / "s1",
        seed=1,
        kl=2.0,
        sparse={"a": 4, "b": 16, "c": -7},
        verdicts={"a": "reproduced", "b": "partial", "c": "not"},
    )
    write_run(
        tmp_path / "s2",
        seed=2,
        kl=3.0,
        sparse={"a": 8, "b": 32},
        verdicts={"a": "reproduced", "b": "not", "c": "partial"},
    )
    write_run(tmp_path / "t0", seed=0, sparsity=0.02, kl=5.0)
    write_run(tmp_path / "t1", seed=1, sparsity=0.02, kl=5.0)
    write_run(tmp_path / "lone", sparsity=0.01)
    return tmp_path


def test_spread_by_hand(folder):
    frame = spread(seed_values(analysis.load(folder))).set_index(["group", "figure"])
    row = frame.loc[(GROUP, "kl_d2s")]
    assert row.to_dict() == {"n": 3, "mean": 4.0, "sd": 2.0, "min": 2.0, "max": 6.0, "cv": 0.5}
    assert frame.loc[(GROUP, "kl_s2d"), "mean"] == 6.0 and frame.loc[(GROUP, "ce_sparse"), "mean"] == 4.0
    # Only a and b were found in every seed: geometric means 4, 8, 16.
    row = frame.loc[(GROUP, "edges")]
    assert (row["min"], row["max"], row["mean"]) == pytest.approx((4.0, 16.0, 28 / 3))
    row = frame.loc[(GROUP, "reproduced")]
    assert (row["mean"], row["min"], row["max"]) == (pytest.approx(4 / 3), 1, 2)
    assert frame.loc[(GROUP, "not"), "mean"] == 1.0 and (GROUP, "dense model cannot") not in frame.index
    assert set(frame.loc["sparsity=0.02"].index) == {"kl_d2s", "kl_s2d", "ce_sparse"}
    assert frame.loc[("sparsity=0.02", "kl_d2s"), "cv"] == 0.0
    assert set(frame.index.get_level_values("group")) == {GROUP, "sparsity=0.02"}, "one run is no group"


def test_stability_by_hand(folder):
    frame = verdict_stability(analysis.load(folder)).set_index("behaviour")
    assert frame["modal"].to_dict() == {"a": "reproduced", "b": "not", "c": "not"}
    assert frame["share"].to_dict() == {"a": 1.0, "b": pytest.approx(1 / 3), "c": pytest.approx(2 / 3)}
    assert frame.loc["b", "verdicts"] == "reproduced 1, partial 1, not 1" and (frame["n"] == 3).all()
    assert modal_verdict(pd.Series(["reproduced", "partial"])) == ("partial", 0.5)


def test_a_seed_counts_once_and_other_settings_are_no_repeats(tmp_path, write_run):
    write_run(tmp_path / "a", seed=0, kl=1.0)
    write_run(tmp_path / "b", seed=0, kl=7.0)
    write_run(tmp_path / "c", seed=1, kl=1.0, settings={"train.lr": 0.5})
    with pytest.raises(BridgesError, match=r"No two finished runs differ in the seed alone .*seed=2,3"):
        seed_values(analysis.load(tmp_path))
    write_run(tmp_path / "d", seed=1, kl=3.0)
    write_run(tmp_path / "e", seed=2, status="failed")
    values = seed_values(analysis.load(tmp_path)).query("figure == 'kl_d2s'")
    assert values.set_index("run")["value"].to_dict() == {"b": 14.0, "d": 6.0}


def test_figure_shows_the_seeds(folder):
    figure = seeds_figure(seed_values(analysis.load(folder)))
    titles = [axis.get_title(loc="left") for axis in figure.axes if axis.get_visible()]
    assert titles[0].startswith("KL dense → sparse") and "verdicts: reproduced" in titles
    points = [line.get_xydata().tolist() for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [[2, 1], [4, 1], [6, 1]] in points and [[10, 0], [10, 0]] in points
    means = [line.get_xydata().tolist() for line in figure.axes[0].lines if line.get_marker() == "|"]
    assert any(np.allclose(line[0], [4, 1.22]) for line in means if len(line) == 1)


def test_verdicts_by_seed(folder):
    runs = analysis.load(folder)
    verdicts = seed_verdicts(runs)
    table = stability_table(verdicts).set_index("behaviour")
    assert table.index.tolist() == ["a", "b", "c"], "what claims most first"
    assert table.loc["b", ["seed 0", "seed 1", "seed 2"]].tolist() == ["reproduced", "partial", "not"]
    [axis] = stability_figure(verdicts).axes
    cells = {tuple(map(float, text.get_position())): text.get_text() for text in axis.texts}
    assert [cells[(x, 1.0)] for x in (0.0, 1.0, 2.0)] == ["R", "P", "N"] and len(cells) == 9
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0", "1", "2"]


def test_both_reproduced_and_not_is_told(tmp_path, folder, write_run):
    runs = analysis.load(folder)
    contradicts = verdict_stability(runs).set_index("behaviour")["contradicts"]
    assert contradicts.to_dict() == {"a": False, "b": True, "c": False}, "`not` and `partial` do not contradict"
    text = stability_text(runs)
    assert "Both `reproduced` and `not`: b." in text and "agree on 1 of 3" in text
    assert [line.split()[-1] for line in text.splitlines() if line.strip().startswith("b ")] == ["contradiction"]
    for seed, verdict in enumerate(("reproduced", "undecided", "reproduced")):
        write_run(tmp_path / "calm" / str(seed), seed=seed, verdicts={"a": verdict, "b": "not"})
    calm = analysis.load(tmp_path / "calm")
    assert not verdict_stability(calm)["contradicts"].any()
    assert "No behaviour is both `reproduced` and `not`." in stability_text(calm)


def test_a_behaviour_that_one_seed_lacks(tmp_path, write_run):
    write_run(tmp_path / "0", seed=0, verdicts={"a": "partial", "b": "not"})
    write_run(tmp_path / "1", seed=1, verdicts={"a": "partial"})
    runs = analysis.load(tmp_path)
    assert verdict_stability(runs).set_index("behaviour")["n"].to_dict() == {"a": 2, "b": 1}
    assert len(stability_figure(seed_verdicts(runs)).axes[0].texts) == 3
    assert [line.split() for line in stability_text(runs).splitlines()][4] == ["b", "not", "-"]


def test_the_command(folder, tmp_path, write_run, capsys):
    assert main([str(folder)]) == 0
    out = capsys.readouterr().out
    assert "Both `reproduced` and `not`: b." in out and (folder / "seeds.png").stat().st_size > 10_000
    assert (folder / "seeds-verdicts.png").stat().st_size > 10_000
    written = pd.read_csv(folder / "seeds-verdicts.csv").set_index("behaviour")
    assert written.loc["b", "verdicts"] == "reproduced 1, partial 1, not 1" and written.loc["b", "contradicts"]
    other = tmp_path / "plain"
    for seed in (0, 1):
        write_run(other / str(seed), seed=seed)
    assert main([str(other)]) == 0
    assert "No finished run has verdicts (2 of 2 runs finished)" in capsys.readouterr().out


def test_after_one_run_the_command_for_more_seeds(tmp_path, write_run, capsys):
    command = ["/usr/bin/python3", "-m", "bridges.run", "-m", "seed=4,5", "model=gpt2", "name=mine", "data.path=a b"]
    write_run(tmp_path / "a", seed=4, command=command)
    assert main([str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.endswith("`python -m bridges.run -m model=gpt2 'data.path=a b' seed=5,6`\n") and error.count("\n") == 1


def test_baselines_alone_are_no_circuits(tmp_path, write_run):
    for seed in (0, 1):
        random = {"name": "a", "model": "sparse", "edges": 1, "method": "random"}
        write_run(tmp_path / str(seed), seed=seed, circuit_rows=[random])
    assert set(seed_values(analysis.load(tmp_path))["figure"]) == {"kl_d2s", "kl_s2d", "ce_sparse"}
