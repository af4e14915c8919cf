"""Tune training for a budget of tokens: ``python -m bridges tune --trials 24 train=quick sparse.init=random``.

The arguments are those of ``python -m bridges.run``. Optuna's TPE looks around the settings that are given, at the same
tokens for every trial; a trial is worth the mean of three KL divergences from the dense model on the validation split:
of the sparse model, and of single crossings either way, each averaged over the bridges. Its folder (beside the runs,
``tune-…``) holds the study, which the same command goes on with, ``trials.csv``, ``curves.csv`` and ``study.png``.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import pandas as pd
from accelerate import Accelerator
from hydra import compose, initialize_config_dir
from matplotlib.figure import Figure
from omegaconf import OmegaConf

import bridges.cli.run  # noqa: F401  (registers the schema)
import bridges.kernels as kernels
from bridges.cli.overrides import check_command_line, conf_folder
from bridges.config import BOOKKEEPING, Config, flat
from bridges.config.paths import absolute
from bridges.config.training import SAMPLINGS
from bridges.errors import BridgesError, ConfigError, nearest
from bridges.fidelity.hybrids import measure_paths
from bridges.hybrid import Path as MixedPath
from bridges.runs.context import RunContext
from bridges.runs.initialise import build, finish
from bridges.runs.pipeline import plan_of, prepare, trainer_of
from bridges.storage.folder import RunFolder, folder_name
from bridges.training.plan import check_memory
from bridges.tuning.optuna_study import ask, begun, counted, load_optuna, opened, quiet

# Drawn between a fifth and five times what is given, logarithmically; what is null or zero stays so.
SCALED = (
    "train.lr",
    "train.bridge_lr",
    "train.warmup",
    *(f"train.terms.{term}" for term in ("kl", "nmse_encoder", "nmse_decoder", "kl_d2s", "kl_s2d")),
)
AROUND = 5.0
# Drawn from half to four times what is given, and from all there are.
BATCH, SAMPLING = "train.batch", "train.hybrid_sampling"
KEYS = (*SCALED, BATCH, SAMPLING)
# Trials before TPE draws.
STARTUP = 8


def places(optuna: Any, config: Config, keys: Sequence[str]) -> dict[str, Any]:
    """Where each setting is looked for, as Optuna's distributions; those of `keys` that have a value.

    Raises:
        ConfigError: a key cannot be tuned.
    """
    given, found = flat(config), {}
    for key in keys:
        if key not in KEYS:
            raise ConfigError(f"{key} cannot be tuned. {nearest(key, KEYS)}")
        value = given[key]
        if key == BATCH:
            sizes = {max(1, value // 2), value, 2 * value, 4 * value}
            found[key] = optuna.distributions.CategoricalDistribution(sorted(sizes))
        elif key == SAMPLING:
            if config.train.hybrid_sites != "all":
                found[key] = optuna.distributions.CategoricalDistribution(SAMPLINGS)
        elif value:
            high = min(value * AROUND, 0.9) if key == "train.warmup" else value * AROUND
            found[key] = optuna.distributions.FloatDistribution(value / AROUND, high, log=True)
    if not found:
        raise ConfigError(f"None of {', '.join(keys)} has a value here that could be tuned.")
    return found


def tried(config: Config, params: Mapping[str, Any]) -> Config:
    """The config with a trial's settings, to three digits, so that what is printed is what was tried."""
    changed = copy.deepcopy(config)
    for key, value in params.items():
        *sections, name = key.split(".")
        section = reduce(getattr, sections, changed)
        setattr(section, name, _rounded(value))
    # Checks run where a section is made.
    changed.train = replace(changed.train)
    return changed


def _rounded(value: Any) -> Any:
    return float(f"{value:.3g}") if isinstance(value, float) else value


def fidelity(parts: RunContext) -> dict[str, float]:
    """KL from the dense model on the validation split, in nats: of the sparse model and of the mean single crossing."""
    singles = [MixedPath(first, (i,)) for first in "DS" for i in range(len(parts.bridges))]
    ids = parts.data.chunks("validation", parts.rows(parts.config.eval.sequences), parts.rows(parts.config.eval.batch))
    frame = measure_paths(
        [MixedPath("S"), *singles],
        parts.dense,
        parts.sparse,
        parts.bridges,
        ids,
        batch=parts.rows(parts.config.eval.batch),
        bootstrap=1,
        seed=parts.config.seed,
        split="validation",
        label="trained",
        autocast=parts.autocast(),
        device=parts.device,
    )
    mean = frame.groupby("kind")["kl"].mean()
    return {"sparse": mean["pure_sparse"], "d2s": mean["single_d2s"], "s2d": mean["single_s2d"]}


def one_trial(base: RunContext, config: Config) -> tuple[dict[str, float], pd.DataFrame]:
    """Train anew with a trial's settings; returns what `fidelity` measures, and the training table.

    Raises:
        MemoryBudgetError: with its batch it does not fit; a process that is ended for that would try it again for ever.
    """
    check_memory(plan_of(config, base.dense, base.start, base.accelerator))
    sparse, bridges = build(config, base.dense, base.start)
    with tempfile.TemporaryDirectory() as place:
        parts = replace(
            base,
            config=config,
            folder=RunFolder(place),
            sparse=sparse.to(base.accelerator.device),
            bridges=bridges.to(base.accelerator.device),
        )
        parts.fit_to_text()
        training, _ = trainer_of(parts, lambda row, step: None).fit()
    finish(parts.sparse, parts.bridges)
    return fidelity(parts), training


def tune(
    config: Config,
    trials: int,
    keys: Sequence[str] = KEYS,
    folder: Path | None = None,
    say: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Try settings of training and return one row per trial; the first has the settings that are given.

    A trial's draw follows from the seed, its number and the trials before: the same arguments give the same trials,
    also where the study was killed in between.

    Args:
        trials: how many there should be in all, those of a folder that is gone on with included.
        keys: of `KEYS`. folder: None keeps nothing.

    Raises:
        ConfigError: Optuna is missing, a key cannot be tuned, or the folder holds a study of something else.
    """
    optuna = load_optuna()
    if trials < 1:
        raise ConfigError(f"trials={trials} must be at least 1.")
    where = places(optuna, config, keys)
    given = {key: flat(config)[key] for key in where}
    kernels.select(config.kernels)
    with tempfile.TemporaryDirectory() as place:
        base, _ = prepare(config, RunFolder(place), Accelerator(), say)
    fixed = {k: v for k, v in flat(config).items() if k not in where and k not in BOOKKEEPING}
    about = {k: v for k, v in fixed.items() if not k.startswith(("tracking.", "circuits.", "compare.", "verdict."))}
    about |= {"tuned": {k: repr(v) for k, v in where.items()}, "text": base.data.fingerprint}
    file = None if folder is None else folder / "study.db"
    with quiet(optuna), opened(optuna, file) as storage:
        study = begun(optuna, storage, "training", about, file)
        while (done := len(counted(study))) < trials:
            trial = ask(optuna, study, done, where, [given], config.seed, STARTUP)
            started = time.monotonic()
            try:
                found, training = one_trial(base, tried(config, trial.params))
            except Exception as error:
                # A NaN or a full memory with one choice of settings says nothing against the next.
                trial.set_user_attr("error", f"{type(error).__name__}: {error}")
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
                say(f"trial {done + 1} of {trials}: failed, {error}")
                continue
            trial.set_user_attr("found", found)
            trial.set_user_attr("seconds", time.monotonic() - started)
            trial.set_user_attr("curve", training.reindex(columns=["tokens", "kl"]).to_dict("list"))
            value = sum(found.values()) / len(found)
            study.tell(trial, value)
            say(f"trial {done + 1} of {trials}: {value:.4f} ({', '.join(f'{k} {v:.3f}' for k, v in found.items())})")
        frame, curves = _tables(study, list(where))
    if folder is not None:
        frame.to_csv(folder / "trials.csv", index=False)
        curves.to_csv(folder / "curves.csv", index=False)
        draw_study(frame, curves).savefig(folder / "study.png", dpi=150)
    return frame


def _tables(study: Any, keys: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row per trial, and one per trial and logged step."""
    rows, curves = [], []
    for index, trial in enumerate(counted(study)):
        attrs = trial.user_attrs
        row = {"trial": index, "value": trial.value, **attrs.get("found", {}), "seconds": attrs.get("seconds")}
        rows.append(row | {k: _rounded(trial.params[k]) for k in keys} | {"error": attrs.get("error")})
        if "curve" in attrs:
            curves.append(pd.DataFrame(attrs["curve"]).assign(trial=index))
    if not curves:
        raise BridgesError(f"None of {len(rows)} trials was completed. The last one: {rows[-1]['error']}")
    return pd.DataFrame(rows), pd.concat(curves, ignore_index=True)


def draw_study(trials: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """What every trial is worth, and the sparse model's KL over training; in colour the first and the best.

    Batches differ from one to the next by more than trials do, so that curves are means over the fifth before.
    """
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    values, over = figure.subplots(1, 2, width_ratios=(2, 3))
    best = int(trials["value"].argmin())
    marked = {0: ("as given", "C0")} | {best: ("best" if best else "as given, and best", "C1")}
    values.scatter(trials["trial"] + 1, trials["value"], color="0.75")
    for index in sorted(curves["trial"].unique()):
        rows = curves[curves["trial"] == index]
        smooth = rows["kl"].ewm(span=max(1, len(rows) / 5)).mean()
        if index not in marked:
            over.plot(rows["tokens"], smooth, color="0.85", linewidth=0.8, zorder=1)
            continue
        name, colour = marked[index]
        value = trials["value"][index]
        values.scatter(index + 1, value, color=colour, label=f"{name}: {value:.3f}", zorder=2)
        over.plot(rows["tokens"], smooth, color=colour, linewidth=1.8, zorder=2)
    values.set(xlabel="trial", ylabel="mean of three KLs, validation, nats")
    values.xaxis.get_major_locator().set_params(integer=True)
    values.legend(frameon=False)
    over.set(xlabel="training tokens", ylabel="KL(dense ‖ sparse), training, nats")
    for axes in (values, over):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def composed(overrides: Sequence[str]) -> Config:
    """The config that the command line of a run would have.

    Raises:
        ConfigError: see `check_command_line`.
    """
    check_command_line(list(overrides))
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = OmegaConf.to_object(compose("config", list(overrides)))
    assert isinstance(config, Config)
    return absolute(config)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bridges tune", description=__doc__)
    parser.add_argument("overrides", nargs="*", help="settings, as for python -m bridges.run")
    parser.add_argument("--trials", type=int, default=24, help="in all, those already in the folder included")
    parser.add_argument("--keys", help=f"what is tuned, with commas between; default: {','.join(KEYS)}")
    given = parser.parse_intermixed_args(arguments)
    try:
        config = composed(given.overrides)
        folder = Path(config.runs_dir) / f"tune-{config.name or folder_name(config, unique=False)}"
        frame = tune(config, given.trials, given.keys.split(",") if given.keys else KEYS, folder)
    except BridgesError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    rows = frame.to_dict("records")
    best = rows[int(frame["value"].argmin())]
    print(f"\nBest of {len(rows)} trials: {best['value']:.4f}; as given: {rows[0]['value']:.4f}. In {folder}:")
    tuned = {k: v for k, v in best.items() if k in KEYS}
    print(" ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in tuned.items()))
    return 0
