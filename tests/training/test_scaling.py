"""The table of how a training step grows, and one real row of it."""

from __future__ import annotations

import sys

import pandas as pd
import pytest

from bridges.cli import bench, scaling
from bridges.errors import BridgesError

SMALL = {"d-sparse": 32, "d-dense": 32, "layers": 1, "vocab": 64, "context": 16, "batch": 2}


@pytest.fixture
def invented(monkeypatch):
    """Steps whose time grows with the square of the width and in proportion to all else."""
    asked = []

    def measured(shape, arguments):
        asked.append(dict(shape))
        seconds = 1e-9 * shape["d-sparse"] ** 2 * shape["layers"] * shape["vocab"] * shape["context"] * shape["batch"]
        every = {"s/step": seconds, "tokens/s": 1 / seconds, "GiB of the step": 1.0, "GiB estimated": 1.25}
        return {"bridges, all sites": every, "bridges, 1 sampled site": {"s/step": seconds / 4}}

    monkeypatch.setattr(scaling, "measured", measured)
    return asked


def test_one_size_varies_at_a_time_and_growth_is_its_power(invented):
    table = scaling.scaling_table([])
    assert len(table) == sum(len(values) for values in scaling.VARIED.values()) == len(invented)
    for shape, row in zip(invented, table.itertuples(), strict=True):
        assert shape == scaling.BASE | {row.varied: row.value}
    powers = scaling.exponents(table)
    assert powers["d-sparse"] == pytest.approx(2) and powers.drop("d-sparse").tolist() == pytest.approx([1] * 4)
    assert "d-sparse 2.00" in scaling.report(table)


def test_the_command_writes_the_table(invented, monkeypatch, tmp_path, capsys):
    out = tmp_path / "new" / "scaling.csv"
    monkeypatch.setattr(sys, "argv", ["bridges bench", "--scaling", "--out", str(out)])
    assert bench.main() == 0
    assert len(pd.read_csv(out)) == len(invented) and "The others stay at" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["bridges bench", "--out", str(out)])
    with pytest.raises(SystemExit):
        bench.main()
    assert "--out goes with --scaling" in capsys.readouterr().err


def test_a_row_is_measured_in_a_process_of_its_own():
    row = scaling.measured(SMALL, ["--precision", "fp32", "--repeats", "1"])["bridges, all sites"]
    assert row["s/step"] > 0 and row["tokens/s"] == pytest.approx(32 / row["s/step"])
    assert 0 <= row["GiB of the step"] < 1 and 0 < row["GiB estimated"] < 1


def test_a_failure_says_which_size_and_why():
    with pytest.raises(BridgesError, match=r"--layers 1 .*failed: .*--precision"):
        scaling.measured(SMALL, ["--precision", "fp7"])
