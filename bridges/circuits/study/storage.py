"""Where a study is kept, and what it is about."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from bridges import __version__
from bridges.behaviours.encoded import EncodedPairs
from bridges.circuits.settings import CircuitSettings
from bridges.circuits.study.ranges import RANGES
from bridges.errors import CheckpointError, ConfigError
from bridges.stack import ResidualStack


def load_optuna() -> Any:
    """Optuna, which only this needs."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ConfigError("Tuning the circuit search needs Optuna: pip install 'bridges[tune]'.") from error
    return optuna


@contextmanager
def quiet(optuna: Any) -> Iterator[None]:
    """Optuna's own log lines off, as `progress` tells the same."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


@contextmanager
def opened(optuna: Any, file: Path | None) -> Iterator[Any]:
    """Optuna's storage, held by this process alone: what it finds running was left by a kill."""
    if file is None:
        yield None
        return
    file = Path(file).resolve()
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{file}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ConfigError(f"Another process is working on {file}; wait for it, or choose another file.") from error
    try:
        try:
            storage = optuna.storages.RDBStorage(f"sqlite:///{file}")
        except Exception as error:
            raise CheckpointError(f"{file} holds no study that can be read ({error}). Move it away.") from error
        try:
            yield storage
        finally:
            storage.remove_session()
            storage.engine.dispose()
    finally:
        lock.release()


def about_of(
    stack: ResidualStack,
    tasks: Mapping[str, EncodedPairs],
    reference: Mapping[str, Tensor],
    settings: CircuitSettings,
    seed: int,
    model: str,
    text: Tensor | None,
) -> dict[str, Any]:
    """What must be the same for values of trials to be comparable."""
    fixed = {f.name: getattr(settings, f.name) for f in fields(settings) if f.name not in RANGES}
    pairs = {name: _digest([e.ids, e.lengths, e.candidates]) for name, e in tasks.items()}
    weights = [p for _, p in stack.named_parameters()]  # type: ignore[attr-defined]
    means = [reference[point] for point in stack.nodes.widths]
    rest = {"seed": seed, "model": model, "weights": _digest(weights), "reference": _digest(means)}
    rest["text"] = None if text is None else _digest([text])
    rest["version of Bridges"] = __version__
    return fixed | rest | {"behaviours": list(tasks), "training pairs": pairs}


def _digest(tensors: Sequence[Tensor]) -> str:
    seen = hashlib.blake2b(digest_size=8)
    for tensor in tensors:
        seen.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return seen.hexdigest()


def check_same(study: Any, about: dict[str, Any], storage: Path | None) -> None:
    """Write down what a new study is about; an old one must be about the same."""
    old = study.user_attrs.get("about")
    if old is None:
        study.set_user_attr("about", about)
    elif old != about:
        other = sorted(key for key in about.keys() | old.keys() if about.get(key) != old.get(key))
        raise ConfigError(
            f"{storage} holds a study with other {', '.join(other)}; its trials cannot be compared with new ones. "
            "Move it away, or give another file."
        )


def was_killed(trial: Any) -> bool:
    """Whether a trial ended with its process: it failed without an error."""
    return trial.state.name == "FAIL" and "error" not in trial.user_attrs


def counted(study: Any) -> list[Any]:
    """The trials that ended by themselves, in order."""
    return [t for t in study.get_trials(deepcopy=False) if t.state.is_finished() and not was_killed(t)]
