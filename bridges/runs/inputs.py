"""What a run was begun with, and whether it is still the same: its text, its dense model, its file of prompt pairs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from bridges.config import Config
from bridges.data.blocks import TokenBlocks
from bridges.errors import CheckpointError
from bridges.storage.folder import environment, read_json, write_atomically

FILE = "inputs.json"
# Values of each weight matrix that its hash is taken over, evenly spaced: training again changes all of them.
_SAMPLE = 4096
# Libraries whose version can change the last digits of what is computed.
_COMPUTING = ("torch", "transformers", "tokenizers", "numpy")

Inputs = dict[str, dict[str, Any]]


def model_inputs(config: Config, dense: nn.Module) -> Inputs:
    """The dense model: its name and a hash over its weights."""
    return {"model": {"name": config.model.name, "hash": _weights_hash(dense)}}


def text_inputs(config: Config, data: TokenBlocks) -> Inputs:
    """The text: source, documents and tokens of each split, what was left out, and a hash over all tokens."""
    entry = {
        "source": config.data.source,
        "path": config.data.path,
        "documents": data.documents,
        "tokens": {split: int(blocks.size) for split, blocks in data.blocks.items()},
        "skipped": data.skipped,
        "hash": data.fingerprint,
    }
    return {"text": entry}


def behaviour_inputs(config: Config) -> Inputs:
    """The file of prompt pairs: its lines and a hash over its bytes; nothing where there is no such file."""
    if config.behaviours.suite != "file" or not config.behaviours.path:
        return {}
    raw = Path(config.behaviours.path).expanduser().read_bytes()
    lines = sum(bool(line.strip()) for line in raw.split(b"\n"))
    digest = hashlib.blake2b(raw, digest_size=16).hexdigest()
    return {"prompt pairs": {"path": config.behaviours.path, "lines": lines, "hash": digest}}


def check_inputs(
    folder: Path, found: Inputs, allow_changed: bool, *, write: bool = False, say: Callable[[str], None] | None = None
) -> None:
    """Compare what is there now with what the run was begun with.

    Args:
        folder: of the run. found: what `model_inputs`, `text_inputs` and `behaviour_inputs` give now.
        allow_changed: go on where something has changed.
        write: put what is not recorded yet on record, and what has changed and is allowed to.
        say: told what has changed and is allowed to, in one line.

    Raises:
        CheckpointError: something has changed; the message names it, with counts.
    """
    file = folder / FILE
    begun: dict[str, Any] = read_json(file) if file.exists() else {}
    changed = {key: begun[key] for key, entry in found.items() if key in begun and _bare(begun[key]) != _bare(entry)}
    if changed:
        what = " ".join(_difference(key, before, found[key]) for key, before in changed.items())
        if not allow_changed:
            raise CheckpointError(
                f"{folder} was begun with something else. {what} Put back what it was, start a new run, or go on "
                "knowingly: allow_changed=true on the command line, bridges.load(…, allow_changed=True) in Python."
            )
        if say:
            say(f"Going on although it has changed. {what}")
    record = begun | found
    if changed:
        record["earlier"] = [*begun.get("earlier", []), changed]
    if write and record != begun:
        write_atomically(file, json.dumps(record, indent=2) + "\n")


def _bare(entry: dict[str, Any]) -> dict[str, Any]:
    """What counts of an entry: where the same thing lies may change."""
    return {key: value for key, value in entry.items() if key not in ("name", "path")}


def other_versions(folder: Path) -> list[str]:
    """Libraries whose version is not the one that the run was begun with, as ``torch 2.8.0 → 2.9.0``."""
    file = folder / "environment.json"
    begun = read_json(file).get("versions", {}) if file.exists() else {}
    now = environment()["versions"]
    return [f"{p} {begun[p]} → {now[p]}" for p in _COMPUTING if p in begun and p in now and begun[p] != now[p]]


def _difference(key: str, before: dict[str, Any], now: dict[str, Any]) -> str:
    """One sentence on what has changed."""
    if key == "text":
        source = f"data.source={now['source']}" + (f" data.path={now['path']}" if now["path"] else "")
        counts = [_counts(entry) for entry in (before, now)]
        why = {
            "tinypython": " (it holds the sources of Python's standard library: was Python updated?)",
            "python": " (was Python updated?)",
        }.get(now["source"], "")
        if counts[0] == counts[1]:
            return f"Text of {source}: {counts[0]} as before, with other contents{why}."
        return f"Text of {source}: {counts[0]} then, {counts[1]} now{why}."
    if key == "model":
        return f"Dense model {now['name']}: other weights."
    if before["lines"] == now["lines"]:
        return f"Prompt pairs of {now['path']}: {now['lines']} lines as before, with other contents."
    return f"Prompt pairs of {now['path']}: {before['lines']} lines then, {now['lines']} now."


def _counts(text: dict[str, Any]) -> str:
    splits = ", ".join(f"{split} {count:,}" for split, count in text["documents"].items())
    return f"{sum(text['documents'].values()):,} documents ({splits}) with {sum(text['tokens'].values()):,} tokens"


def _weights_hash(model: nn.Module) -> str:
    """A hash over shapes and evenly spaced values of all parameters, whatever their names and order."""
    parts = []
    for p in model.parameters():
        values = p.detach().flatten()
        values = values[:: max(1, len(values) // _SAMPLE)].float().cpu()
        parts.append(hashlib.blake2b(str(tuple(p.shape)).encode() + values.numpy().tobytes(), digest_size=16).digest())
    return hashlib.blake2b(b"".join(sorted(parts)), digest_size=16).hexdigest()
