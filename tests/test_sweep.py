"""A sweep of which a job's process dies: the summary, the dead job as failed, one message, exit status 1."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bridges.cli import sweep
from bridges.cli.overrides import launcher_missing
from bridges.cli.sweep import GONE, Outcome, summarise
from bridges.storage.folder import RunFolder


def _dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    """A sweep of four jobs: finished, failed, dead in a run that says it is running, and still at work."""
    states = (("finished", "seed=0"), ("failed", "seed=1"), ("running", "seed=2"), ("running", "seed=10"))
    for number, (status, override) in enumerate(states):
        run = RunFolder(tmp_path / "runs" / override)
        run.path.mkdir(parents=True)
        run.write_status("running", stages={"train": {"status": "running", "seconds": 1.0}})
        outcome = Outcome(tmp_path / "sweep" / str(number if number < 3 else 10), [override])
        outcome.write(status=status, folder=str(run.path), **({"message": "because"} if status == "failed" else {}))
    file = tmp_path / "sweep" / "2" / sweep.FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | {"pid": _dead_process()}))
    return tmp_path


def test_a_job_whose_process_is_gone_has_failed(jobs, capsys):
    message = summarise(jobs / "sweep")
    lines = capsys.readouterr().out.strip().splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [
        ["finished", "seed=0"],
        ["failed", "seed=1"],
        ["failed", "seed=2"],
        ["running", "seed=10"],
    ]
    assert "because" in lines[2] and GONE in lines[3]
    assert message.startswith("2 of 4 jobs failed. The same command")
    dead, alive = (RunFolder(jobs / "runs" / name).status for name in ("seed=2", "seed=10"))
    assert (dead["status"], dead["message"]) == ("failed", GONE) and alive["status"] == "running"
    assert dead["stages"]["train"]["status"] == "running"  # how far it came stays on record
    assert summarise(jobs / "sweep") == message


def test_a_job_on_another_machine_is_taken_to_be_at_work(jobs):
    file = jobs / "sweep" / "2" / sweep.FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | {"host": "elsewhere"}))
    assert summarise(jobs / "sweep").startswith("1 of 4 jobs failed")


def test_a_damaged_record_does_not_hide_the_others(jobs, capsys):
    (jobs / "sweep" / "0" / sweep.FILE).write_text("{")
    assert summarise(jobs / "sweep").startswith("3 of 4 jobs failed")
    assert "is damaged" in capsys.readouterr().out


@pytest.mark.skipif(launcher_missing("joblib") is not None, reason="its plugin is not installed")
def test_a_worker_of_joblib_s_is_killed(command: Callable[..., list[str]], tmp_path: Path) -> None:
    given = command("seed=0,1", "launcher=joblib", "behaviours=none", "kernels=python", f"runs_dir={tmp_path}")
    given.insert(3, "-m")
    env = os.environ | {"BRIDGES_ALLOCATOR": "off", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(given, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline, worker = time.monotonic() + 600, None
    while worker is None and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
        for file in tmp_path.glob(f".sweeps/*/*/{sweep.FILE}"):
            outcome = json.loads(file.read_text())
            if outcome["status"] == "running" and (Path(outcome.get("folder", "")) / "status.json").is_file():
                worker = outcome
    assert worker is not None, process.communicate()
    os.kill(worker["pid"], signal.SIGKILL)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 1 and "Traceback" not in out + err, out + err
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "The sweep ended early" in errors[0] and "The same command" in errors[0]
    assert f"failed    {' '.join(worker['overrides'])}" in out, out
    assert RunFolder(worker["folder"]).status["status"] == "failed"
    statuses = [RunFolder(f.parent).status["status"] for f in tmp_path.glob("*/status.json")]
    assert "running" not in statuses
