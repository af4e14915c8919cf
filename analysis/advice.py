"""Commands that a reader is told of: the one that makes what an analysis lacks, and the analyses themselves."""

from __future__ import annotations

import json
import re
import shlex

from .load import RunRecord

# They name a folder, which a repetition must not write to.
PLACES = ("name", "resume")


def repeat_command(record: RunRecord | None, *changes: str) -> str:
    """The command line that makes a run again with some settings changed.

    Args:
        record: the run, whose own command line is read from its ``environment.json``; None: the default run.
        changes: settings such as ``"seed=1,2"``; several values, with a comma between them, make a sweep.
    """
    changed = {_key(change) for change in changes}
    kept = [o for o in _overrides(record) if _key(o) not in changed and _key(o) not in PLACES]
    sweep = ["-m"] if any(map(_swept, (*kept, *changes))) else []
    return shlex.join(["python", "-m", "bridges.run", *sweep, *kept, *changes])


def _overrides(record: RunRecord | None) -> list[str]:
    """The settings that a run was given; of a sweep's several values the one that this run had."""
    if record is None:
        return []
    try:
        line = json.loads((record.folder / "environment.json").read_text())["command"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    given = [str(word) for word in line if re.match(r"[+~]{0,2}[A-Za-z_][\w./@]*=", str(word))]
    return [_settled(word, record) if _swept(word) else word for word in given]


def _settled(override: str, record: RunRecord) -> str:
    value = record.config.get(_key(override))
    return override if value is None else f"{override.split('=')[0]}={value}"


def _key(override: str) -> str:
    return override.split("=")[0].lstrip("+~")


def _swept(override: str) -> bool:
    """Whether several values are given, as opposed to one list of them."""
    value = override.partition("=")[2]
    return "," in value and value[0] not in "[{'\""


def program(name: str) -> str:
    """How an analysis is called here: ``analysis`` in a checkout, ``bridges.analysis`` from a wheel."""
    return f"python -m {__package__}.{name}"
