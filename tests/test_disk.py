"""A full disk: one message that says how much to free, and a run that goes on from there."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from bridges.runs import disk
from bridges.runs.disk import bytes_missing, full_message, is_disk_full, readable
from bridges.storage.folder import RunFolder, write_atomically

MIB = 1 << 20


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """``tiny_disk(kib)``: a file system of its own of that size; only root can make one."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(kib: int) -> Path:
        if shutil.which("mount") is None or os.geteuid():
            pytest.skip("only root can mount a file system")
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(place)], capture_output=True)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.decode()}")
        return place

    yield mount
    if os.path.ismount(place):
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_what_libraries_say_of_a_full_disk_is_understood(tiny_disk):
    place = tiny_disk(512)
    big = torch.zeros(400_000)
    writers: dict[str, Callable[[], object]] = {
        "safetensors": lambda: save_file({"a": big}, place / "a"),
        "torch": lambda: torch.save({"a": big}, place / "a"),
        "pyarrow": lambda: pd.DataFrame({"a": np.random.default_rng(0).random(400_000)}).to_parquet(place / "a"),
        "python": lambda: (place / "a").write_text("x" * 1_600_000),
        "ours": lambda: write_atomically(place / "a", "x" * 1_600_000),
    }
    for name, write in writers.items():
        with pytest.raises(Exception) as caught:
            write()
        assert is_disk_full(caught.value), name
        (place / "a").unlink(missing_ok=True)
    # What could not be written whole leaves nothing behind.
    assert list(place.iterdir()) == []


def test_other_errors_are_not_taken_for_a_full_disk():
    assert not is_disk_full(OSError(errno.EACCES, "Permission denied")) and not is_disk_full(RuntimeError("shapes"))
    outer = ValueError("while saving")
    outer.__cause__ = OSError(errno.EDQUOT, "Disk quota exceeded")
    assert is_disk_full(outer)


def test_how_much_to_free(tmp_path, monkeypatch):
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: SimpleNamespace(free=10 * MIB))
    (tmp_path / "config.yaml").write_text("")
    (tmp_path / "weights").write_bytes(b"x" * MIB)
    assert bytes_missing(tmp_path, 301 * MIB) == 290 * MIB
    message = full_message(tmp_path, 301 * MIB)
    assert "Free about 290 MiB" in message and f"python -m bridges.run resume={tmp_path}" in message
    assert "the same command" in full_message(tmp_path / "nowhere", None)
    assert readable(5 * MIB // 2) == "3 MiB" and readable(3 << 30) == "3.0 GiB"


def test_a_failure_is_recorded_once_the_unfinished_is_gone(tiny_disk):
    place = tiny_disk(256)
    folder = RunFolder(place)
    folder.write_status("running", stages={})
    with pytest.raises(OSError), folder.failure_recorded(), folder.stage("train"):
        (place / "checkpoints" / ".step-3.tmp").mkdir(parents=True)
        # A whole part lies beside the one that does not fit any more.
        (place / "checkpoints" / ".step-3.tmp" / "optimizer.pt").write_bytes(b"x" * 400_000)
    assert folder.status["status"] == "failed" and not list(place.rglob(".*.tmp"))


def test_a_run_on_a_full_disk_ends_in_one_message_and_goes_on(command, cli, tiny_disk):
    place = tiny_disk(5 * 1024)
    ballast = place / "ballast"
    # Room for the beginning and a checkpoint or so, not for two and the next.
    ballast.write_bytes(b"x" * 4 * MIB)
    given = command(f"runs_dir={place}", "name=full", "kernels=python", "behaviours=none", "train.checkpoint_every=2")
    code, out, err = cli(*given[3:])
    assert code == 1, out
    assert err.splitlines()[-1].startswith("error: The disk that holds") and "Traceback" not in out + err
    assert "Free about" in err and f"resume={place / 'full'}" in err
    status = RunFolder(place / "full").status
    assert status["status"] == "failed" and status["stages"]["train"]["status"] == "failed"
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=200m", str(place)], check=True)
    code, out, err = cli(f"resume={place / 'full'}")
    assert code == 0, out + err
    assert RunFolder(place / "full").status["status"] == "finished"
