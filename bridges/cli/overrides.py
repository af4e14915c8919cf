"""Checking the command line before anything is composed: a misspelt key or value names the nearest valid one."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bridges.config import Config, flat
from bridges.errors import ConfigError, nearest
from bridges.storage.folder import make_folder

# Hydra plugins that launch a sweep's jobs: choice of `launcher` or `hydra/launcher`, module, extra that installs it.
LAUNCHERS = {
    "joblib": ("hydra_plugins.hydra_joblib_launcher", "joblib"),
    "slurm": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
    "submitit_slurm": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
}


def conf_folder() -> Path:
    """The YAML files: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).resolve().parent.parent
    return next(p for p in (package / "conf", package.parent / "conf") if (p / "config.yaml").exists())


def groups() -> dict[str, list[str]]:
    """Config groups and their choices, ``{"model": ["gpt2", …]}``."""
    root = conf_folder()
    return {
        folder.name: sorted(f.stem for f in folder.glob("*.yaml"))
        for folder in sorted(root.iterdir())
        if folder.is_dir() and folder.name != "hydra"
    }


def _settings() -> set[str]:
    keys = set(flat(Config()))
    # Inner nodes can be overridden whole.
    return keys | {key.rsplit(".", n)[0] for key in keys for n in range(1, key.count(".") + 1)}


def _named_by_user(key: str) -> str | None:
    """The setting that ``key`` would be an entry of, where the user names its entries, as those of circuits.targets."""
    return next((k for k, value in flat(Config()).items() if isinstance(value, dict) and key.startswith(f"{k}.")), None)


def _values(override: Override) -> list[Any]:
    if override.is_sweep_override():
        return [yaml.safe_load(v) for v in override.sweep_string_iterator()] if override.is_choice_sweep() else []
    return [override.value()]


def _check_type(key: str, value: Any) -> None:
    try:
        OmegaConf.update(OmegaConf.structured(Config), key, value)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{key}={value}: {str(error).splitlines()[0]}.") from error


def launcher_missing(choice: str) -> str | None:
    """The extra of Bridges that brings a launcher's plugin, where it is not installed; otherwise None."""
    module, extra = LAUNCHERS.get(choice, ("hydra", ""))
    try:
        return None if find_spec(module) else extra
    except ModuleNotFoundError:
        return extra


def _check_launcher(key: str, override: Override) -> None:
    for choice in map(str, _values(override)):
        extra = launcher_missing(choice)
        if extra:
            raise ConfigError(f"{key}={choice} needs a plugin of Hydra: pip install 'bridges[{extra}]'.")
        if key == "hydra/launcher" and choice not in (*LAUNCHERS, "basic"):
            raise ConfigError(f"{key}={choice}: there is no such launcher. {nearest(choice, (*LAUNCHERS, 'basic'))}")


def check_command_line(arguments: list[str]) -> None:
    """Check every ``key=value`` argument against the settings and the groups' choices.

    Raises:
        ConfigError: with the nearest valid names, or with the extra that installs a missing launcher.
    """
    plain = [a for a in arguments if not a.startswith("-") and "=" in a]
    # Flags of Hydra with a value of their own, whose value holds no override.
    if any(
        a in ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--package", "-p")
        for a in arguments
    ):
        return
    shown = {i + 1 for i, a in enumerate(arguments) if a in ("--cfg", "-c", "--info", "-i")}
    stray = [a for i, a in enumerate(arguments) if not a.startswith(("-", "~")) and "=" not in a and i not in shown]
    if stray:
        raise ConfigError(f"{stray[0]!r} is no setting; write key=value. {nearest(stray[0], _settings())}")
    choices, settings = groups(), _settings()
    for argument in plain:
        try:
            override = OverridesParser.create().parse_override(argument)
        except OverrideParseException as error:
            raise ConfigError(
                f"{argument!r} cannot be read: {str(error).splitlines()[0]}. Quote special characters, as in "
                "\"key='a=b'\"."
            ) from error
        key = override.key_or_group.split("@")[0]
        if key in ("launcher", "hydra/launcher"):
            _check_launcher(key, override)
        if key.startswith("hydra"):
            continue
        if key in choices:
            for value in _values(override):
                if value is None:
                    raise ConfigError(f"{key}=null: a group cannot be empty. Leave {key} out, or choose one of it.")
                if str(value) not in choices[key]:
                    raise ConfigError(f"{key}={value}: there is no such choice. {nearest(value, choices[key])}")
        elif key in settings:
            for value in _values(override):
                _check_type(key, value)
                if key == "runs_dir":
                    # Hydra makes it before anything of ours runs, and would end in its own words where it cannot.
                    make_folder(Path(str(value)), "runs_dir=…")
        elif table := _named_by_user(key):
            entry = key.removeprefix(f"{table}.")
            if not (override.is_add() or override.is_force_add()):
                raise ConfigError(f"{argument}: {table} has no entries by itself. To give it one, write +{argument}.")
            for value in _values(override):
                _check_type(table, {entry: value})
        else:
            close = nearest(key.rsplit(".", 1)[-1], {k.rsplit(".", 1)[-1] for k in settings})
            near = sorted(k for k in settings if k.rsplit(".", 1)[-1] in close.split("Valid:")[0])
            hint = f"Did you mean {' or '.join(near[:3])}?" if near else f"{nearest(key, settings).split('Valid:')[0]}"
            raise ConfigError(
                f"{key} is no setting. {hint} `python -m bridges.run --help` lists them all.".replace("  ", " ")
            )
