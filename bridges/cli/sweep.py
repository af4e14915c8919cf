"""The jobs of a sweep: what each leaves on record, one line per job at the end, and an exit status that tells of
failures."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import psutil
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from bridges.errors import CheckpointError
from bridges.storage.folder import RunFolder, make_folder, read_json, write_atomically

FILE = "outcome.json"
GONE = "its process ended without a word: killed, or out of memory"
AGAIN = "The same command does what is left, tries failed jobs again and skips the others."


class Outcome:
    """What one job leaves in its folder of the sweep: ``outcome.json``, from its beginning on.

    Args:
        place: the job's folder of the sweep. overrides: its settings.
        main: whether this process keeps the record; of several that train together one does.
    """

    def __init__(self, place: Path, overrides: list[str], main: bool = True):
        make_folder(place, "hydra.sweep.dir=…")
        self.main = main
        self._file = place / FILE
        self.values: dict[str, Any] = {"overrides": overrides, "status": "running"}
        self.write(pid=os.getpid(), host=socket.gethostname())

    def write(self, **values: Any) -> None:
        """Add to what is on record."""
        self.values |= values
        if not self.main:
            return
        write_atomically(self._file, json.dumps(self.values, indent=2) + "\n")


class SweepSummary(Callback):
    """Prints every job's outcome; the process ends with status 1 if any failed."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        global _folder
        _folder = Path(config.hydra.sweep.dir).absolute()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        message = summarise(Path(config.hydra.sweep.dir))
        if message:
            print(message)
            sys.exit(1)


# Of the sweep that this process has begun.
_folder: Path | None = None


def begun() -> Path | None:
    """The folder of the sweep of which this process has begun a job; None where there is none."""
    return _folder if _folder is not None and any(_folder.glob(f"*/{FILE}")) else None


def summarise(folder: Path) -> str:
    """Print one line per job, and count those as failed whose process is gone; their runs' folders say so too.

    Returns:
        how many failed, in words, or nothing.
    """
    outcomes = []
    for file in sorted(folder.glob(f"*/{FILE}"), key=lambda f: (len(f.parent.name), f.parent.name)):
        try:
            outcome = read_json(file)
        except CheckpointError as error:
            outcome = {"overrides": [], "status": "failed", "message": str(error)}
        if outcome["status"] == "running" and not _alive(outcome):
            outcome |= {"status": "failed", "message": GONE}
            _record_death(outcome)
            write_atomically(file, json.dumps(outcome, indent=2) + "\n")
        outcomes.append(outcome)
    print("\nSweep:")
    for outcome in outcomes:
        words = outcome.get("message") if outcome["status"] == "failed" else outcome.get("folder")
        print(f"  {outcome['status']:<9} {' '.join(outcome['overrides'])}  {words or ''}", flush=True)
    failed = sum(o["status"] == "failed" for o in outcomes)
    return f"{failed} of {len(outcomes)} jobs failed. {AGAIN}" if failed else ""


def _alive(outcome: dict[str, Any]) -> bool:
    """Whether a job's process is still there; of another machine's nothing is known, and it is taken to be."""
    if outcome.get("host") != socket.gethostname():
        return True
    try:
        return psutil.Process(outcome["pid"]).status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, KeyError):
        return False


def _record_death(outcome: dict[str, Any]) -> None:
    """Write into a dead job's run that it failed, unless the run has got further than the job's own record."""
    if "folder" in outcome and Path(outcome["folder"]).is_dir():
        run = RunFolder(outcome["folder"])
        if run.status["status"] == "running":
            run.write_status("failed", GONE)
