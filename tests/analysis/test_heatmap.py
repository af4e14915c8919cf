"""Behaviour by sparsity: each cell by hand."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

import analysis
from analysis.cells import VERDICT_SIGNS, ink
from analysis.heatmap import MEASURES, heatmap, heatmap_figure, heatmap_table, main
from bridges.errors import BridgesError
from bridges.storage.tables.verdicts import VERDICTS


@pytest.fixture
def folder(tmp_path, write_run):
    verdicts = {"quote": "reproduced", "swap": "not", "else": "dense model cannot"}
    accuracy = {"quote": 0.9, "swap": 0.2, "else": 0.4}
    shared = {"accuracy": accuracy, "moved": {"quote": 0.8, "swap": 0.1}}
    write_run(tmp_path / "a0", sparsity=0.1, seed=0, verdicts=verdicts, sparse={"quote": 4, "swap": -9}, **shared)
    second = verdicts | {"quote": "partial"}
    write_run(tmp_path / "a1", sparsity=0.1, seed=1, verdicts=second, sparse={"quote": 16}, **shared)
    third = shared | {"accuracy": accuracy | {"quote": 0.6}}
    write_run(tmp_path / "a2", sparsity=0.1, seed=2, verdicts=verdicts, sparse={"quote": 64}, **third)
    write_run(tmp_path / "b0", sparsity=0.02, verdicts={"quote": "partial", "swap": "not"}, **shared)
    return tmp_path


def cells(axis):
    """Text of each cell by its place."""
    return {tuple(map(float, text.get_position())): text.get_text() for text in axis.texts}


def test_verdicts_by_hand(folder):
    frame = heatmap(analysis.load(folder)).set_index(["behaviour", "sparsity"])
    row = frame.loc[("quote", 0.1)]
    assert (row["verdict"], row["n"], row["share"]) == ("reproduced", 3, pytest.approx(2 / 3))
    assert frame.loc[("quote", 0.02), "verdict"] == "partial" and frame.loc[("swap", 0.1), "share"] == 1.0
    assert len(frame) == 5
    table = heatmap_table(frame.reset_index())
    assert table.index.tolist() == ["quote", "swap", "else"], "the best first"
    assert (
        table.loc["quote"].to_dict() == {0.02: "partial", 0.1: "reproduced 2, partial 1"}
        and table.loc["else", 0.02] == ""
    )


def test_numbers_by_hand(folder):
    runs = analysis.load(folder)
    value = {m: heatmap(runs, m).set_index(["behaviour", "sparsity"])["value"] for m in ("sparse_accuracy", "edges")}
    assert value["sparse_accuracy"]["quote", 0.1] == pytest.approx((0.9 + 0.9 + 0.6) / 3)
    assert value["edges"].to_dict() == {("quote", 0.1): pytest.approx(16.0)}, "geometric, only where the target was met"
    moved = heatmap(runs, "share_moved")
    assert set(moved["behaviour"]) == {"quote", "swap"}, "what was not measured has no cell"


def test_a_verdict_is_a_letter_on_a_colour(folder):
    [axis] = heatmap_figure(heatmap(analysis.load(folder))).axes
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["10 %", "2 %"]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["quote", "swap", "else"]
    expected = {(0.0, 0.0): "R 2  P 1", (1.0, 0.0): "P", (0.0, 1.0): "N", (1.0, 1.0): "N", (0.0, 2.0): "–"}
    assert cells(axis) == expected
    boxes = {(p.get_x() + 0.5, p.get_y() + 0.5): p for p in axis.patches if isinstance(p, Rectangle)}
    for place, text in expected.items():
        letter = text[0]
        [colour] = {sign.colour for sign in VERDICT_SIGNS.values() if sign.letter == letter}
        assert boxes[place].get_facecolor()[:3] == to_rgb(colour)
    assert boxes[(0.0, 2.0)].get_hatch() and not boxes[(0.0, 0.0)].get_hatch()


def test_colours_keep_their_order_in_grey_and_letters_can_be_read():
    def luminance(colour):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    assert list(VERDICT_SIGNS) == list(VERDICTS), "the one that claims most first, also in the legend"
    assert len({sign.letter for sign in VERDICT_SIGNS.values()}) == len(VERDICTS)
    dark = [luminance(VERDICT_SIGNS[verdict].colour) for verdict in ("reproduced", "partial", "undecided", "not")]
    assert dark == sorted(dark) and min(np.diff(dark)) > 0.2
    for sign in VERDICT_SIGNS.values():
        high, low = sorted((luminance(sign.colour) + 0.05, luminance(ink(sign.colour)) + 0.05), reverse=True)
        assert high / low > 4.5, sign


def test_robust_is_shown_where_every_seed_is(tmp_path, write_run):
    both = {"a": "reproduced", "b": "reproduced", "c": "partial"}
    write_run(tmp_path / "0", seed=0, verdicts=both, robust=("a", "b", "c"))
    write_run(tmp_path / "1", seed=1, verdicts=both, robust=("a",))
    frame = heatmap(analysis.load(tmp_path))
    assert frame.set_index("behaviour")["robust"].to_dict() == {"a": 2, "b": 1, "c": 0}
    figure = heatmap_figure(frame)
    assert cells(figure.axes[0]) == {(0.0, 0.0): "R+", (0.0, 1.0): "R", (0.0, 2.0): "P"}
    assert heatmap_table(frame)[0.1].tolist() == ["reproduced, robust", "reproduced", "partial"]
    [legend] = figure.legends
    assert [text.get_text() for text in legend.texts] == ["R+  reproduced, robust", "R  reproduced", "P  partial"]


def test_the_better_number_is_darker_and_comes_first(tmp_path, write_run, write_rows):
    rows = [("a", 0.1, 0.95), ("b", 0.9, 3.0), ("c", 0.5, 0.4)]
    keys = ("behaviour", "reach_fvu", "faithfulness")
    folder = write_run(tmp_path / "a", sparse={"a": 4, "b": 40, "c": 400, "d": 0})
    write_rows(folder, "verdicts", [dict(zip(keys, row, strict=True)) for row in rows])
    runs = analysis.load(tmp_path)
    for measure, order in (("reach_fvu", "acb"), ("faithfulness", "acb"), ("edges", "abc")):
        frame = heatmap(runs, measure)
        assert "".join(heatmap_table(frame).index) == order, measure
        [axis] = heatmap_figure(frame).axes
        boxes = sorted((p.get_y(), sum(p.get_facecolor()[:3])) for p in axis.patches if isinstance(p, Rectangle))
        light = [brightness for _, brightness in boxes]
        assert len(light) == 3 and light[0] < light[1] < light[2], measure
    assert set(MEASURES) >= {"fvu", "ceiling", "share_back", "accuracy_without"}


def test_width_stands_in_the_columns_and_other_settings_in_panels(folder, write_run):
    write_run(folder / "wide", sparsity=0.1, width=128, verdicts={"quote": "not"}, settings={"sparse.width": 2})
    [axis] = heatmap_figure(heatmap(analysis.load(folder))).axes
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["10 %\n64 wide", "2 %\n64 wide", "10 %\n128 wide"]
    assert cells(axis)[(2.0, 0.0)] == "N"
    write_run(folder / "lr", sparsity=0.1, verdicts={"quote": "partial"}, settings={"train.lr": 1})
    frame = heatmap(analysis.load(folder))
    assert len(heatmap_figure(frame).axes) == 2 and not heatmap_table(frame).empty


def test_the_command(folder, write_run, tmp_path, capsys):
    assert main([str(folder)]) == 0
    assert "reproduced 2, partial 1" in capsys.readouterr().out
    assert main([str(folder), "--measure", "edges"]) == 0
    for name in ("heatmap-verdict.png", "heatmap-edges.png"):
        assert (folder / name).stat().st_size > 10_000
    assert main([str(folder), "--measure", "edgs"]) == 1
    assert "Did you mean 'edges'" in capsys.readouterr().err
    other = write_run(tmp_path / "plain" / "a", sparse={"quote": -4})
    for measure in ("verdict", "edges", "sparse_accuracy"):
        assert main([str(other), "--measure", measure]) == 1
        assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(BridgesError, match="No finished run has measured this: edges"):
        heatmap(analysis.load(other), "edges")
