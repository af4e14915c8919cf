"""Tracking: what an offline W&B run really holds, and that nothing in W&B can stop a run."""

from __future__ import annotations

import json
import logging
import os
import random
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bridges.config import TrackingConfig
from bridges.errors import ConfigError
from bridges.storage import tracking
from bridges.storage.tracking import Tracker, open_tracker

wandb = pytest.importorskip("wandb")

ROWS = [{"total": 3.5, "kl_d2s": 1.25, "step": 10}, {"total": 2.5, "kl_d2s": 0.75, "step": 20}]


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No key, no settings of the user's, and a W&B service that starts afresh."""
    for key in [key for key in os.environ if key.startswith("WANDB")]:
        monkeypatch.delenv(key)
    for key in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(key, str(tmp_path / "home" / key))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / "netrc"))
    wandb.teardown()
    yield
    wandb.teardown()


def opened(folder: Path, mode: str = "offline", **given) -> Tracker:
    folder.mkdir(exist_ok=True)
    config = {"seed": 7, "train.lr": 0.003, "data.path": None, "tags": ["a"]}
    return open_tracker(mode, folder, "bridges-test", name="one", config=config, **given)


def records(directory: Path) -> list:
    """The records of an offline run's ``.wandb`` file: a LevelDB log behind a header of seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    wandb.teardown()  # the service writes its last block when it ends, as it does at the end of a process
    [file] = directory.glob("*.wandb")
    data, at, found, parts = file.read_bytes(), 7, [], b""
    assert data.startswith(b":W&B")
    while at + 7 <= len(data):
        left = 32_768 - at % 32_768
        if left < 7:
            at += left
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            record = Record()
            record.ParseFromString(parts)
            found.append(record)
            parts = b""
    return found


def items(entries) -> dict:
    return {entry.key or ".".join(entry.nested_key): json.loads(entry.value_json) for entry in entries}


def told(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "bridges.storage.tracking"]


def test_an_offline_run_holds_rows_config_and_summary(tmp_path):
    tracker = opened(tmp_path / "run", group="g", tags=["x"])
    for row in ROWS:
        tracker.log(row, row["step"], "train")
    tracker.log({"kl": np.float32(0.5), "absent": None}, 3, "eval")
    sites = {"bridge": [0, 1], "bridges": ["trained", None], "kl_d2s": [0.1, np.nan]}
    tracker.table("sites", pd.DataFrame(sites))
    tracker.summary({"sparse/ce": np.float64(2.75)})
    tracker.finish(0)

    found = records(tracker.directory)
    assert tracker.directory.parent == tmp_path / "run" / "wandb"
    [run] = [r.run for r in found if r.WhichOneof("record_type") == "run"][:1]
    config = items(run.config.update)
    assert {k: config[k] for k in ("seed", "train.lr", "data.path", "tags")} == {
        "seed": 7,
        "train.lr": 0.003,
        "data.path": None,
        "tags": ["a"],
    }
    assert (run.project, run.display_name, run.run_group) == ("bridges-test", "one", "g")
    assert list(run.tags) == ["x"]

    history = [items(r.history.item) for r in found if r.WhichOneof("record_type") == "history"]
    train = [row for row in history if "train/total" in row]
    keys = ("train/total", "train/kl_d2s", "train/step")
    assert [tuple(row[key] for key in keys) for row in train] == [(3.5, 1.25, 10), (2.5, 0.75, 20)]
    [evaluated] = [row for row in history if "eval/kl" in row]
    assert evaluated["eval/kl"] == 0.5 and evaluated["eval/step"] == 3 and "eval/absent" not in evaluated
    assert any(key.startswith("tables/sites") for row in history for key in row)
    [table] = tracker.directory.rglob("*.table.json")
    assert json.loads(table.read_text())["columns"] == ["bridge", "bridges", "kl_d2s"]

    summary: dict = {}
    for record in found:
        if record.WhichOneof("record_type") == "summary":
            summary |= items(record.summary.update)
    assert summary["sparse/ce"] == 2.75
    [end] = [r.exit.exit_code for r in found if r.WhichOneof("record_type") == "exit"]
    assert end == 0
    metrics = [r.metric for r in found if r.HasField("metric")]
    assert {m.glob_name: m.step_metric for m in metrics}["train/*"] == "train/step"


def test_a_resumed_run_keeps_its_id(tmp_path):
    first = opened(tmp_path / "run")
    first.log(ROWS[0], 10, "train")
    first.finish(1)
    second = opened(tmp_path / "run")
    second.log(ROWS[0], 10, "train")
    second.finish(0)
    given = opened(tmp_path / "run", resume_id="given123")
    given.finish(0)
    trackers = (first, second, given)
    ids = [next(r.run.run_id for r in records(t.directory) if r.HasField("run")) for t in trackers]
    assert ids[0] == ids[1] == first.directory.name.split("-")[-1]
    assert ids[2] == "given123"


def test_without_a_key_it_goes_offline_and_says_how_to_upload(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "bridges.storage.tracking"):
        tracker = opened(tmp_path / "run", "wandb")
    tracker.log(ROWS[0], 10, "train")
    tracker.finish(0)
    [message] = told(caplog)
    assert "WANDB_API_KEY" in message and f"wandb sync {tracker.directory}" in message
    history = [items(r.history.item) for r in records(tracker.directory) if r.HasField("history")]
    assert any("train/total" in row for row in history)


@pytest.mark.parametrize("where", ["environment", "netrc"])
def test_without_a_server_it_goes_offline(tmp_path, caplog, monkeypatch, where):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(tracking, "INIT_TIMEOUT", 1.0)
    if where == "environment":
        monkeypatch.setenv("WANDB_API_KEY", "f" * 40)
    else:
        (tmp_path / "home").mkdir(exist_ok=True)
        (tmp_path / "home" / "netrc").write_text(f"machine 127.0.0.1\n  login user\n  password {'f' * 40}\n")
    tracker = opened(tmp_path / "run", "wandb")
    tracker.log(ROWS[0], 10, "train")
    tracker.finish(0)
    assert "cannot be reached" in caplog.text and f"wandb sync {tracker.directory}" in caplog.text
    assert [p.name for p in (tmp_path / "run" / "wandb").glob("*run-2*")] == [tracker.directory.name]
    assert any(r.HasField("history") for r in records(tracker.directory))


def test_an_exception_in_wandb_switches_tracking_off_once(tmp_path, caplog):
    class Broken:
        def __getattr__(self, name):
            raise OSError("disk full")

    for use in (
        lambda t: t.log(ROWS[0], 1, "train"),
        lambda t: t.table("sites", pd.DataFrame({"a": [1]})),
        lambda t: t.summary({"a": 1}),
        lambda t: t.artifact(tmp_path / "nowhere", "model", "model"),
    ):
        caplog.clear()
        tracker = Tracker(Broken(), tmp_path)
        for _ in range(3):
            use(tracker)
        tracker.finish(0)
        assert not tracker.active
        assert len(told(caplog)) == 1


def test_a_wandb_that_cannot_start_leaves_the_run_alone(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(wandb, "init", lambda **_: 1 / 0)
    tracker = opened(tmp_path / "run")
    tracker.log(ROWS[0], 1, "train")
    tracker.finish(0)
    assert not tracker.active and "ZeroDivisionError" in caplog.text


def test_uploads_that_do_not_end_are_named(tmp_path, caplog):
    class Slow:
        def finish(self, exit_code):
            raise TimeoutError

    Tracker(Slow(), tmp_path).finish(0)
    assert f"wandb sync --include-online {tmp_path}" in caplog.text


def test_artifacts_and_long_tables(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "MAX_TABLE_ROWS", 10)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.bin").write_bytes(b"x" * 100)
    tracker = opened(tmp_path / "run")
    tracker.table("training", pd.DataFrame({"step": range(95)}))
    tracker.artifact(tmp_path / "model", "sparse model", "model")
    tracker.artifact(tmp_path / "model" / "weights.bin", "weights", "model")
    assert tracker.active
    tracker.finish(0)
    [table] = tracker.directory.rglob("*.table.json")
    assert [row[0] for row in json.loads(table.read_text())["data"]] == list(range(0, 95, 10))
    artifacts = [r.artifact.name for r in records(tracker.directory) if r.HasField("artifact")]
    assert set(artifacts) >= {"sparse-model", "weights"}


def test_tracking_leaves_the_random_state_alone(tmp_path):
    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tobytes()
    tracker = opened(tmp_path / "run")
    tracker.log(ROWS[0], 1, "train")
    tracker.finish(0)
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == before


def test_off_does_not_import_wandb(tmp_path):
    code = (
        "import sys; from bridges.storage.tracking import open_tracker; "
        f"t = open_tracker('off', {str(tmp_path)!r}, 'p'); t.log({{'a': 1}}, 1, 'x'); t.table('x', None); "
        "t.summary({}); t.artifact('x', 'y', 'z'); t.finish(0); assert 'wandb' not in sys.modules"
    )
    root = Path(tracking.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
    assert list(tmp_path.iterdir()) == []


def test_what_w_and_b_limits_is_cut_or_refused(tmp_path):
    tracker = open_tracker("offline", tmp_path, "p" * 128, name="n" * 200, group="g" * 128, tags=["t" * 64])
    assert tracker.active
    tracker.finish(0)
    [run] = [r.run for r in records(tracker.directory) if r.WhichOneof("record_type") == "run"][:1]
    assert run.display_name == "n" * 128 and run.run_group == "g" * 128
    for wrong, message in (
        ({"project": "p" * 129}, r"tracking\.project has 129 characters; W&B takes 128"),
        ({"project": "a:b"}, r"W&B takes no : in a project's name"),
        ({"group": "g" * 129}, r"tracking\.group has 129"),
        ({"tags": ["fine", "t" * 65]}, r"the tag 't{20}'… has 65 characters; W&B takes 64"),
        ({"tags": [""]}, "empty tag"),
    ):
        with pytest.raises(ConfigError, match=message):
            TrackingConfig(**wrong)


def test_an_unknown_mode_is_named():
    with pytest.raises(ConfigError, match="Did you mean 'offline'"):
        open_tracker("ofline", "x", "p")
