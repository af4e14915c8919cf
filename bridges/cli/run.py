"""``python -m bridges.run``: compose the settings and hand them over. Hydra is known here and in three files beside."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from bridges.cli.overrides import check_command_line, conf_folder
from bridges.config import Config
from bridges.errors import BridgesError, ConfigError

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


def _resumed(path: str) -> tuple[Config, Path]:
    """Config and folder of a run to go on with; other overrides would be ignored, so they are refused."""
    from bridges.storage.folder import RunFolder

    extra = [o for o in HydraConfig.get().overrides.task if not o.startswith(("resume=", "tracking"))]
    if extra:
        raise ConfigError(
            f"resume={path} takes its settings from that folder; leave out {' '.join(extra)}, or start a new run."
        )
    folder = RunFolder(path)
    return folder.config, folder.path


def execute(cfg: DictConfig, sweep: bool) -> Path:
    """One run from a composed config; returns its folder."""
    from accelerate import Accelerator
    from accelerate.utils import broadcast_object_list

    from bridges.runs.pipeline import run
    from bridges.storage.folder import RunFolder, folder_name

    _quiet_libraries()
    config = OmegaConf.to_object(cfg)
    assert isinstance(config, Config)
    if config.resume:
        tracking = config.tracking
        config, path = _resumed(config.resume)
        if any(o.startswith("tracking") for o in HydraConfig.get().overrides.task):
            config.tracking = tracking
    else:
        path = Path(config.runs_dir) / folder_name(config, unique=not sweep)
    accelerator = Accelerator()
    # Every process must write to the same folder, whose name holds the time.
    path = Path(broadcast_object_list([str(path)])[0])
    if sweep and RunFolder(path).status["status"] == "finished":
        log.info("%s is finished already; skipped.", path)
        return path
    try:
        run(config, path, accelerator, log.info)
    except KeyboardInterrupt:
        raise BridgesError(f"Interrupted. Go on with: python -m bridges.run resume={path}") from None
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error):
            raise BridgesError(
                f"Out of memory: {error}. Lower train.batch or sparse.d_model, raise train.accumulate, or set "
                f"train.hybrid_sites=1. What was computed is in {path}."
            ) from error
        raise
    return path


def _fail(error: BridgesError) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
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
    outcome: dict[str, Any] = {"overrides": list(HydraConfig.get().overrides.task), "status": "finished"}
    try:
        outcome["folder"] = str(execute(cfg, sweep=True))
    except Exception as error:
        outcome |= {"status": "failed", "message": f"{type(error).__name__}: {error}"}
        log.error(
            "Job %s failed: %s", " ".join(outcome["overrides"]), error, exc_info=not isinstance(error, BridgesError)
        )
    out = Path(HydraConfig.get().runtime.output_dir)
    out.mkdir(parents=True, exist_ok=True)
    (out / "outcome.json").write_text(json.dumps(outcome, indent=2) + "\n")
    if outcome["status"] == "failed":
        return None
    from bridges.runs.summary import headline
    from bridges.storage.folder import RunFolder

    return headline(RunFolder(outcome["folder"]))["hybrid/kl_d2s"]


def main() -> None:
    """The command line; every error a user can cause ends in one message and exit status 1."""
    try:
        check_command_line(sys.argv[1:])
        _task()
    except BridgesError as error:
        _fail(error)
