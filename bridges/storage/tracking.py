"""A mirror of the tables in Weights & Biases. The record is on disk; nothing here can stop a run."""

from __future__ import annotations

import logging
import math
import netrc
import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from bridges.errors import ConfigError, nearest

log = logging.getLogger("bridges.storage.tracking")

Mode = Literal["wandb", "offline", "off"]

INIT_TIMEOUT = 15.0  # seconds to wait for the server before the run goes on offline
FINISH_TIMEOUT = 60.0  # seconds to wait for the last uploads; what is left stays on disk for `wandb sync`
MAX_NAME = 128  # characters of a run's name; a run's folder may have a longer one
MAX_TABLE_ROWS = 10_000  # what W&B shows of one table


class Tracker:
    """Sends rows, tables, figures and files of one run to W&B; without a W&B run every method does nothing.

    An exception in W&B is logged once and switches tracking off.

    Args:
        run: a W&B run, or None.
        directory: where that run keeps its files, for ``wandb sync``.
    """

    def __init__(self, run: Any = None, directory: Path | None = None):
        self._run = run
        self._prefixes: set[str] = set()
        self.directory = directory

    @property
    def active(self) -> bool:
        """Whether rows still go to W&B."""
        return self._run is not None

    def log(self, row: Mapping[str, Any], step: int, prefix: str) -> None:
        """Send one row as ``<prefix>/<column>``, drawn over ``<prefix>/step``.

        Each prefix has its own step: stages may count differently, and a resumed run may log a step again.
        """
        if self._run is not None:
            self._guard(self._log, row, step, prefix)

    def table(self, name: str, frame: pd.DataFrame) -> None:
        """Send a table as ``tables/<name>``; of a long one, evenly spaced rows."""
        if self._run is not None:
            self._guard(self._table, name, frame)

    def summary(self, figures: Mapping[str, Any]) -> None:
        """Set the run's headline figures."""
        if self._run is not None:
            self._guard(self._summary, figures)

    def artifact(self, path: str | Path, name: str, type: str) -> None:
        """Send a file or folder, which must not change afterwards."""
        if self._run is not None:
            self._guard(self._artifact, Path(path), name, type)

    def finish(self, exit_code: int = 0) -> None:
        """Close the W&B run; waits for uploads no longer than `FINISH_TIMEOUT`."""
        run, self._run = self._run, None
        if run is None:
            return
        try:
            run.finish(exit_code=exit_code)
        except TimeoutError:
            log.warning(
                "W&B did not take all data within %g s. Upload later with: wandb sync --include-online %s",
                FINISH_TIMEOUT,
                self.directory,
            )
        except Exception as error:
            self._broken(error)

    def _guard(self, call: Callable[..., Any], *args: Any) -> None:
        try:
            call(*args)
        except Exception as error:
            self._run = None
            self._broken(error)

    def _broken(self, error: Exception) -> None:
        log.warning("W&B failed (%r); the run goes on without it. Its tables on disk are complete.", error)

    def _log(self, row: Mapping[str, Any], step: int, prefix: str) -> None:
        if prefix not in self._prefixes:
            self._run.define_metric(f"{prefix}/step")
            self._run.define_metric(f"{prefix}/*", step_metric=f"{prefix}/step")
            self._prefixes.add(prefix)
        values = {f"{prefix}/{key}": _plain(value) for key, value in row.items() if value is not None}
        self._run.log({**values, f"{prefix}/step": int(step)})

    def _table(self, name: str, frame: pd.DataFrame) -> None:
        import wandb

        frame = frame.iloc[:: max(1, math.ceil(len(frame) / MAX_TABLE_ROWS))]
        self._run.log({f"tables/{name}": wandb.Table(dataframe=frame.reset_index(drop=True))})

    def _summary(self, figures: Mapping[str, Any]) -> None:
        self._run.summary.update({key: _plain(value) for key, value in figures.items()})

    def _artifact(self, path: Path, name: str, type: str) -> None:
        import wandb

        # W&B allows only these characters in a name.
        artifact = wandb.Artifact(re.sub(r"[^A-Za-z0-9_.-]+", "-", name), type=type)
        # Immutable: W&B then reads the files where they lie instead of copying models into the user's home.
        if path.is_dir():
            artifact.add_dir(str(path), policy="immutable")
        else:
            artifact.add_file(str(path), policy="immutable")
        self._run.log_artifact(artifact)


def open_tracker(
    mode: Mode | str,
    folder: str | Path,
    project: str,
    entity: str | None = None,
    name: str | None = None,
    group: str | None = None,
    tags: Sequence[str] = (),
    config: Mapping[str, Any] | None = None,
    resume_id: str | None = None,
) -> Tracker:
    """Open the W&B side of a run.

    Args:
        mode: ``wandb`` (``offline`` where there is no key or no reachable server), ``offline`` or ``off``.
        folder: the run's folder; W&B's files go under ``<folder>/wandb``.
        project, entity, name, group, tags: as in W&B.
        config: the run's settings.
        resume_id: W&B id to go on with; without it the id stored in the folder, or a new one.

    Raises:
        ConfigError: there is no such mode.
    """
    if mode not in get_args(Mode):
        raise ConfigError(f"tracking.mode={mode} is unknown. {nearest(mode, get_args(Mode))}")
    if mode == "off" or os.environ.get("WANDB_MODE") == "disabled":
        return Tracker()
    try:
        os.environ.setdefault("WANDB_SILENT", "true")
        # W&B's own error reports hold up the end of the process when the server does not answer.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        return _open(
            mode,
            Path(folder),
            resume_id,
            {
                "project": project,
                "entity": entity,
                "name": name and name[:MAX_NAME],
                "group": group,
                "tags": list(tags),
                "config": dict(config or {}),
            },
        )
    except Exception as error:
        log.warning("W&B cannot be used (%r); the run goes on without it.", error)
        return Tracker()


def _open(mode: str, folder: Path, resume_id: str | None, labels: dict[str, Any]) -> Tracker:
    directory = folder.resolve() / "wandb"
    directory.mkdir(parents=True, exist_ok=True)
    labels["id"] = _run_id(directory / "run-id.txt", resume_id)
    why = "tracking.mode=offline"
    if mode == "wandb":
        if os.environ.get("WANDB_MODE") == "offline":
            why = "WANDB_MODE=offline"
        elif not _has_key():
            why = "No W&B API key (WANDB_API_KEY, or `wandb login`)"
        else:
            before = set(directory.iterdir())
            try:
                return _init("online", directory, labels)
            except Exception as error:
                why = f"W&B cannot be reached ({_first_line(error)})"
                _forget_failed_init(directory, before)
    tracker = _init("offline", directory, labels)
    level = logging.INFO if mode == "offline" else logging.WARNING
    log.log(level, "%s: tracking offline. Upload later with: wandb sync %s", why, tracker.directory)
    return tracker


def _init(mode: Literal["online", "offline"], directory: Path, labels: dict[str, Any]) -> Tracker:
    import wandb

    wanted: dict[str, Any] = {
        "silent": True,
        "console": "off",
        "disable_git": True,
        "disable_code": True,
        "x_disable_stats": True,
        "x_save_requirements": False,
        "init_timeout": INIT_TIMEOUT,
        "finish_timeout": FINISH_TIMEOUT,
        "finish_timeout_raises": True,
    }
    known = wandb.Settings.model_fields  # versions differ in their internal settings
    run = wandb.init(
        # A run of its own, whatever else in this process (a notebook, a library) uses W&B.
        mode=mode,
        dir=str(directory.parent),
        resume="allow",
        reinit="create_new",
        settings=wandb.Settings(**{key: value for key, value in wanted.items() if key in known}),
        **labels,
    )
    return Tracker(run, Path(run.dir).parent)


def _run_id(file: Path, given: str | None) -> str:
    if given is None and file.is_file():
        given = file.read_text().strip()
    # Not from `random`: tracking must leave the run's random state alone.
    run_id = given or secrets.token_hex(4)
    file.write_text(run_id + "\n")
    return run_id


def _has_key() -> bool:
    import wandb

    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    settings = wandb.setup().settings
    if settings.api_key:
        return True
    host = re.sub(r"^https?://", "", settings.base_url).split("/")[0].split(":")[0]
    given = os.environ.get("NETRC")
    for file in [Path(given)] if given else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        try:
            if netrc.netrc(str(file.expanduser())).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def _forget_failed_init(directory: Path, before: set[Path]) -> None:
    """Free the run id in W&B's service, and remove the empty run that it left on disk."""
    import wandb

    wandb.teardown()
    for path in set(directory.iterdir()) - before:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def _plain(value: Any) -> Any:
    """Scalars of NumPy and PyTorch as Python's own."""
    return value.item() if hasattr(value, "item") else value


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(":. ")
