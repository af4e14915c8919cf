"""Tuning: rounds of trials, drawn by Optuna, tried side by side."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from bridges.behaviours.encoded import EncodedPairs
from bridges.config.search import CircuitSettings
from bridges.errors import ConfigError, nearest
from bridges.stack import ResidualStack
from bridges.storage.workers import workers
from bridges.tuning.circuits.about import about_of
from bridges.tuning.circuits.ranges import PAPER, RANGES
from bridges.tuning.circuits.result import OPTUNA_STATES, Study, result_of
from bridges.tuning.circuits.trial import Ended, Objective
from bridges.tuning.optuna_study import ask, begun, counted, load_optuna, opened, quiet


def tune(
    stack: ResidualStack,
    tasks: Mapping[str, EncodedPairs],
    reference: Mapping[str, Tensor],
    settings: CircuitSettings | None = None,
    *,
    trials: int = 32,
    storage: Path | None = None,
    jobs: int = 1,
    seed: int = 0,
    startup: int = 8,
    model: str = "sparse",
    text: Tensor | None = None,
    ranges: Mapping[str, tuple[float, float]] = RANGES,
    progress: Callable[[str], None] = lambda line: None,
) -> Study:
    """Try settings of the search and return the best.

    The first trial has the settings that are given, the second the paper's (both moved into the ranges), the next ones
    are drawn at random and, after `startup` of them, by TPE. A trial searches the behaviours in order and is given
    up where its mean so far is above the median of the complete trials'.

    Trials are drawn in rounds of `jobs`, and a trial's draw follows from the seed, its number and the rounds before:
    the same arguments give the same trials, also where the study was killed in between.

    Args:
        stack: in evaluation mode.
        tasks: training pairs of each behaviour. Put quick and telling ones first.
        reference: `bridges.circuits.node_means` over ordinary text.
        settings: what is not tuned, and the first trial.
        trials: how many there should be in all, those of a storage that is gone on with and failed ones included.
        storage: a file (SQLite, which a kill cannot leave half written) to keep the study in, made where it is missing;
            None keeps nothing. Optuna's own tools read it too.
        jobs: trials at a time. Threads, each with its own copy of the stack: a search hangs functions on the stack's
            nodes and zeroes weights in place, so two in one stack would read each other's interventions. A GPU holds
            `jobs` copies.
        seed: of the study and of every search in it.
        startup: trials before TPE draws and before any trial is given up.
        model: ``sparse`` or ``dense``, for the tables.
        text: token ids ``[n, context]``, where removed nodes are resampled.
        ranges: ``{setting: (low, high)}``, all drawn log-uniformly; settings left out stay as given.
        progress: told a line after every trial.

    Raises:
        ConfigError: Optuna is missing, the pairs are held-out ones, or the storage holds a study of something else.
        CheckpointError: the storage cannot be read.
        BridgesError: no trial was completed, or edges of this stack cannot be listed.
    """
    optuna = load_optuna()
    settings = settings or CircuitSettings()
    _check(tasks, settings, ranges, {"trials": trials, "jobs": jobs, "startup": startup})
    objective = Objective(optuna, stack, tasks, reference, settings, seed, startup, model, text)
    places = {n: optuna.distributions.FloatDistribution(low, high, log=True) for n, (low, high) in ranges.items()}
    starts = [
        {name: min(max(start[name], low), high) for name, (low, high) in ranges.items()}
        for start in (vars(settings), PAPER)
    ]
    about = about_of(stack, tasks, reference, settings, seed, model, text)
    with quiet(optuna), opened(optuna, storage) as storage_:
        study = begun(optuna, storage_, "circuits", about, storage)
        objective.remember(study)
        own = [stack, *(copy.deepcopy(stack) for _ in range(jobs - 1))]
        with workers(own, objective.stopped.set) as each:
            while (done := len(counted(study))) < trials:
                # A round that a kill broke off is filled up, so that the next ones begin where they would have.
                size = min(jobs - done % jobs, trials - done)
                asked = [ask(optuna, study, done + i, places, starts, seed, startup) for i in range(size)]
                for i, (trial, ended) in enumerate(zip(asked, each(objective, asked), strict=True)):
                    told = study.tell(trial, ended.value, optuna.trial.TrialState[OPTUNA_STATES[ended.state]])
                    progress(f"trial {done + i + 1} of {trials}: {_outcome(ended, told)}")
        return result_of(study, settings, ranges, seed, model)


def _check(
    tasks: Mapping[str, EncodedPairs],
    settings: CircuitSettings,
    ranges: Mapping[str, tuple[float, float]],
    counts: Mapping[str, int],
) -> None:
    for name, value in counts.items():
        if value < 1:
            raise ConfigError(f"{name}={value} must be at least 1.")
    if not tasks:
        raise ConfigError("There is no behaviour to tune on; name at least one.")
    for name, encoded in tasks.items():
        if encoded.split != "train":
            raise ConfigError(
                f"{name}: these are {encoded.split} pairs. Tune on the training pairs; the others must stay unseen for "
                "judging the circuits."
            )
    if settings.method != "learned":
        raise ConfigError(f"circuits.method={settings.method} has nothing to tune; only learned pruning has.")
    for name, (low, high) in ranges.items():
        if name not in RANGES:
            raise ConfigError(f"{name} cannot be tuned. {nearest(name, RANGES)}")
        if not 0 < low <= high:
            raise ConfigError(f"{name}: the range {low:g} to {high:g} must be rising and above 0.")


def _outcome(ended: Ended, told: Any) -> str:
    found = told.user_attrs.get("found", [])
    if ended.state == "failed":
        return f"failed, {told.user_attrs['error']}"
    if ended.state == "pruned":
        return f"given up after {len(found)} behaviours, at {told.intermediate_values[len(found) - 1]:.3f}"
    reached = sum(row["reached"] for row in found)
    return f"{ended.value:.3f}, {reached} of {len(found)} circuits reach their target"
