"""Kill -9 at random moments: what is resumed ends in the same bytes as a run nobody disturbed.

    pytest -m slow -s tests/test_kill.py

takes some minutes and prints where each kill fell. ``BRIDGES_KILL_SEED`` draws other moments.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bridges.storage.folder import RunFolder

KILLS, STEPS = 10, 300
ENVIRONMENT = {"BRIDGES_ALLOCATOR": "off", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def start(arguments: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """A process of the command, at the moment it first touches its folder: before that there is nothing to lose."""
    status = folder / "status.json"
    before = status.stat().st_mtime_ns if status.exists() else None
    process = subprocess.Popen(
        arguments, env=os.environ | ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and (not status.exists() or status.stat().st_mtime_ns == before):
        time.sleep(0.005)
    return process


def moment(folder: Path) -> str:
    """Where a killed run was: its stage, and the newest checkpoint."""
    running = [name for name, stage in RunFolder(folder).status["stages"].items() if stage["status"] == "running"]
    steps = [int(p.name.removeprefix("step-")) for p in folder.glob("checkpoints/step-*")]
    return f"{running[0] if running else 'between'}@{max(steps, default=0)}"


def progress(folder: Path) -> float:
    """How far a run is: finished stages, and the checkpointed share of the training under way."""
    stages = RunFolder(folder).status["stages"].values()
    steps = [int(p.name.removeprefix("step-")) for p in folder.glob("checkpoints/step-*")]
    done = sum(stage["status"] == "finished" for stage in stages)
    return done + (max(steps, default=0) / STEPS if done == 1 else 0)


def wait_until(process: subprocess.Popen[bytes], folder: Path, mark: float) -> None:
    """Until the run is that far or has ended; a loaded machine takes longer, and the moment stays the same."""
    while process.poll() is None and progress(folder) < mark:
        time.sleep(0.005)


def results(folder: Path) -> dict[str, bytes]:
    """Everything a finished run leaves that must not depend on its history."""
    files = [f for f in (folder / "tables").iterdir() if f.stem != "timing"]
    files += [*folder.glob("report.html"), *folder.glob("circuits/*.json")]
    files += [*folder.glob("model/*.safetensors"), *folder.glob("bridges/*.safetensors")]
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(files)}


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_nothing(command: Callable[..., list[str]], workplace: Path) -> None:
    runs = workplace / "kills"
    mine = (f"train.tokens={STEPS * 64}", "train.checkpoint_every=20", "eval.bootstrap=200", f"runs_dir={runs}")
    process = start(command(*mine, "name=whole"), runs / "whole")
    begun = time.monotonic()
    assert process.wait() == 0
    life, stages = time.monotonic() - begun, progress(runs / "whole")
    whole = results(runs / "whole")
    assert {"tables/training.parquet", "tables/paths.parquet", "model/model.safetensors"} <= whole.keys()

    rng = np.random.default_rng(int(os.environ.get("BRIDGES_KILL_SEED", "0")))
    moments: list[str] = []
    runs_done = 0
    while len(moments) < KILLS:
        folder = runs / f"killed-{runs_done}"
        arguments = command(*mine, f"name={folder.name}")
        while True:
            process = start(arguments, folder)
            try:
                if len(moments) < KILLS:
                    # Less than a stage at a time, so that the kills spread over the run.
                    wait_until(process, folder, min(progress(folder) + rng.uniform(0, 0.7), stages))
                code = process.wait(rng.uniform(0, 0.1 * life) if len(moments) < KILLS else None)
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                moments.append(moment(folder))
                arguments = [sys.executable, "-m", "bridges.run", f"resume={folder}"]
        assert code == 0 and RunFolder(folder).status["status"] == "finished"
        again = results(folder)
        assert again.keys() == whole.keys()
        assert [name for name in whole if again[name] != whole[name]] == []
        runs_done += 1
    print(f"\n{KILLS} kills in {runs_done} runs of {life:.1f} s each: {', '.join(moments)}")
