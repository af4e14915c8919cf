"""Checking the command line before anything is composed: a misspelt key or value names the nearest valid one."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import yaml
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bridges.config import Config, flat
from bridges.errors import ConfigError, in_brief, nearest
from bridges.storage.folder import make_folder

# Hydra plugins that launch a sweep's jobs: choice of `launcher` or `hydra/launcher`, module, extra that installs it.
LAUNCHERS = {
    "joblib": ("hydra_plugins.hydra_joblib_launcher", "joblib"),
    "slurm": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
    "submitit_slurm": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
}

# Hydra's parser takes minutes for a hundred thousand brackets.
MAX_BRACKETS = 1000
# What `--shell-completion` is asked for.
_COMPLETION = {"install", "uninstall", "query"}


def conf_folder() -> Path:
    """The YAML files: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).resolve().parent.parent
    return next(p for p in (package / "conf", package.parent / "conf") if (p / "config.yaml").exists())


def groups(folders: Sequence[Path] = ()) -> dict[str, list[str]]:
    """Config groups and their choices, ``{"model": ["gpt2", …]}``.

    Args:
        folders: further folders of YAML files (``--config-dir``, ``hydra.searchpath``).
    """
    found: dict[str, set[str]] = {}
    for root in (conf_folder(), *folders):
        for file in root.rglob("*.yaml"):
            *parents, name = file.relative_to(root).with_suffix("").parts
            if parents and parents[0] != "hydra":
                # A choice in a/b/c.yaml is written a=b/c or a/b=c.
                for depth in range(1, len(parents) + 1):
                    choice = "/".join((*parents[depth:], name))
                    found.setdefault("/".join(parents[:depth]), set()).add(choice)
    return {group: sorted(choices) for group, choices in sorted(found.items())}


def _settings() -> set[str]:
    keys = set(flat(Config()))
    # Inner nodes can be overridden whole.
    return keys | {key.rsplit(".", n)[0] for key in keys for n in range(1, key.count(".") + 1)}


def _values(override: Override) -> list[Any]:
    if override.is_sweep_override():
        return [_plain(v) for v in override.sweep_string_iterator()] if override.is_choice_sweep() else []
    return [override.value()]


def _plain(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _check_type(key: str, value: Any) -> None:
    if "${" in str(value):
        return  # a reference to another setting, which has its value once all are composed
    try:
        OmegaConf.update(OmegaConf.structured(Config), key, value)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{key}={value}: {str(error).splitlines()[0].rstrip('.')}.") from error


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
            raise ConfigError(f"{key}={choice} needs a plugin of Hydra: pip install 'bridges-interp[{extra}]'.")
        if key == "hydra/launcher" and choice not in (*LAUNCHERS, "basic"):
            raise ConfigError(f"{key}={choice}: there is no such launcher. {nearest(choice, (*LAUNCHERS, 'basic'))}")


def in_words(error: Exception) -> str:
    """A library's error about the command line, in one line."""
    if isinstance(error, OSError) and not isinstance(error, HydraException):
        return f"{in_brief(error)}."
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        at = error.problem_mark
        return f"{at.name}, line {at.line + 1}: this is no YAML ({error.problem})."
    if isinstance(error, UnicodeDecodeError):
        return f"A YAML file of the settings is no {error.encoding.upper()} text ({error.reason})."
    lines = str(error).splitlines() or [type(error).__name__]
    # OmegaConf names the setting in a line of its own.
    key = next((line.split(":", 1)[1].strip() for line in lines if line.strip().startswith("full_key:")), "")
    kept = [line.strip() for line in lines if not re.match(r"\s*(full_key:|object_type=|reference_type=)", line)]
    text = " ".join(line for line in kept if line)[:400].rstrip(".")
    if text.endswith("Key 'experiment' not in 'Config'"):
        text += ": the file's first line must be `# @package _global_`"
    cause = error.__cause__
    if isinstance(cause, (OmegaConfBaseException, HydraException)) and (more := in_words(cause)) not in text:
        text = f"{text}: {more}".rstrip(".")
    return f"{key}: {text}." if key and key not in text else f"{text}."


class _Parser:
    """Hydra's own options, with what is wrong with them in one message of ours."""

    def __init__(self) -> None:
        self.parser = get_args_parser()
        self.parser.error = self._refuse  # type: ignore[method-assign]
        self.options = [o for a in self.parser._actions for o in a.option_strings if o.startswith("--")]

    def _refuse(self, message: str) -> NoReturn:
        wrong = re.search(r"unrecognized arguments: (\S+)", message)
        if wrong is None:
            raise ConfigError(f"{message[:1].upper()}{message[1:]}.")
        option = wrong.group(1).partition("=")[0]
        raise ConfigError(f"{option} is no option. {nearest(option, self.options)}")

    def parse(self, arguments: Sequence[str]) -> Namespace:
        given = self.parser.parse_intermixed_args(list(arguments))
        modes = {"--run": given.run, "--multirun": given.multirun, "--cfg": given.cfg, "--info": given.info}
        if len(both := [option for option, value in modes.items() if value]) > 1:
            raise ConfigError(f"Give one of {' and '.join(both)}, not both.")
        if given.resolve and not given.cfg:
            raise ConfigError("--resolve goes with --cfg job.")
        asked = {word.partition("=")[0] for word in given.overrides}
        if given.shell_completion and (len(asked) != 1 or not asked <= _COMPLETION):
            raise ConfigError(
                f"--shell-completion takes one of {', '.join(f'{w}=<shell>' for w in sorted(_COMPLETION))}."
            )
        return given


def _searched(given: Namespace, overrides: Sequence[Override]) -> list[Path]:
    """Folders with YAML files of the user's that Hydra is told to search, which must be there."""
    found = [
        (f"--config-dir={given.config_dir}", given.config_dir),
        (f"--config-path={given.config_path}", given.config_path),
    ]
    for override in overrides:
        if override.key_or_group == "hydra.searchpath":
            entries = override.value()
            if not isinstance(entries, list):
                raise ConfigError("hydra.searchpath takes a list: hydra.searchpath=[<folder>].")
            found += [(f"hydra.searchpath=[{entry}]", str(entry)) for entry in entries]
    folders = []
    for option, place in found:
        if not place or place.startswith("pkg://"):
            continue  # what a package holds is Hydra's to find
        folder = Path(place.removeprefix("file://")).expanduser()
        if not folder.is_dir():
            raise ConfigError(f"{option}: there is no such folder.")
        folders.append(folder)
    return folders


def _parsed(argument: str) -> Override:
    brief = argument if len(argument) <= 80 else f"{argument[:77]}…"
    if argument.count("[") + argument.count("{") > MAX_BRACKETS:
        raise ConfigError(f"{brief!r} cannot be read: it has more than {MAX_BRACKETS} brackets.")
    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException as error:
        # Hydra's own message repeats the whole argument under its first line.
        why = str(error).splitlines()[0][:200]
        raise ConfigError(f"{brief!r} cannot be read: {why}. Quote special characters, as in \"key='a=b'\".") from error
    except ValueError as error:
        raise ConfigError(f"{brief!r} cannot be read: it holds a number of too many digits.") from error


def _guess(word: str) -> str:
    """What a word that stands alone may have been meant for, in a question."""
    if (Path(word) / "config.yaml").is_file():
        return f"Did you mean resume={word}?"
    meant = [f"{group}={word}" for group, known in groups().items() if word in known]
    question = f"Did you mean {' or '.join(meant)}?" if meant else nearest(word, _settings()).split("Valid:")[0].strip()
    return f"{question} `python -m bridges.run --help all` lists all settings.".strip()


def check_command_line(arguments: list[str]) -> list[str]:
    """Check every ``key=value`` argument against the settings and the groups' choices.

    Returns:
        the same arguments, options first, as Hydra wants them.

    Raises:
        ConfigError: with the nearest valid names, or with the extra that installs a missing launcher.
    """
    given = _Parser().parse(arguments)
    if given.shell_completion:
        return arguments
    written = list(given.overrides)
    options = list(arguments)
    for override in written:
        options.remove(override)
    if stray := [a for a in written if not a.startswith("~") and "=" not in a]:
        raise ConfigError(f"{stray[0]!r} is no setting; write key=value. {_guess(stray[0])}")
    overrides = [_parsed(a) for a in written]
    folders = _searched(given, overrides)
    choices, settings = groups(folders), _settings()
    sweep = bool(given.multirun) or "hydra.mode=MULTIRUN" in written
    for argument, override in zip(written, overrides, strict=True):
        _check(argument, override, choices, settings, sweep)
    # Hydra makes these before anything of ours runs, and would end in its own words where it cannot.
    for override in overrides:
        key = override.key_or_group
        if key in ("runs_dir", "hydra.run.dir", "hydra.sweep.dir") and not override.is_sweep_override():
            place = str(override.value())
            if place and "${" not in place:
                make_folder(Path(place).expanduser(), f"{key}=…")
    return options + written


def _check(argument: str, override: Override, choices: dict[str, list[str]], settings: set[str], sweep: bool) -> None:
    """Check one argument, ``key=value``, ``+key=value`` or ``~key``."""
    key = override.key_or_group.split("@")[0]
    if key in ("launcher", "hydra/launcher"):
        _check_launcher(key, override)
    if override.is_sweep_override() and not sweep:
        raise ConfigError(
            f"{argument} names several values. To try each in a run of its own, put -m before the settings; to give "
            f"one text with a comma in it, quote it: '{key}=\"a,b\"'."
        )
    if key.startswith("hydra"):
        return
    if override.is_delete():
        if key in choices:
            raise ConfigError(f"{argument}: a group cannot be empty. Leave {argument} out, or choose one of {key}.")
        raise ConfigError(f"{argument}: no setting can be taken away. For none, write {key}=null where it may be null.")
    if key in choices:
        if override.is_add() and key in groups():
            raise ConfigError(f"{argument}: {key} is there already; write {argument.lstrip('+')}.")
        for value in _values(override):
            if value is None:
                raise ConfigError(f"{key}=null: a group cannot be empty. Leave {key} out, or choose one of it.")
            for choice in value if isinstance(value, list) else [value]:
                if "${" not in str(choice) and str(choice).removesuffix(".yaml") not in choices[key]:
                    raise ConfigError(f"{key}={choice}: there is no such choice. {nearest(choice, choices[key])}")
    elif key in settings:
        if override.is_add() and key in flat(Config()):
            raise ConfigError(f"{argument}: {key} is there already; write {argument.lstrip('+')}.")
        for value in _values(override):
            _check_type(key, value)
    else:
        close = nearest(key.rsplit(".", 1)[-1], {k.rsplit(".", 1)[-1] for k in settings})
        near = sorted(k for k in settings if k.rsplit(".", 1)[-1] in close.split("Valid:")[0])
        hint = f"Did you mean {' or '.join(near[:3])}?" if near else f"{nearest(key, settings).split('Valid:')[0]}"
        raise ConfigError(
            f"{key} is no setting. {hint} `python -m bridges.run --help all` lists them all.".replace("  ", " ")
        )
