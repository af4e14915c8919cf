"""Training on two processes: the tables and weights of one, whichever engine spreads it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from bridges.config import TrainConfig
from bridges.errors import ConfigError
from bridges.training.parallel import strategy

from . import worker
from .worker import ENGINES

HERE = Path(__file__).parent
# Seconds: far more than an idle machine takes.
PROCESSES, LIMIT = 2, 900


def launch(folder: Path) -> list[tuple[int, str]]:
    """`worker.py` on several processes of this machine; exit status and output of each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    env = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent.parent)}
    env |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": str(PROCESSES)}
    running = [
        subprocess.Popen(
            [sys.executable, str(HERE / "worker.py"), str(folder)],
            env=env | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(PROCESSES)
    ]
    try:
        said = [process.communicate(timeout=LIMIT)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    return [(process.returncode, text) for process, text in zip(running, said, strict=True)]


@pytest.fixture(scope="module")
def alone_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("alone")


@pytest.fixture(scope="module")
def alone(alone_folder: Path, accelerator: Accelerator) -> dict[str, dict[str, Any]]:
    """What one process made of every variant; its checkpoints lie in `alone_folder`."""
    return {variant: worker.train(alone_folder, accelerator, variant) for variant in worker.VARIANTS}


@pytest.fixture(scope="module")
def spread(tmp_path_factory: pytest.TempPathFactory, alone, alone_folder: Path) -> Path:
    """A folder with what two processes made of them, by each engine."""
    folder = tmp_path_factory.mktemp("spread")
    for engine in ENGINES:
        shutil.copytree(alone_folder / "plain" / "step-3", folder / engine / "handed on" / "step-3")
    for status, text in launch(folder):
        assert status == 0 and "Warning" not in text, text
    return folder


def result(folder: Path, engine: str, variant: str, rank: int = 0) -> Any:
    return torch.load(folder / f"{engine}-{variant}-{rank}.pt")


def assert_alike(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """To rounding; which weights are left is the very same."""
    pd.testing.assert_frame_equal(pd.DataFrame(found["rows"]), pd.DataFrame(wanted["rows"]), rtol=1e-4, atol=1e-6)
    assert found["weights"].keys() == wanted["weights"].keys()
    for name, value in wanted["weights"].items():
        torch.testing.assert_close(found["weights"][name], value, rtol=1e-4, atol=1e-5, msg=name)
        assert torch.equal(found["weights"][name] != 0, value != 0), name


@pytest.mark.parametrize("variant", worker.VARIANTS)
@pytest.mark.parametrize("engine", ENGINES)
def test_two_processes_give_the_table_and_weights_of_one(spread: Path, alone, engine: str, variant: str) -> None:
    assert_alike(result(spread, engine, variant), alone[variant])


@pytest.mark.parametrize("engine", ENGINES)
def test_one_process_goes_on_from_what_two_wrote(spread: Path, alone, accelerator, tmp_path, engine: str) -> None:
    shutil.copytree(spread / engine / "plain" / "step-3", tmp_path / "plain" / "step-3")
    assert_alike(worker.train(tmp_path, accelerator, "plain"), alone["plain"])


def test_shards_take_half_of_the_memory_of_weights_and_moments(spread: Path, alone) -> None:
    for variant in worker.VARIANTS:
        whole = alone[variant]["bytes"]
        for rank in (0, 1):
            assert result(spread, "ddp", variant, rank)["bytes"] == whole
            assert 0.45 * whole < result(spread, "fsdp2", variant, rank)["bytes"] < 0.55 * whole


def test_shards_keep_exactly_the_entries_that_the_whole_matrix_would(spread: Path) -> None:
    for rank in (0, 1):
        assert torch.load(spread / f"masks-{rank}.pt") == []


# --- what is refused --------------------------------------------------------------------------------------------------


def launched(processes: int, kind: DistributedType) -> Any:
    """What `strategy` asks an `Accelerator`."""
    return SimpleNamespace(num_processes=processes, distributed_type=kind, state=None)


def test_an_engine_that_bridges_does_not_train_on_is_refused(monkeypatch) -> None:
    with pytest.raises(ConfigError, match=r"DEEPSPEED.*accelerate launch --multi_gpu"):
        strategy(launched(2, DistributedType.DEEPSPEED))
    assert strategy(launched(2, DistributedType.MULTI_GPU)) == "ddp"
    assert strategy(launched(1, DistributedType.NO)) == "one"
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(ConfigError, match=r"FSDP 1.*--fsdp_version 2"):
        strategy(launched(2, DistributedType.MULTI_CPU))


def test_settings_that_do_not_go_with_shards_are_refused(monkeypatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    two = launched(2, DistributedType.MULTI_CPU)
    assert strategy(two, TrainConfig(accumulate=2)) == "fsdp2"
    with pytest.raises(ConfigError, match=r"train\.optimizer=muon.*adamw"):
        strategy(two, TrainConfig(optimizer="muon"))
    monkeypatch.setenv("FSDP_OFFLOAD_PARAMS", "true")
    with pytest.raises(ConfigError, match="--fsdp_offload_params false"):
        strategy(two)
