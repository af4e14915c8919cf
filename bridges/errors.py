"""The errors a user can cause. Each message says what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BridgesError(Exception):
    """A problem the user can mend; the command line prints its message alone, without a traceback."""


class ConfigError(BridgesError):
    """A setting is misspelt, has the wrong type or does not fit another one."""


class ModelError(BridgesError):
    """A model cannot be found, loaded, or expressed as a residual stack."""


class DataError(BridgesError):
    """A corpus cannot be found, read, or is too small for what is asked of it."""


class MemoryBudgetError(BridgesError):
    """What was asked for cannot fit into the memory of the machine."""


class CheckpointError(BridgesError):
    """A run folder or one of its checkpoints is incomplete or damaged."""


class DiskFullError(BridgesError):
    """The disk that a run writes to has no room left."""


class Interrupted(BridgesError):
    """The user ended the command; a sweep does not go on with its next job."""


class ProcessLost(BridgesError):
    """Another of the processes that train together has ended, and with it all of them."""


class HubError(BridgesError):
    """The Hugging Face Hub cannot be reached, or has not or will not do what is asked of it."""


class DivergenceError(BridgesError):
    """The loss or a gradient became NaN or infinite."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """A sentence that names the closest valid choices.

    Args:
        name: what was given.
        valid: what would have been accepted.

    Returns:
        ``"Did you mean 'a' or 'b'? Valid: a, b, c."``, the question only where something is close.
    """
    choices = sorted(str(v) for v in valid)
    close = difflib.get_close_matches(str(name), choices, n=2, cutoff=0.5)
    hint = f"Did you mean {' or '.join(repr(c) for c in close)}? " if close else ""
    return f"{hint}Valid: {', '.join(choices)}."


def in_brief(error: BaseException) -> str:
    """The kind of a library's error and the first line of its text, 200 characters at most.

    PyTorch answers a file of pickled Python objects with the advice to set ``weights_only=False``, which would let
    the file run any code: that error is put in words of our own.
    """
    text = str(error)
    if "weights_only" in text or type(error).__name__ == "UnpicklingError":
        return (
            "the file holds pickled Python objects, which are never loaded, since they can run any code; save the "
            "weights as safetensors, as save_pretrained does"
        )
    if isinstance(error, EOFError) and not text:
        return "a file ends too early"
    return f"{type(error).__name__}: {next(iter(text.splitlines()), '')[:200]}"
