"""Room on the disk: how much a run takes, and what to say when there is none left."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import numpy as np

from bridges.data.blocks import TokenBlocks
from bridges.training.plan import Plan

MIB = 1 << 20
# Tables, report, circuits and what a file system needs for itself.
_REST = 64 * MIB
# A full disk in the words of the libraries that write in their own languages.
_WORDS = ("No space left on device", "Disk quota exceeded", "PytorchStreamWriter failed", "unexpected pos ")


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that a disk or a quota is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(words in str(error) for words in _WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


def bytes_needed(plan: Plan, checkpoints: int, data: TokenBlocks | None = None) -> int:
    """About how many bytes a run's folder comes to have at most.

    A checkpoint holds fp32 weights and two moments of the sparse model and the bridges; one is written before the
    oldest is removed. The finished model and bridges are the weights alone.

    Args:
        checkpoints: how many are kept. data: the text, whose tokens may lie in files of the folder.
    """
    trained = plan.sparse_parameters + plan.bridge_parameters
    text = sum(rows.nbytes for rows in data.blocks.values() if isinstance(rows, np.memmap)) if data else 0
    return 12 * trained * (checkpoints + 1) + 4 * trained + text + _REST


def bytes_missing(folder: Path, needed: int | None) -> int:
    """How many bytes must be freed before the run in ``folder`` can be done; negative where there is room.

    Args:
        needed: of the whole folder; None where that is not known yet.
    """
    free = shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free
    held = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file() and not f.is_symlink())
    return (_REST if needed is None else max(needed - held, _REST)) - free


def full_message(folder: Path, needed: int | None) -> str:
    """What to do about a full disk: how much to free, and how to go on."""
    amount = max(bytes_missing(folder, needed), MIB)
    again = f"python -m bridges.run resume={folder}" if (folder / "config.yaml").exists() else "the same command"
    return (
        f"The disk that holds {folder} is full. Free about {readable(amount)} on it, then go on with: {again}. "
        "What was written before is whole."
    )


def readable(size: int) -> str:
    """``3.2 GiB`` or ``85 MiB``."""
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{-(-size // MIB)} MiB"
