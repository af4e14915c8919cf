"""Where a study of Optuna's is kept, and how it is gone on with after a kill."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from bridges.errors import CheckpointError, ConfigError


def load_optuna() -> Any:
    """Optuna, which only this needs."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ConfigError("Tuning needs Optuna: pip install 'bridges-interp[tune]'.") from error
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


def begun(optuna: Any, storage: Any, name: str, about: dict[str, Any], file: Path | None) -> Any:
    """A study, new or gone on with; it must be about the same as before.

    Args:
        storage: what `opened` gave. about: what must be the same for values of trials to be comparable.
        file: the storage's, for messages.
    """
    study = optuna.create_study(storage=storage, study_name=name, load_if_exists=True)
    _check_same(study, about, file)
    for killed in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(killed.number, state=optuna.trial.TrialState.FAIL)
    return study


def ask(
    optuna: Any,
    study: Any,
    index: int,
    distributions: Mapping[str, Any],
    starts: Sequence[Mapping[str, Any]],
    seed: int,
    startup: int,
) -> Any:
    """The next trial. A sampler of its own for each number: what it draws does not depend on who drew before.

    Args:
        index: its number. starts: parameters of the first trials. startup: trials before TPE draws.
    """
    draw = int(np.random.SeedSequence([seed, index]).generate_state(1)[0])
    study.sampler = optuna.samplers.TPESampler(seed=draw, n_startup_trials=startup)
    waiting = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.WAITING,))
    if index < len(starts) and not waiting:
        study.enqueue_trial(dict(starts[index]))
    return study.ask(dict(distributions))


def _check_same(study: Any, about: dict[str, Any], storage: Path | None) -> None:
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
