"""Tables: what is written comes back, equal frames give equal bytes, and what does not fit is named."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bridges.errors import BridgesError, CheckpointError
from bridges.storage import tables
from bridges.storage.tables import (
    SCHEMA_VERSION,
    TABLES,
    Column,
    Table,
    read_table,
    table_names,
    table_path,
    write_table,
)


def training(**changes) -> pd.DataFrame:
    columns = {"step": [1, 2], "tokens": [64, 128], "total": [3.5, 2.25]}
    return pd.DataFrame(columns | {"ce": [3.5, np.nan], "dead_neurons": [0, 7]} | changes)


def example(table: Table) -> pd.DataFrame:
    values = {"int": [3, 4], "float": [0.5, np.nan], "str": ["a", "b"], "bool": [True, False]}
    return pd.DataFrame({c.name: list(c.choices[:1] * 2) or values[c.kind] for c in table.columns})


@pytest.mark.parametrize("name", TABLES)
def test_every_table_comes_back_as_written(tmp_path, name):
    frame = example(TABLES[name])
    path = write_table(tmp_path, name, frame)
    assert path == table_path(tmp_path, name)
    pd.testing.assert_frame_equal(read_table(tmp_path, name), frame, check_dtype=False)
    assert table_names(tmp_path) == [name]
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert pq.read_schema(path).metadata[b"bridges.schema_version"] == str(SCHEMA_VERSION).encode()


def test_every_column_is_described_once():
    for table in TABLES.values():
        assert len(set(table.names)) == len(table.names)
        assert all(column.meaning for column in table.columns) and table.row


def test_equal_frames_give_equal_bytes(tmp_path):
    frame = training()
    first = write_table(tmp_path / "a", "training", frame).read_bytes()
    shuffled = frame[["dead_neurons", "total", "ce", "tokens", "step"]]
    shuffled = shuffled.astype({"step": "int32", "total": "float32"})
    shuffled.index = pd.Index([7, 3], name="anything")
    assert write_table(tmp_path / "b", "training", shuffled).read_bytes() == first
    assert write_table(tmp_path / "b", "training", training(total=[3.5, 2.0])).read_bytes() != first


def test_absent_terms_stay_absent_and_gaps_are_gaps(tmp_path):
    write_table(tmp_path, "training", training(dead_neurons=[np.nan, 7]))
    back = read_table(tmp_path, "training")
    assert "kl" not in back.columns
    assert np.isnan(back["ce"][1]) and np.isnan(back["dead_neurons"][0]) and back["dead_neurons"][1] == 7


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (training(kl_d2z=[1.0, 2.0]), "kl_d2z.*Did you mean 'kl_d2s'"),
        (training().drop(columns=["total", "tokens"]), "needs the columns tokens, total"),
        (training(step=[1.5, 2.0]), "column 'step': expected int"),
        (training(total=["x", "y"]), "column 'total': expected float"),
        (training(step=[1, np.nan]), "column 'step': 1 of 2 values are missing"),
        (pd.concat([training(), training()[["step"]]], axis=1), "twice"),
    ],
)
def test_a_frame_that_does_not_fit_is_refused(tmp_path, frame, message):
    with pytest.raises(BridgesError, match=message):
        write_table(tmp_path, "training", frame)
    assert not table_path(tmp_path, "training").exists()


def test_an_unknown_choice_is_refused(tmp_path):
    frame = example(TABLES["sites"]).assign(bridges=["trained", "rigde"])
    with pytest.raises(BridgesError, match=r"'rigde'.*Did you mean 'ridge'"):
        write_table(tmp_path, "sites", frame)


def test_unknown_table_names(tmp_path):
    with pytest.raises(BridgesError, match="Did you mean 'training'"):
        write_table(tmp_path, "trainings", training())
    with pytest.raises(CheckpointError, match=r"no tables yet.*status\.json"):
        read_table(tmp_path, "training")
    write_table(tmp_path, "training", training())
    with pytest.raises(CheckpointError, match=r"no table 'site'.*Valid: training"):
        read_table(tmp_path, "site")


def test_a_failed_write_leaves_the_old_table(tmp_path, monkeypatch):
    path = write_table(tmp_path, "training", training())
    before = path.read_bytes()

    def half(table, where, **_):
        where.write_bytes(b"PAR1")
        raise OSError("disk full")

    monkeypatch.setattr(tables.files.pq, "write_table", half)
    with pytest.raises(OSError, match="disk full"):
        write_table(tmp_path, "training", training(total=[0.0, 0.0]))
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_newer_foreign_and_damaged_files(tmp_path):
    path = table_path(tmp_path, "training")
    path.parent.mkdir()
    later = {"bridges.schema_version": str(SCHEMA_VERSION + 1)}
    pq.write_table(pa.table({"step": [1]}).replace_schema_metadata(later), path)
    with pytest.raises(BridgesError, match=f"schema version {SCHEMA_VERSION + 1}.*Update Bridges"):
        read_table(tmp_path, "training")
    training().to_parquet(path)
    with pytest.raises(CheckpointError, match="not written by Bridges"):
        read_table(tmp_path, "training")
    path.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(CheckpointError, match="damaged"):
        read_table(tmp_path, "training")


def test_a_later_stage_adds_a_table_by_one_entry(tmp_path, monkeypatch):
    columns = (Column("behaviour", "str", "name"), Column("loss", "float", "nats"))
    behaviours = Table("behaviours", "one behaviour", columns)
    monkeypatch.setitem(TABLES, "behaviours", behaviours)
    frame = pd.DataFrame({"behaviour": ["with_as"], "loss": [0.25]})
    write_table(tmp_path, "behaviours", frame)
    pd.testing.assert_frame_equal(read_table(tmp_path, "behaviours"), frame, check_dtype=False)
