"""Tiny trainings that the tests of the loop and of its checkpoints share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from bridges.config import Config, DataConfig, SparseConfig, TrainConfig
from bridges.training.loop import Trainer

CONTEXT = 8


class Stopped(Exception):
    """What an interrupted training ends with here."""


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


@pytest.fixture
def make_trainer(make_pair, tiny_blocks, accelerator, tmp_path) -> Callable[..., Trainer]:
    """``make_trainer(folder, seed, steps, log_row, sparsity, **train settings)``; the weights follow from ``seed``."""

    def make(
        folder: str = "run",
        seed: int = 0,
        steps: int = 6,
        log_row=lambda row, step: None,
        sparsity: float = 0.3,
        train_bigram: bool = True,
        **train,
    ) -> Trainer:
        pair = make_pair(seed)
        settings = {"batch": 4, "lr": 0.01, "precision": "fp32", "log_every": 1, "checkpoint_every": 100} | train
        settings["tokens"] = steps * settings["batch"] * CONTEXT
        config = Config(
            sparsity=sparsity,
            data=DataConfig(context=CONTEXT),
            sparse=SparseConfig(floor=2, train_bigram=train_bigram),
            train=TrainConfig(**settings),
        )
        # The dense stack stays the same one whatever the trained weights start from.
        dense = make_pair(0).dense
        return Trainer(config, dense, pair.sparse, pair.bridges, tiny_blocks(), accelerator, tmp_path / folder, log_row)

    return make


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    states = {"sparse": trainer.sparse.state_dict(), "bridges": trainer.bridges.state_dict()}
    return {f"{part}.{name}": value.clone() for part, state in states.items() for name, value in state.items()}


def assert_identical(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def steps_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def stop_at(wanted: int):
    def log_row(row, step) -> None:
        if step == wanted:
            raise Stopped

    return log_row
