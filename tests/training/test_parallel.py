"""Training on two processes: the tables and weights of one, whichever engine spreads it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from accelerate import Accelerator

from bridges.errors import ConfigError
from bridges.training.parallel import strategy

from . import worker

HERE = Path(__file__).parent
ENGINES: dict[str, dict[str, str]] = {"ddp": {}}


def launch(*arguments: str, processes: int = 2, **environment: str) -> subprocess.CompletedProcess[str]:
    """`worker.py` on several processes of this machine."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    root = str(HERE.parent.parent)
    env = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": root} | environment
    return subprocess.run(
        [*command, str(HERE / "worker.py"), *arguments], capture_output=True, text=True, timeout=300, env=env
    )


@pytest.fixture(scope="module")
def spread(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what two processes made of every variant, by each engine."""
    folder = tmp_path_factory.mktemp("spread")
    for engine, environment in ENGINES.items():
        done = launch(str(folder), engine, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Warning" not in done.stderr, done.stderr
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, accelerator: Accelerator) -> dict[str, dict[str, Any]]:
    """The same of one process."""
    folder = tmp_path_factory.mktemp("alone")
    return {variant: worker.train(folder, accelerator, variant) for variant in worker.VARIANTS}


@pytest.mark.parametrize("variant", worker.VARIANTS)
@pytest.mark.parametrize("engine", ENGINES)
def test_two_processes_give_the_table_and_weights_of_one(spread: Path, alone, engine: str, variant: str) -> None:
    one, two = alone[variant], torch.load(spread / f"{engine}-{variant}.pt")
    pd.testing.assert_frame_equal(pd.DataFrame(two["rows"]), pd.DataFrame(one["rows"]), rtol=1e-4, atol=1e-6)
    assert two["weights"].keys() == one["weights"].keys()
    for name, value in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], value, rtol=1e-4, atol=1e-5, msg=name)
        # The projection leaves the very same weights.
        assert torch.equal(two["weights"][name] != 0, value != 0), name


# --- what is refused --------------------------------------------------------------------------------------------------


class _Launched:
    """What an `Accelerator` says of itself."""

    def __init__(self, processes: int, kind: Any):
        self.num_processes, self.distributed_type = processes, kind


def test_an_engine_that_bridges_does_not_train_on_is_refused() -> None:
    from accelerate.utils import DistributedType

    with pytest.raises(ConfigError, match=r"DEEPSPEED.*accelerate launch --multi_gpu"):
        strategy(_Launched(2, DistributedType.DEEPSPEED))  # type: ignore[arg-type]
    assert strategy(_Launched(2, DistributedType.MULTI_GPU)) == "ddp"  # type: ignore[arg-type]
    assert strategy(_Launched(1, DistributedType.NO)) == "one"  # type: ignore[arg-type]
