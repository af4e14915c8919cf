"""Run folders with every table filled in by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bridges.storage.tables import write_table

from .circuit_frames import write_circuits
from .frames import NASTY, training_frame, write_behaviours, write_fidelity, write_files, write_verdicts


def full_run(folder: Path, seed: int = 0, size: int = 2) -> Path:
    """A run with every table; ``size`` is the number of nodes in each layer and kind of a random circuit."""
    rng = np.random.default_rng(seed)
    write_files(folder, seed)
    write_table(folder, "training", training_frame(rng))
    write_fidelity(folder, rng)
    write_behaviours(folder)
    write_circuits(folder, rng, size)
    write_verdicts(folder)
    return folder


def old_run(folder: Path, seed: int = 0) -> Path:
    """A run that came as far as the evaluation."""
    rng = np.random.default_rng(seed)
    write_files(folder, seed)
    stages = {"train": {"status": "finished"}, "evaluate": {"status": "finished"}}
    (folder / "status.json").write_text(json.dumps({"status": "finished", "stages": stages}))
    write_table(folder, "training", training_frame(rng))
    write_fidelity(folder, rng)
    (folder / "tables" / "similarity.parquet").unlink()
    return folder


@pytest.fixture
def make_full() -> Callable[..., Path]:
    """``make_full(folder, seed, size)``: see `full_run`."""
    return full_run


@pytest.fixture
def make_old() -> Callable[..., Path]:
    """``make_old(folder, seed)``: see `old_run`."""
    return old_run


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every table; tests do not change it."""
    return full_run(tmp_path_factory.mktemp("report") / "full")


@pytest.fixture(scope="session")
def nasty() -> str:
    """A behaviour's name that tries to end the script."""
    return NASTY
