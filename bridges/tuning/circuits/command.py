"""Tune the circuit search on a finished run: ``python -m bridges tune-circuits runs/<folder> --trials 32``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
import yaml

import bridges.kernels as kernels
from bridges.behaviours.encoded import EncodedPairs
from bridges.behaviours.stage import express
from bridges.circuits.ablation import node_means
from bridges.circuits.task import calibrate, logit_diff, prompts, task_loss
from bridges.config.search import CircuitSettings
from bridges.errors import BridgesError, nearest
from bridges.runs.notebook import Run
from bridges.runs.sources import select_behaviours
from bridges.stack import ResidualStack
from bridges.storage.folder import write_atomically
from bridges.tuning.circuits.result import Study
from bridges.tuning.circuits.rounds import tune
from bridges.tuning.optuna_study import load_optuna

_BATCH = 8


def reachable(
    stack: ResidualStack, tasks: Mapping[str, EncodedPairs], settings: CircuitSettings
) -> tuple[dict[str, EncodedPairs], dict[str, float]]:
    """Which behaviours a whole stack does well enough for a circuit to be found.

    Returns:
        those on whose training pairs its calibrated loss is not above `max_model_loss`, and that loss of the others,
        in nats.
    """
    device = next(stack.parameters()).device  # type: ignore[attr-defined]
    able, unable = {}, {}
    for name, encoded in tasks.items():
        some = prompts(encoded.take(range(min(settings.pairs, len(encoded)))), device)
        with torch.no_grad():
            margins = logit_diff(stack, some)
        loss = float(task_loss(calibrate(margins, some.sign).apply(margins, some.sign)))
        if loss <= settings.max_model_loss:
            able[name] = encoded
        else:
            unable[name] = loss
    return able, unable


def tune_run(
    folder: Path,
    trials: int,
    behaviours: Sequence[str] | None = None,
    jobs: int = 1,
    seed: int | None = None,
    say: Callable[[str], None] = print,
) -> Study:
    """Tune on the sparse model of a finished run; the study lies in ``circuits/study`` of its folder.

    Its searches look at the sparse model alone: the carried term, which needs the dense model too, is left out.

    Args:
        behaviours: their names; None takes the run's. Of them, those count that the whole sparse model does well enough
            on training pairs.
        seed: None takes the run's.

    Raises:
        BridgesError: no behaviour is left; see also `tune`.
    """
    load_optuna()  # its absence must not wait for the models
    run = Run(folder)
    config, seed = run.config, run.config.seed if seed is None else seed
    kernels.select(config.kernels)
    stack = run.sparse.requires_grad_(False)
    if torch.cuda.is_available():
        stack.cuda()  # type: ignore[call-arg]  # the decorator of transformers hides the method
    every = select_behaviours(config.behaviours, run.tokenizer)
    behaviours = list(every) if behaviours is None else behaviours
    for name in behaviours:
        if name not in every:
            raise BridgesError(f"The run has no behaviour {name!r}. {nearest(name, every)}")
    tasks = {}
    for name in behaviours:
        expressed = express(every[name], run.tokenizer, config.behaviours.pairs, config.seed)
        if expressed.train is None:
            say(f"{name} is left out: {expressed.reason}")
        else:
            tasks[name] = expressed.train
    settings = config.circuits.settings(method="learned")
    tasks, unable = reachable(stack, tasks, settings)
    for name, loss in unable.items():
        say(
            f"{name} is left out: {loss:.3f} nats with all of the model's nodes, {settings.max_model_loss:g} at most "
            "wanted."
        )
    if not tasks:
        raise BridgesError(f"The sparse model of {folder} does none of {', '.join(behaviours) or 'its behaviours'}.")
    count = max(1, round(config.circuits.reference_tokens / run.data.mean_length))
    text = run.data.take("train", count)
    device = next(stack.parameters()).device
    means = node_means(stack, (ids.to(device) for ids in run.data.chunks("train", count, _BATCH)))
    say(f"{trials} trials on {', '.join(tasks)}")
    place = Path(folder) / "circuits" / "study"
    study = tune(
        stack, tasks, means, settings, trials=trials, storage=place / "study.db", jobs=jobs, seed=seed, text=text,
        progress=say,
    )  # fmt: skip
    study.trials.to_csv(place / "trials.csv", index=False)
    study.table.to_csv(place / "searches.csv", index=False)
    write_atomically(place / "best.yaml", yaml.safe_dump(study.best, sort_keys=False))
    return study


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bridges tune-circuits", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--trials", type=int, default=32, help="trials in all, those already in the folder included")
    parser.add_argument("--behaviours", help="names with commas between; default: the run's")
    parser.add_argument("--jobs", type=int, default=1, help="trials at a time")
    parser.add_argument("--seed", type=int, help="default: the run's")
    given = parser.parse_args(arguments)
    names = given.behaviours.split(",") if given.behaviours else None
    try:
        study = tune_run(given.run, given.trials, names, given.jobs, given.seed)
    except BridgesError as error:
        print(error, file=sys.stderr)
        return 1
    first = study.trials["value"].iloc[0]
    print(f"\nBest of {len(study.trials)} trials: {study.value:.3f}; the run's own settings: {first:.3f}")
    print(" ".join(study.overrides))
    return 0
