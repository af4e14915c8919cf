"""``bridges run --help``: one screen, every setting (``--help all``), or one of them (``--help train.lr``)."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from functools import cache
from typing import Any

import yaml

from bridges.cli.overrides import conf_folder, groups
from bridges.config.describe import Setting, sections, settings
from bridges.errors import ConfigError, nearest

FLAGS = ("-h", "--help")
# Settings that a first screen shows, and what a reader tries first.
OFTEN = (
    "sparsity",
    "seed",
    "name",
    "resume",
    "model.name",
    "data.path",
    "sparse.init",
    "train.tokens",
    "train.batch",
    "train.lr",
    "train.precision",
    "behaviours.names",
    "circuits.models",
)
EXAMPLES = (
    ("", "the bundled model, on two cores"),
    ("train=smoke", "some tens of steps, to see that all works"),
    ("experiment=narrow model=gpt2", "a real language model, on prompts of its behaviours"),
    ("model=gpt2 train=standard", "a model from the Hugging Face Hub, on all text"),
    ("model=hf model.name=<folder>", "a local folder, or any Hub id"),
    ("-m sparsity=0.1,0.03 seed=0,1", "a sweep"),
    ("resume=runs/<folder>", "go on exactly where a run stopped"),
    ("--cfg job", "print the settings and stop"),
)


def wanted(arguments: Sequence[str]) -> list[str] | None:
    """What help is asked for: the words beside ``--help``, None where it is not asked for."""
    if not set(FLAGS) & set(arguments):
        return None
    # `train.lr=1e-3 --help` asks for what it is about to set.
    return [word.lstrip("+~").split("=")[0] for word in arguments if not word.startswith("-")]


def help_text(words: Sequence[str] = ()) -> str:
    """Help on settings and groups; without words the screen to begin with.

    Raises:
        ConfigError: there is no such setting or group.
    """
    if not words:
        return overview()
    if "all" in words:
        return every_setting()
    return "\n\n".join(map(explain, words))


def overview() -> str:
    """One screen: usage, groups and their choices, the settings that are set most often, examples."""
    described = {s.name: s for s in settings()}
    lines = [
        "usage: bridges run [group=choice ...] [setting=value ...]     (or: python -m bridges.run ...)",
        "",
        "Train a weight-sparse model and bridges beside a frozen dense model, search circuits, give verdicts.",
        "",
        "Groups, each a file of settings (* is chosen where none is named):",
    ]
    for group, known in groups().items():
        if len(known) < 2:
            continue
        chosen = _chosen().get(group)
        names = [f"*{name}" if name == chosen else name for name in known]
        lines += _hanging(f"  {group:<12}", " ".join(names))
    lines += ["", "Settings that are set most often:"]
    for name in OFTEN:
        lines.append(_line(f"  {name}={_brief(_default(described[name]))}", described[name].text, 32))
    lines += ["", "Examples:"]
    lines += [f"  bridges run {what:<32}{why}" for what, why in EXAMPLES]
    lines += ["", "More: --help all, --help <setting or group>, as in --help train.lr; `bridges` lists other commands."]
    return "\n".join(lines)


def every_setting() -> str:
    """All settings with their defaults, one line each."""
    lines = ["Every setting with its default (of `bridges run`) and what it is; --help <setting> tells all of one.", ""]
    section = None
    for setting in settings():
        head = setting.name.rpartition(".")[0]
        if head != section and head:
            lines += ["", f"{head}: {next(s.text for s in sections() if s.name == head)}"]
        section = head
        lines.append(_line(f"  {setting.name}={_brief(_default(setting))}", setting.text, 40))
    return "\n".join(lines)


def explain(name: str) -> str:
    """One setting, or one section or group with what is in it.

    Raises:
        ConfigError: there is none of that name.
    """
    described = {s.name: s for s in settings()}
    if name in described:
        return _setting(described[name])
    titles, known = {s.name: s.text for s in sections()}, groups()
    if name not in titles and name not in known:
        # The last part of a name is what is remembered, and misspelt, most easily.
        names = list(dict.fromkeys([*described, *titles, *known, "all"]))
        ends = [n for n in names if n.rpartition(".")[2] == name.rpartition(".")[2]]
        near = f"Did you mean {' or '.join(ends[:3])}? " if ends else nearest(name, names).split("Valid:")[0]
        raise ConfigError(f"{name} is neither a setting nor a group. {near}`--help all` lists every setting.")
    lines = [f"{name}: {titles[name]}" if name in titles else f"{name}: a group of presets"]
    if name in known:
        note = "; * is chosen where none is named" if name in _chosen() else ""
        lines += ["", f"Presets ({name}=…{note}):"]
        for choice in known[name]:
            mark = "*" if choice == _chosen().get(name) else " "
            lines.append(_line(f" {mark}{choice}", _comment(name, choice), 24))
    inside = [s for s in settings() if s.name.startswith(f"{name}.")]
    if inside:
        lines += ["", "Settings:", *(_line(f"  {s.name}={_brief(_default(s))}", s.text, 40) for s in inside)]
    return "\n".join(lines)


def _setting(setting: Setting) -> str:
    lines = [f"{setting.name}={_shown(_default(setting))}", "", *textwrap.wrap(setting.text, _width()), ""]
    lines.append(f"type:     {setting.type}")
    if setting.choices:
        lines += _hanging("choices:  ", ", ".join(setting.choices))
    lines.append(f"default:  {_shown(_default(setting))}")
    if _default(setting) != setting.default:
        lines[-1] += f" ({_shown(setting.default)} in a notebook and where no preset sets it)"
    others = [
        f"{group}={choice} ({'must be given' if value == '???' else _brief(value)})"
        for group, known in groups().items()
        for choice in known
        if (value := _preset(group, choice).get(setting.name, _default(setting))) != _default(setting)
    ]
    if others:
        lines += _hanging("presets:  ", ", ".join(others))
    return "\n".join(lines)


@cache
def _chosen() -> dict[str, str]:
    """The choice of each group that a plain run takes."""
    composed = yaml.safe_load((conf_folder() / "config.yaml").read_text())["defaults"]
    pairs = [pair for entry in composed if isinstance(entry, dict) for pair in entry.items()]
    return {group: choice for group, choice in pairs if choice and not group.startswith("override")}


def _default(setting: Setting) -> Any:
    """What a plain ``bridges run`` takes: the dataclass's default, unless a preset that is chosen by itself sets it."""
    value = setting.default
    for group, choice in _chosen().items():
        value = _preset(group, choice).get(setting.name, value)
    return value


@cache
def _preset(group: str, choice: str) -> dict[str, Any]:
    """The settings of a preset, dotted keys to values; those of Hydra and references to other presets left out."""
    file = conf_folder() / group / f"{choice}.yaml"
    if not file.is_file():
        return {}
    text = file.read_text()
    values = yaml.safe_load(text) or {}
    if "@package _global_" not in text:
        values = {group: values}
    found: dict[str, Any] = {}

    def walk(prefix: str, section: dict[str, Any]) -> None:
        for key, value in section.items():
            if isinstance(value, dict):
                walk(f"{prefix}{key}.", value)
            else:
                found[f"{prefix}{key}"] = value

    walk("", values)
    # YAML reads 1e-3 as a text, which the settings turn into a number.
    return {key: _number(value) for key, value in found.items()}


def _number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) and value[:1].isdigit() else value
    except ValueError:
        return value


def _comment(group: str, choice: str) -> str:
    """The comment that a preset's file begins with, as one line."""
    file = conf_folder() / group / f"{choice}.yaml"
    lines = [line for line in file.read_text().splitlines() if line != "# @package _global_"]
    taken = []
    for line in lines:
        if not line.startswith("#"):
            break
        taken.append(line.removeprefix("#").strip())
    return " ".join(taken)


def _shown(value: Any) -> str:
    """A value as it is written on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(str, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _brief(value: Any) -> str:
    """The same, a long list cut."""
    shown = _shown(value)
    return shown if len(shown) <= 24 else f"{shown[:20]}…"


def _width() -> int:
    """Columns of the terminal, within what can be read."""
    return max(80, min(160, shutil.get_terminal_size((120, 40)).columns))


def _line(head: str, text: str, indent: int) -> str:
    """A name and its explanation in one line of the terminal's width; what does not fit is cut."""
    start = f"{head:<{indent}} "
    room = _width() - len(start)
    return f"{start}{textwrap.shorten(text, max(20, room), placeholder=' …')}".rstrip()


def _hanging(head: str, text: str) -> list[str]:
    """Wrapped, further lines below the text's beginning."""
    return textwrap.wrap(text, _width(), initial_indent=head, subsequent_indent=" " * len(head), break_long_words=False)
