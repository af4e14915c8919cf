"""Behaviours that a user wrote: one JSON object with a prompt pair per line.

    {"clean": "x = [1, 2", "counterfactual": "x = {1, 2", "clean_token": "]", "counterfactual_token": "}"}

``"behaviour"`` names the behaviour (else the file's name does), ``"split"`` is ``"train"``, ``"heldout"`` or
``"reach"``. Pairs without a split are dealt out evenly to the first two, so that pairs that share a prompt
stay together; "reach" holds only what the file says.

Rows of the MIB benchmark's data sets (`bridges.behaviours.mib_rows`) are read as they are, from JSON lines, a JSON list
or parquet. Of those, pairs whose answers are not one token each in the tokenizer at hand are passed over, as the
benchmark does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bridges.behaviours.encoded import check
from bridges.behaviours.mib_rows import is_mib_row, prompt_pair
from bridges.behaviours.pair import SPLITS, Answer, Behaviour, BehaviourError, Draft, Split
from bridges.data.text import lone_surrogate, text_lines
from bridges.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REQUIRED = ("clean", "counterfactual", "clean_token", "counterfactual_token")
OPTIONAL = ("split", "behaviour")
# A file system takes 255 bytes; endings and the hash that keeps two names apart come on top.
MAX_NAME_BYTES = 200


class FileBehaviour(Behaviour):
    """Pairs from a file, in random order; a pair that cannot be expressed is an error that names its line.

    Args:
        strict: without it, such a pair is passed over.
    """

    min_pairs = 1

    def __init__(self, name: str, description: str, drafts: dict[Split, list[Draft]], strict: bool = True) -> None:
        self.name, self.description, self.strict = name, description, strict
        self._drafts = drafts

    def templates(self, split: Split) -> tuple[str, ...]:
        return (f"{split}-file",)

    def drafts(self, rng: random.Random, split: Split) -> Iterator[Draft]:
        order = list(self._drafts[split])
        rng.shuffle(order)
        yield from order


def load(path: str | Path, tokenizer: PreTrainedTokenizerBase | None = None) -> dict[str, FileBehaviour]:
    """Read a file of pairs; with a tokenizer, also check at once that each answer is one token.

    Returns:
        The behaviours by name.

    Raises:
        BehaviourError: the file is missing, empty or broken; the message names the line.
    """
    path = Path(path).expanduser()
    lenient: set[str] = set()
    groups: dict[str, list[tuple[Split | None, Draft]]] = defaultdict(list)
    try:
        for source, row in _rows(path):
            if is_mib_row(row):
                try:
                    pair = prompt_pair(row, path.stem)
                except ValueError as error:
                    raise BehaviourError(f"{source}: this is no row of MIB's data sets: {error}.") from None
                if pair is None or pair["clean_token"] == pair["counterfactual_token"]:
                    continue
                row = pair
                lenient.add(pair["behaviour"])
            name, split, draft = _draft(row, source, path.stem)
            if tokenizer is not None and name not in lenient:
                check(draft, tokenizer)
            groups[name].append((split, draft))
    except DataError as error:
        raise BehaviourError(f"The behaviour file cannot be read. {error}") from None
    if not groups:
        raise BehaviourError(f"The behaviour file {path} is empty: one JSON object per line is expected.")
    return {name: _behaviour(name, path, rows, name not in lenient) for name, rows in groups.items()}


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a file, each with the words that name its place."""
    if path.suffix == ".parquet":
        yield from _parquet(path)
        return
    lines = list(text_lines(path))
    if lines and lines[0][1].lstrip().startswith("["):
        with contextlib.suppress(ValueError, RecursionError):
            listed = json.loads("\n".join(line for _, line in lines))
            if all(isinstance(row, dict) for row in listed):
                yield from ((f"{path}, item {number}", row) for number, row in enumerate(listed, 1))
                return
    for number, line in lines:
        yield f"{path}, line {number}", _parsed(line, f"{path}, line {number}")


def _parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise BehaviourError(f"The behaviour file {path} is no readable parquet: {error}") from None
    yield from ((f"{path}, row {number}", row) for number, row in enumerate(rows, 1))


def _parsed(line: str, source: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise BehaviourError(f"{source}: this is no JSON ({error.msg} at column {error.colno}).") from None
    except RecursionError:
        raise BehaviourError(f"{source}: this is no prompt pair (brackets nested too deeply).") from None
    except ValueError:
        # Python reads no whole number of more than some thousand digits.
        raise BehaviourError(f"{source}: this is no prompt pair (a number of too many digits).") from None
    if not isinstance(row, dict):
        raise BehaviourError(f"{source}: a JSON object is expected, not {type(row).__name__}.")
    return row


def _draft(row: dict[str, Any], source: str, default_name: str) -> tuple[str, Split | None, Draft]:
    missing = [key for key in REQUIRED if key not in row]
    if missing:
        raise BehaviourError(f"{source}: missing {', '.join(missing)}; needed: {', '.join(REQUIRED)}.")
    unknown = sorted(set(row) - {*REQUIRED, *OPTIONAL})
    if unknown:
        valid = ", ".join((*REQUIRED, *OPTIONAL))
        raise BehaviourError(f"{source}: unknown {', '.join(unknown)}; valid: {valid}.")
    for key in (*REQUIRED, "behaviour"):
        if key in row and (not isinstance(row[key], str) or not row[key]):
            raise BehaviourError(f"{source}: {key} has to be a text that is not empty, not {row[key]!r}.")
        if key in row and (half := lone_surrogate(row[key])):
            raise BehaviourError(f"{source}: {key} holds {half}, half a character: its other half is missing.")
    split = row.get("split")
    if split is not None and split not in SPLITS:
        raise BehaviourError(f"{source}: split is {split!r}, valid: {', '.join(SPLITS)}.")
    if row["clean"] == row["counterfactual"]:
        raise BehaviourError(f"{source}: clean and counterfactual are the same prompt.")
    if row["clean_token"] == row["counterfactual_token"]:
        raise BehaviourError(f"{source}: both prompts have the same answer {row['clean_token']!r}.")
    first, second = (Answer(row[key], whole=len(row[key])) for key in REQUIRED[2:])
    draft = Draft(row["clean"], first, row["counterfactual"], second, template="", source=source)
    name = row.get("behaviour", default_name)
    if (size := len(name.encode())) > MAX_NAME_BYTES:
        raise BehaviourError(
            f"{source}: the behaviour's name has {size} bytes. Files are named after it, with {MAX_NAME_BYTES} at most."
        )
    return name, split, draft


def _behaviour(name: str, path: Path, rows: list[tuple[Split | None, Draft]], strict: bool) -> FileBehaviour:
    """The behaviour of `rows`; those without a split are dealt out here."""
    where: dict[str, tuple[Split, str]] = {}
    chosen: dict[Split, list[Draft]] = {split: [] for split in SPLITS}

    def put(draft: Draft, split: Split) -> None:
        for prompt in (draft.clean, draft.counterfactual):
            other, source = where.setdefault(prompt, (split, draft.source))
            if other != split:
                raise BehaviourError(
                    f"{draft.source}: this prompt is in two splits, {split} here and {other} in {source}: {prompt!r}."
                )
        chosen[split].append(
            Draft(
                draft.clean,
                draft.clean_answer,
                draft.counterfactual,
                draft.counterfactual_answer,
                f"{split}-file",
                source=draft.source,
            )
        )

    for split, draft in rows:
        if split is not None:
            put(draft, split)
    free = [draft for split, draft in rows if split is None]
    # The order comes from the text alone, so that neither the order of the lines nor a seed moves a pair.
    free.sort(key=lambda d: hashlib.sha256(f"{d.clean}\0{d.counterfactual}".encode()).digest())
    for together in _joined(free):
        known = [where[p] for d in together for p in (d.clean, d.counterfactual) if p in where]
        fewer: Split = "train" if len(chosen["train"]) <= len(chosen["heldout"]) else "heldout"
        for draft in together:
            put(draft, known[0][0] if known else fewer)
    return FileBehaviour(name, f"Pairs of {path.name}.", chosen, strict)


def _joined(drafts: list[Draft]) -> list[list[Draft]]:
    """Pairs that share a prompt, directly or through others, together; in the order of the first of each."""
    group: dict[str, list[Draft]] = {}
    for draft in drafts:
        mine = [draft]
        for other in {id(g): g for p in (draft.clean, draft.counterfactual) if (g := group.get(p))}.values():
            mine = other + mine
        for member in mine:
            group[member.clean] = group[member.counterfactual] = mine
    return list({id(g): g for d in drafts for g in (group[d.clean],)}.values())
