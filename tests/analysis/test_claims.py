"""Claims over behaviours: which criteria held, which alone stood in the way, and how they are shown."""

from __future__ import annotations

import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

import analysis
from analysis.claims import STATE_SIGNS, claims, claims_figure, decisive, main
from bridges.errors import BridgesError
from bridges.storage.tables.verdicts import STATES

# behaviour, claim, criterion, state, value
ROWS = [
    ("quote", "done", "dense_accuracy", "held", 0.98),
    ("quote", "sufficient", "fvu", "missed", 0.4),
    ("quote", "small", "dense_edges", "held", 120.0),
    ("quote", "robustness", "reach", "missed", 0.9),
    ("swap", "done", "dense_accuracy", "held", 0.95),
    ("swap", "sufficient", "fvu", "missed", 0.3),
    ("swap", "small", "dense_edges", "missed", 900.0),
    ("lambda", "done", "dense_accuracy", "open", 0.9),
    ("lambda", "sufficient", "fvu", "not measured", float("nan")),
]


@pytest.fixture
def folder(tmp_path, write_run, write_rows):
    keys = ("behaviour", "claim", "criterion", "state", "value")
    rows = [dict(zip(keys, row, strict=True)) for row in ROWS]
    verdicts = {"quote": "not", "swap": "not", "lambda": "undecided", "with": "reproduced"}
    rows.append({"behaviour": "with", "claim": "done", "criterion": "dense_accuracy", "state": "held", "value": 1.0})
    write_rows(write_run(tmp_path / "a", verdicts=verdicts, robust=("with",)), "claims", rows)
    write_run(tmp_path / "going", status="running")
    return tmp_path


def test_rows_come_with_their_verdicts_in_their_order(folder):
    frame = claims(analysis.load(folder))
    assert frame["behaviour"].drop_duplicates().tolist() == ["with", "lambda", "quote", "swap"]
    assert frame.set_index(["behaviour", "criterion"]).loc[("swap", "fvu"), ["verdict", "value"]].tolist() == [
        "not",
        0.3,
    ]
    assert set(STATE_SIGNS) == set(STATES)


def test_what_decided_by_hand(folder):
    frame = decisive(claims(analysis.load(folder))).set_index("criterion")
    assert frame.index.tolist() == ["dense_accuracy", "fvu", "dense_edges", "reach"], "in the order of the claims"
    assert frame.loc["dense_accuracy", list(STATES)].tolist() == [3, 0, 1, 0]
    assert frame.loc["fvu", list(STATES)].tolist() == [0, 2, 0, 1]
    # `swap` misses two criteria, `quote` one and a criterion of robustness, which decides nothing.
    assert frame["alone"].to_dict() == {"dense_accuracy": 0, "fvu": 1, "dense_edges": 0, "reach": 0}


def test_one_run_is_a_grid_and_several_are_bars(folder, write_run, write_rows):
    [axis] = claims_figure(claims(analysis.load(folder))).axes
    rows = [tick.get_text() for tick in axis.get_yticklabels()]
    columns = [tick.get_text() for tick in axis.get_xticklabels()]
    assert rows[0] == "with: reproduced" and columns == ["dense_accuracy", "fvu", "dense_edges", "reach"]
    text = {tuple(map(round, t.get_position())): t.get_text() for t in axis.texts}
    assert [text[(x, -1)] for x in (0, 1, 2, 3)] == ["done", "sufficient", "small", "robustness"], "above the criteria"
    assert text[(1, 2)] == "0.40" and text[(2, 3)] == "900" and text[(1, 1)] == ""
    boxes = {(round(p.get_x() + 0.5), round(p.get_y() + 0.5)): p for p in axis.patches if isinstance(p, Rectangle)}
    assert to_hex(boxes[(1, 2)].get_facecolor()) == STATE_SIGNS["missed"].colour.lower()
    row = {"behaviour": "quote", "claim": "sufficient", "criterion": "fvu", "state": "held", "value": 0.1}
    write_rows(write_run(folder / "b", seed=1, verdicts={"quote": "partial"}), "claims", [row])
    frame = claims(analysis.load(folder))
    assert decisive(frame).set_index("criterion").loc["fvu", list(STATES)].tolist() == [1, 2, 0, 1]
    [axis] = claims_figure(frame).axes
    assert [tick.get_text() for tick in axis.get_yticklabels()][1] == "sufficient: fvu"
    widths = [round(p.get_width()) for p in axis.patches if isinstance(p, Rectangle) and round(p.get_y() + 0.4) == 1]
    assert widths == [1, 2, 0, 1], "held, missed, open, not measured"


def test_the_command(folder, write_run, tmp_path, capsys):
    assert main([str(folder)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("with    reproduced, robust   because of with\n") and "going: running" in out
    assert (folder / "claims.png").stat().st_size > 10_000
    assert len(pd.read_csv(folder / "claims.csv")) == len(ROWS) + 1
    write_run(tmp_path / "plain" / "a")
    with pytest.raises(BridgesError, match="No finished run has claims"):
        claims(analysis.load(tmp_path / "plain"))
