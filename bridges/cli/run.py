"""``python -m bridges.run``: compose the settings and hand them over. Hydra is known here and in three files beside."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import hydra
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from tqdm import tqdm

from bridges.cli.help import help_text
from bridges.cli.help import wanted as help_wanted
from bridges.cli.overrides import check_command_line, conf_folder, in_words
from bridges.cli.processes import end_with_the_others, join_slurm, lost_another, resumes, speaks_for_its_machine
from bridges.cli.sweep import AGAIN, Outcome, begun, summarise
from bridges.config import Config
from bridges.errors import BridgesError, ConfigError, Interrupted, MemoryBudgetError, ProcessLost, in_brief

ConfigStore.instance().store(name="schema", node=Config)

log = logging.getLogger("bridges")


def _quiet_libraries() -> None:
    """Our messages in full, the libraries' warnings only; one line each."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def _composed(cfg: DictConfig) -> Config:
    """The settings as an object, every check done.

    Raises:
        ConfigError: a value refers to one that is not there, or the composed settings are not those of Bridges.
    """
    try:
        config = OmegaConf.to_object(cfg)
    except OmegaConfBaseException as error:
        raise ConfigError(in_words(error)) from error
    if not isinstance(config, Config):
        raise ConfigError(
            "What was composed are not the settings of Bridges. A configuration of your own (--config-name) begins "
            "with `defaults: [schema]`, as conf/config.yaml does; to change some settings, put a file into a folder "
            "experiment/ and give --config-dir=<its parent> experiment=<its name>."
        )
    return config


def _resumed(config: Config) -> tuple[Config, Path]:
    """Config and folder of a run to go on with; other overrides would be ignored, so they are refused."""
    from bridges.storage.folder import RunFolder

    path = str(config.resume)
    given = HydraConfig.get().overrides.task
    extra = [o for o in given if not o.lstrip("+").startswith(("resume=", "tracking", "allow_changed="))]
    if extra:
        raise ConfigError(
            f"resume={path} takes its settings from that folder; leave out {' '.join(extra)}, or start a new run."
        )
    folder = RunFolder(Path(path).expanduser())
    stored = folder.config
    stored.allow_changed = config.allow_changed
    if any(o.startswith("tracking") for o in given):
        stored.tracking = config.tracking
    return stored, folder.path


def execute(cfg: DictConfig, sweep: bool, began: Callable[[Path], None] = lambda path: None) -> Path:
    """One run from a composed config; returns its folder.

    Args:
        began: told the folder before anything is done in it.

    Raises:
        BridgesError: whatever the settings, the machine or the user can bring about.
    """
    from accelerate import Accelerator
    from accelerate.utils import broadcast_object_list

    from bridges.runs.pipeline import run
    from bridges.storage.folder import RunFolder, folder_name

    _quiet_libraries()
    # Where hydra.job.chdir is on, paths still mean the folder that the command was typed in.
    os.chdir(HydraConfig.get().runtime.cwd)
    config = _composed(cfg)
    if config.resume is not None:
        config, path = _resumed(config)
    else:
        path = Path(config.runs_dir).expanduser() / folder_name(config, unique=not sweep)
    join_slurm()
    accelerator = Accelerator()
    # Every process must write to the same folder, whose name holds the time.
    path = Path(broadcast_object_list([str(path)])[0])
    if accelerator.num_processes > 1:
        end_with_the_others(resumes(path))
    began(path)
    if sweep and RunFolder(path).status["status"] == "finished":
        log.info("%s is finished already; skipped.", path)
        return path
    try:
        run(config, path, accelerator, log.info)
    except BridgesError:
        raise
    except KeyboardInterrupt:
        raise Interrupted(f"Interrupted. {_go_on(path)}") from None
    except OSError as error:
        # What the operating system refuses is no mistake of the program's: no room, no right, no such device.
        raise BridgesError(f"{in_brief(error)}. {_go_on(path)}") from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error):
            raise MemoryBudgetError(
                f"Out of memory: {in_brief(error)}. Lower train.batch or sparse.d_model, raise train.accumulate, or "
                f"set train.hybrid_sites=1. {_go_on(path)}"
            ) from error
        if accelerator.num_processes > 1 and lost_another(error):
            raise ProcessLost(f"Another process of this run has ended. {resumes(path)}") from error
        raise
    return path


def _go_on(path: Path) -> str:
    if (path / "config.yaml").exists():
        return f"What was computed is in {path}; go on with: python -m bridges.run resume={path}"
    return "Nothing was computed yet."


def _print_help(words: list[str]) -> None:
    text = help_text(words)
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # `--help all | head`: the reader has seen enough; nor may the interpreter complain as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(error: BridgesError) -> NoReturn:
    # An error leaves the bar of the work that it ended standing, without an end of line.
    for bar in list(getattr(tqdm, "_instances", ())):
        bar.close()
    if not isinstance(error, ProcessLost) or speaks_for_its_machine():
        print(f"error: {error}", file=sys.stderr, flush=True)
    sys.exit(1)


@hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")
def _task(cfg: DictConfig) -> float | None:
    """One job. Alone, an error ends the command; in a sweep it is recorded and the other jobs go on."""
    sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    if not sweep:
        try:
            execute(cfg, sweep=False)
        except BridgesError as error:
            _fail(error)
        return None
    join_slurm()
    main = os.environ.get("RANK", "0") == "0"
    outcome = Outcome(Path(HydraConfig.get().runtime.output_dir), list(HydraConfig.get().overrides.task), main)
    try:
        folder = execute(cfg, sweep=True, began=lambda path: outcome.write(folder=str(path)))
    except Exception as error:
        outcome.write(status="failed", message=f"{type(error).__name__}: {error}")
        if isinstance(error, Interrupted):
            # Hydra takes any other error for that of one job.
            raise KeyboardInterrupt from error
        log.error(
            "Job %s failed: %s",
            " ".join(outcome.values["overrides"]),
            error,
            exc_info=not isinstance(error, BridgesError),
        )
        return None
    outcome.write(status="finished")
    if not main:
        return None
    from bridges.runs.summary import headline
    from bridges.storage.folder import RunFolder

    return headline(RunFolder(folder))["hybrid/kl_d2s"]


def main() -> None:
    """The command line; every error a user can cause ends in one message and exit status 1."""
    debugging = os.environ.get("HYDRA_FULL_ERROR") == "1"
    # Hydra then raises its errors instead of printing them in words of its own.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # Of an earlier command in this process; from here on it tells whether composition is over.
    HydraConfig.instance().cfg = None
    try:
        if (words := help_wanted(sys.argv[1:])) is not None:
            _print_help(words)
            return
        sys.argv[1:] = check_command_line(sys.argv[1:])
        _task()
    except BridgesError as error:
        _fail(error)
    except KeyboardInterrupt:
        if folder := begun():
            summarise(folder)
        _fail(BridgesError(f"Interrupted. {AGAIN}" if folder else "Interrupted. Nothing was computed yet."))
    except Exception as error:
        if debugging:
            raise
        if folder := begun():
            # The launcher itself gave up, as when one of its processes is killed.
            counted = summarise(folder)
            _fail(BridgesError(f"The sweep ended early ({in_brief(error)}). {counted or AGAIN}"))
        composing = not HydraConfig.initialized()
        known = (HydraException, OmegaConfBaseException, OSError, yaml.YAMLError)
        if isinstance(error, known) or (composing and isinstance(error, ValueError)):
            _fail(ConfigError(in_words(error)))
        raise
    finally:
        if not debugging:
            del os.environ["HYDRA_FULL_ERROR"]
