"""A run's folder: where everything of one run lies, and how far it has come."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from bridges.config import BOOKKEEPING, Config, from_dict, to_dict
from bridges.config.paths import absolute
from bridges.errors import CheckpointError, ConfigError, in_brief

# Characters of the dense model's name in that of a run's folder.
MAX_LABEL = 80


def write_atomically(path: Path, text: str) -> None:
    """Replace ``path`` as a whole, so that a reader or a kill never meets half of it."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a run's folder.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {in_brief(error)}.") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} is damaged: it holds no object.")
    return values


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """An empty folder to write into, which comes to be called ``path`` where the block ends well: it appears whole or
    not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    yield temporary
    os.replace(temporary, path)


def make_folder(path: Path, setting: str) -> None:
    """Make a folder and those above it.

    Args:
        setting: which names it, for the message.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{path} cannot be made: {error}. Choose another folder with {setting}.") from error


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


class RunFolder:
    """The folder of one run (``config.yaml``, ``environment.json``, ``status.json``, checkpoints, models, tables)."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        # Bytes that the folder comes to have, once that is known.
        self.needed: int | None = None

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def text(self) -> Path:
        """Where tokens of a text from the Hub lie until the run is finished."""
        return self.path / ".text"

    @property
    def bridges(self) -> Path:
        return self.path / "bridges"

    # --- config and environment -----------------------------------------------------------------------------------

    @classmethod
    def create(cls, config: Config, path: Path) -> RunFolder:
        """Make the folder and write config and environment; an existing folder must hold the same config.

        Paths are written as absolute ones.

        Raises:
            ConfigError: the folder belongs to a run with other settings.
        """
        folder = cls(path)
        if (path / "config.yaml").exists():
            if _identity(folder.config) != _identity(config):
                raise ConfigError(
                    f"{path} holds a run with other settings. Give another name=…, or resume={path} to go on with it."
                )
            return folder
        # What is allowed once is not allowed for ever.
        stored = replace(absolute(config), allow_changed=False)
        make_folder(path, "runs_dir=…")
        write_atomically(path / "environment.json", json.dumps(environment(), indent=2) + "\n")
        folder.write_status("running")
        write_atomically(path / "config.yaml", yaml.safe_dump(to_dict(stored), sort_keys=False))
        return folder

    def discard(self, existed: bool) -> None:
        """Remove what a run that computed nothing has left.

        Args:
            existed: whether the folder was there before the run; then what else lies in it stays.
        """
        if not existed:
            shutil.rmtree(self.path, ignore_errors=True)
            return
        shutil.rmtree(self.path / "wandb", ignore_errors=True)
        for name in ("config.yaml", "environment.json", "status.json", "inputs.json"):
            (self.path / name).unlink(missing_ok=True)

    @property
    def computed(self) -> bool:
        """Whether anything lies here that took work: training has begun, or something is written."""
        began = "train" in self.status["stages"]
        read = any(self.text.glob("[!.]*"))
        return began or read or any((self.path / n).exists() for n in ("checkpoints", "model", "bridges", "tables"))

    @property
    def config(self) -> Config:
        """The config the run was made with.

        Raises:
            CheckpointError: there is no run here, or its config is damaged.
        """
        file = self.path / "config.yaml"
        if not file.exists():
            raise CheckpointError(f"{self.path} is no run folder: it has no config.yaml.{self._neighbours()}")
        try:
            values = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, OSError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{file} is damaged: {' '.join(str(error).split())}") from error
        if not isinstance(values, dict):
            raise CheckpointError(f"{file} is damaged: it holds no settings.")
        return from_dict(values)

    def _neighbours(self) -> str:
        runs = sorted(p.parent for p in self.path.parent.glob("*/config.yaml"))[-5:]
        return f" Runs beside it: {', '.join(str(r) for r in runs)}." if runs else ""

    # --- status ---------------------------------------------------------------------------------------------------

    @property
    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = {"status": "running", "stages": {}, "message": None, "started": _now()}
        with contextlib.suppress(CheckpointError):
            status |= read_json(self.path / "status.json")
        return status

    def write_status(self, status: str, message: str | None = None, stages: dict | None = None) -> None:
        """Record ``running``, ``finished`` or ``failed``."""
        old = self.status if (self.path / "status.json").exists() else {"stages": {}, "started": _now()}
        new = {
            "status": status,
            "stages": stages if stages is not None else old["stages"],
            "message": message,
            "started": old["started"],
            "updated": _now(),
        }
        write_atomically(self.path / "status.json", json.dumps(new, indent=2) + "\n")

    def done(self, stage: str) -> bool:
        """Whether a stage has finished."""
        return self.status["stages"].get(stage, {}).get("status") == "finished"

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Record a stage's status and seconds around its work; a failure is recorded with its message."""
        import time

        stages = self.status["stages"]
        before = stages.get(name, {}).get("seconds", 0.0)
        stages[name] = {"status": "running", "seconds": before}
        self.write_status("running", stages=stages)
        started = time.monotonic()
        try:
            yield
        except BaseException as error:
            stages[name] = {"status": "failed", "seconds": round(before + time.monotonic() - started, 3)}
            self._record_failure(f"{name}: {type(error).__name__}: {error}", stages)
            raise
        stages[name] = {"status": "finished", "seconds": round(before + time.monotonic() - started, 3)}
        self.write_status("running", stages=stages)

    @contextmanager
    def failure_recorded(self) -> Iterator[None]:
        """Record an error that no stage has recorded, such as one before the first of them or between two."""
        try:
            yield
        except BaseException as error:
            if self.status["status"] == "running":
                self._record_failure(f"{type(error).__name__}: {error}")
            raise

    def _record_failure(self, message: str, stages: dict | None = None) -> None:
        """Write ``failed``. Where the disk is full, what was being written makes room for it; where there still is
        none, the error that is on its way says more than this one would."""
        try:
            self.write_status("failed", message, stages)
        except OSError:
            self._remove_temporary()
            with contextlib.suppress(OSError):
                self.write_status("failed", message, stages)

    def _remove_temporary(self) -> None:
        """Remove files and folders that were not finished."""
        for path in list(self.path.rglob(".*.tmp")):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _identity(config: Config) -> dict[str, Any]:
    """What makes two runs the same run: everything but `BOOKKEEPING`, however its paths are spelt."""
    values = to_dict(absolute(config))
    return {key: value for key, value in values.items() if key not in BOOKKEEPING}


def config_hash(config: Config) -> str:
    """Eight hexadecimal digits over everything that decides a run's tables."""
    import hashlib

    text = json.dumps(_identity(config), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def folder_name(config: Config, unique: bool) -> str:
    """The default name of a run's folder.

    Args:
        unique: with date and time (a run by hand); without, the name follows from the settings alone, so that a
            repeated sweep finds what it has already done.
    """
    if config.name:
        return config.name
    # A Hub id or a folder's name may be longer than file systems allow.
    label = re.sub(r"[^A-Za-z0-9._-]+", "-", config.model.label)[:MAX_LABEL]
    name = f"{label}-sparsity{config.sparsity:g}-seed{config.seed}"
    return f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{name}" if unique else f"{name}-{config_hash(config)}"


def environment() -> dict[str, Any]:
    """Versions, commit, machine: what is needed to judge whether a run can be repeated."""
    import torch

    packages = ("bridges-interp", "torch", "transformers", "accelerate", "numpy", "pandas", "tokenizers", "wandb")
    versions = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": platform.processor(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "versions": versions,
        "commit": _commit(),
        "command": sys.orig_argv,
    }


def _commit() -> str | None:
    here = Path(__file__).parent
    try:
        out = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return out.stdout.strip() or None
