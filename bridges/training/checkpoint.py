"""Checkpoints that are whole or absent: written under a temporary name, flushed, then renamed."""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from bridges.errors import CheckpointError, DivergenceError, in_brief
from bridges.shards import load_whole_state, whole_state
from bridges.training.optimizers import OptimizerSet

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """How far a training is.

    Attributes:
        step: optimizer steps done; it decides data position, schedules and sampled sites.
        seconds: time spent training, over all sessions.
        training, timing: rows of those two tables so far.
        crossing_means: running KL of every crossing, see `crossings.Sampler`.
    """

    step: int
    seconds: float
    training: list[dict[str, Any]]
    timing: list[dict[str, Any]]
    crossing_means: dict[str, list[float]] = field(default_factory=dict)


def _flush(folder: Path) -> None:
    for path in [*folder.iterdir(), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _rows(file: Path) -> list[dict[str, Any]]:
    return [{str(k): v for k, v in row.items()} for row in pd.read_parquet(file).to_dict("records")]


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def save_checkpoint(
    folder: Path,
    sparse: nn.Module,
    bridges: nn.Module,
    optimizer: OptimizerSet,
    progress: Progress,
    keep: int,
    write: bool = True,
) -> None:
    """Write ``folder/step-N`` and remove all but the newest ``keep``.

    Whole tensors are written, so that any number of processes can go on from them.

    Args:
        write: whether this is the process that writes; the others must call this too where they hold shards.
    """
    states = {name: whole_state(module, write) for name, module in (("sparse", sparse), ("bridges", bridges))}
    stepped = optimizer.whole_state_dict(write)
    if not write:
        return
    folder.mkdir(parents=True, exist_ok=True)
    target, temporary = folder / f"step-{progress.step}", folder / f".step-{progress.step}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    for name, state in states.items():
        save_file(state, temporary / f"{name}.safetensors")
    torch.save(
        {
            "optimizer": stepped,
            "rng": torch.get_rng_state(),
            "step": progress.step,
            "seconds": progress.seconds,
            "crossing_means": progress.crossing_means,
        },
        temporary / "optimizer.pt",
    )
    pd.DataFrame(progress.training).to_parquet(temporary / "training.parquet")
    pd.DataFrame(progress.timing).to_parquet(temporary / "timing.parquet")
    _flush(temporary)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
    for old in sorted(folder.glob("step-*"), key=_step_of)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(folder: Path, sparse: nn.Module, bridges: nn.Module, optimizer: OptimizerSet) -> Progress | None:
    """Load the newest readable checkpoint in place; None where there is none at all.

    A damaged one is passed over with a warning for the one before it.

    Raises:
        CheckpointError: there are checkpoints and none can be read.
    """
    found = sorted(folder.glob("step-*"), key=_step_of, reverse=True) if folder.exists() else []
    reasons = []
    for path in found:
        try:
            states = {name: load_file(path / f"{name}.safetensors") for name in ("sparse", "bridges")}
            saved = torch.load(path / "optimizer.pt", weights_only=True)
            progress = Progress(
                saved["step"],
                saved["seconds"],
                _rows(path / "training.parquet"),
                _rows(path / "timing.parquet"),
                saved.get("crossing_means", {}),
            )
        except Exception as error:
            reasons.append(f"{path.name}: {in_brief(error)}")
            log.warning("Checkpoint %s cannot be read (%s); trying the one before it.", path, in_brief(error))
            continue
        try:
            load_whole_state(sparse, states["sparse"])
            load_whole_state(bridges, states["bridges"])
            optimizer.load_whole_state_dict(saved["optimizer"])
        except (RuntimeError, ValueError) as error:
            example = str(error).splitlines()[-1].strip()
            raise CheckpointError(
                f"Checkpoint {path} is of a model with other shapes than this run's settings give: was config.yaml "
                "changed by hand, or is the pair that sparse.init names another one now? The pair that ships changes "
                f"between versions of Bridges; resume with the version that began the run. ({example})"
            ) from error
        torch.set_rng_state(saved["rng"])
        return progress
    if found:
        raise CheckpointError(
            f"No checkpoint in {folder} can be read ({'; '.join(reasons)}). "
            f"Remove that folder to train again from the start with the same settings."
        )
    return None


def check_finite(
    values: Mapping[str, float], terms: Collection[str], grad_rms: float, step: int, steps: int, checkpoints: Path
) -> None:
    """Refuse to go on from a step that is not finite, before any weight is changed.

    Args:
        values: ``total`` and each term of the loss. terms: those that count. grad_rms: over all gradients.
        step: from 0, of ``steps``. checkpoints: their folder.

    Raises:
        DivergenceError: what broke, and the last good state.
    """
    broken = [name for name in values if name in terms and not math.isfinite(values[name])]
    if not broken and math.isfinite(values["total"]) and math.isfinite(grad_rms):
        return
    kept = sorted(checkpoints.glob("step-*"), key=_step_of)
    where = f"in {', '.join(broken)}" if broken else "in the gradients"
    state = f"The last good state is {kept[-1]}." if kept else "No checkpoint had been written yet."
    raise DivergenceError(
        f"NaN or infinity at step {step + 1} of {steps}, first {where}. {state} "
        "Try a lower train.lr or train.bridge_lr, a longer train.warmup, or train.precision=fp32."
    )
