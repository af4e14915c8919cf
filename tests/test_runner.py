"""Work that is done behaviour by behaviour: parts on disk, a kill, several workers, an error, and the order of rows."""

from __future__ import annotations

import threading
from pathlib import Path

import pandas as pd
import pytest

from bridges.errors import CheckpointError
from bridges.storage.runner import file_name, gathered, run_each

NAMES = ("b", "a/strange one?", "c", "d")
TABLES = ("suite", "agreement")


class Worker:
    """What it has worked on, and whether it was told to stop."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.halted = threading.Event()

    def halt(self) -> None:
        self.halted.set()


def rows(name: str) -> dict[str, list[dict]]:
    """Two rows of one table for every behaviour, none of the other for the last."""
    row = {"behaviour": name, "first": "dense", "second": "sparse", "quantity": "accuracy", "value": 0.5, "n": 3}
    row |= {"value_low": 0.4, "value_high": 0.6, "seed": 0}
    of = {"behaviour": name, "suite": "s", "description": "d", "expressible": True, "train_pairs": 1}
    of |= {"heldout_pairs": 1, "reach_pairs": 0, "shared_last": 1.0}
    return {"suite": [of], "agreement": [] if name == "d" else [row, row | {"second": "circuit"}]}


def work(worker: Worker, name: str) -> dict[str, list[dict]]:
    worker.did.append(name)
    return rows(name)


def test_tables_hold_every_behaviours_rows_in_the_order_asked_for(tmp_path):
    worker, told = Worker(), []
    tables = run_each(tmp_path, NAMES, TABLES, [worker], work, told.append, order=["d", "c", "b", "a/strange one?"])
    # Worked on in one order, written in another.
    assert worker.did == told == ["d", "c", "b", "a/strange one?"]
    assert tables["suite"]["behaviour"].tolist() == list(NAMES)
    assert tables["agreement"]["behaviour"].tolist() == [n for n in NAMES[:3] for _ in range(2)]
    assert tables["agreement"]["second"].tolist() == ["sparse", "circuit"] * 3


def test_a_table_without_any_row_has_its_columns(tmp_path):
    tables = run_each(tmp_path, ["d"], TABLES, [Worker()], work)
    assert tables["agreement"].empty and "value_low" in tables["agreement"].columns


def test_a_kill_costs_the_part_that_was_being_worked_on(tmp_path):
    first, again, told = Worker(), Worker(), []

    def killed(worker: Worker, name: str):
        if name == "c":
            raise KeyboardInterrupt
        return work(worker, name)

    with pytest.raises(KeyboardInterrupt):
        run_each(tmp_path, NAMES, TABLES, [first], killed)
    assert first.did == list(NAMES[:2])
    tables = run_each(tmp_path, NAMES, TABLES, [again], work, told.append)
    # What was finished is told at once and not computed a second time.
    assert again.did == list(NAMES[2:]) and told == list(NAMES)
    pd.testing.assert_frame_equal(
        tables["agreement"], run_each(tmp_path / "x", NAMES, TABLES, [again], work)["agreement"]
    )


def test_a_part_that_was_half_written_counts_as_none(tmp_path, monkeypatch):
    real = pd.DataFrame.astype

    def broken(self, *arguments, **options):
        if "second" in self.columns:
            raise OSError("no space left")
        return real(self, *arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(pd.DataFrame, "astype", broken)
        run_each(tmp_path, ["b"], TABLES, [Worker()], work)
    assert not (tmp_path / "b").exists()
    worker = Worker()
    run_each(tmp_path, ["b"], TABLES, [worker], work)
    assert worker.did == ["b"]


def test_several_workers_give_one_workers_tables(tmp_path):
    alone = run_each(tmp_path / "one", NAMES, TABLES, [Worker()], work)
    meeting, both = threading.Barrier(2, timeout=30), [Worker(), Worker()]

    def together(worker: Worker, name: str):
        meeting.wait()
        return work(worker, name)

    beside = run_each(tmp_path / "two", NAMES, TABLES, both, together)
    assert sorted(both[0].did + both[1].did) == sorted(NAMES) and all(worker.did for worker in both)
    for table in TABLES:
        pd.testing.assert_frame_equal(alone[table], beside[table])


def test_an_error_stops_the_others_and_keeps_what_is_finished(tmp_path):
    own = [Worker(), Worker()]
    running = threading.Event()

    def broken(worker: Worker, name: str):
        if name == "c":
            assert running.wait(30)
            raise ValueError("broken")
        if name == "d":
            running.set()
            assert worker.halted.wait(30), "nobody told it to stop"
            raise RuntimeError("stopped")
        return work(worker, name)

    with pytest.raises(ValueError, match="broken"):
        run_each(tmp_path, NAMES, TABLES, own, broken)
    assert all(worker.halted.is_set() for worker in own)
    again = Worker()
    run_each(tmp_path, NAMES, TABLES, [again], work)
    assert again.did == ["c", "d"]


def test_a_part_that_lacks_a_table_is_done_again(tmp_path):
    run_each(tmp_path, NAMES, TABLES[:1], [Worker()], lambda worker, name: {"suite": rows(name)["suite"]})
    (tmp_path / "b" / "tables" / "suite.parquet").rename(tmp_path / "kept")
    worker, told = Worker(), []
    tables = run_each(tmp_path, NAMES, TABLES[:1], [worker], work, told.append)
    assert worker.did == ["b"] and sorted(told) == sorted(NAMES)
    assert tables["suite"]["behaviour"].tolist() == list(NAMES)
    # What another version left lacks the table that came later.
    run_each(tmp_path, NAMES[1:], TABLES, [again := Worker()], work)
    assert again.did == list(NAMES[1:])


def test_a_part_that_is_missing_is_told(tmp_path):
    with pytest.raises(CheckpointError, match="has no table 'suite'"):
        gathered(Path(tmp_path), ["nobody"], "suite")


def test_file_names_stay_apart():
    assert file_name("with_as") == "with_as"
    assert len({file_name(n) for n in ("a/b", "a_b", "a:b", "..")}) == 4
    assert all("/" not in file_name(n) and not file_name(n).startswith(".") for n in ("a/b", "../x", ".."))
