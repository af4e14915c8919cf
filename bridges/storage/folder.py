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
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from bridges.config import Config, from_dict, to_dict
from bridges.errors import CheckpointError, ConfigError


def write_atomically(path: Path, text: str) -> None:
    """Replace ``path`` as a whole, so that a reader or a kill never meets half of it."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


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

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def bridges(self) -> Path:
        return self.path / "bridges"

    # --- config and environment -----------------------------------------------------------------------------------

    @classmethod
    def create(cls, config: Config, path: Path) -> RunFolder:
        """Make the folder and write config and environment; an existing folder must hold the same config.

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
        make_folder(path, "runs_dir=…")
        write_atomically(path / "environment.json", json.dumps(environment(), indent=2) + "\n")
        folder.write_status("running")
        write_atomically(path / "config.yaml", yaml.safe_dump(to_dict(config), sort_keys=False))
        return folder

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
            values = yaml.safe_load(file.read_text())
            assert isinstance(values, dict)
        except (yaml.YAMLError, AssertionError) as error:
            raise CheckpointError(f"{file} is damaged: {error}") from error
        return from_dict(values)

    def _neighbours(self) -> str:
        runs = sorted(p.parent for p in self.path.parent.glob("*/config.yaml"))[-5:]
        return f" Runs beside it: {', '.join(str(r) for r in runs)}." if runs else ""

    # --- status ---------------------------------------------------------------------------------------------------

    @property
    def status(self) -> dict[str, Any]:
        file = self.path / "status.json"
        with contextlib.suppress(OSError, json.JSONDecodeError):
            return json.loads(file.read_text())
        return {"status": "running", "stages": {}, "message": None, "started": _now()}

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
            self.write_status("failed", f"{name}: {type(error).__name__}: {error}", stages)
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
                self.write_status("failed", f"{type(error).__name__}: {error}")
            raise


def _identity(config: Config) -> dict[str, Any]:
    """What makes two runs the same run: everything but where it is written and how it is tracked."""
    values = to_dict(config)
    for key in ("runs_dir", "name", "resume", "tracking"):
        values.pop(key)
    return values


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
    label = re.sub(r"[^A-Za-z0-9._-]+", "-", config.model.label)
    name = f"{label}-sparsity{config.sparsity:g}-seed{config.seed}"
    return f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{name}" if unique else f"{name}-{config_hash(config)}"


def environment() -> dict[str, Any]:
    """Versions, commit, machine: what is needed to judge whether a run can be repeated."""
    import torch

    packages = ("bridges", "torch", "transformers", "accelerate", "numpy", "pandas", "tokenizers", "wandb")
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
