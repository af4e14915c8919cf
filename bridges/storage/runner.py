"""What is done behaviour by behaviour: workers, parts on disk, resuming, progress and order, in one place.

What is finished of a behaviour lies in a folder of its own until all are done, so that a kill costs no more than one;
the tables are put together from those parts in the order asked for, whoever computed them.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from bridges.storage.tables import TABLES, read_table, table_path, write_part
from bridges.storage.workers import workers

Rows = Mapping[str, list[dict[str, Any]]]


class Worker(Protocol):
    """What one worker works with, such as a run's context with stacks of its own."""

    def halt(self) -> None:
        """Stop what is going on in it."""


def file_name(name: str) -> str:
    """A file name for a behaviour, whatever its name: unusual characters are replaced and a hash keeps names apart."""
    plain = re.sub(r"[^\w.-]", "_", name).lstrip(".")
    if plain == name:
        return plain
    return f"{plain}-{hashlib.blake2b(name.encode(), digest_size=3).hexdigest()}"


def run_each(
    place: Path,
    names: Sequence[str],
    tables: Sequence[str],
    own: Sequence[Any],
    work: Callable[[Any, str], Rows],
    done: Callable[[str], None] = lambda name: None,
    order: Sequence[str] | None = None,
) -> dict[str, pd.DataFrame]:
    """The tables of ``work`` over all names.

    Args:
        place: where parts are kept; whoever has written the tables removes it.
        names: in the order of the tables' rows. tables: that ``work`` gives rows of.
        own: the workers. work: the rows of one behaviour, ``{table: rows}``.
        done: told each name when its part is on disk, those of an earlier process at once.
        order: in which they are worked on (None: that of ``names``); long ones first leave least to wait for.

    Returns:
        ``{table: rows}``.
    """
    left = [name for name in (names if order is None else order) if not _whole(place / file_name(name), tables)]
    for name in names:
        if name not in left:
            done(name)

    def piece(mine: Any, name: str) -> None:
        shutil.rmtree(place / file_name(name), ignore_errors=True)
        write_part(place / file_name(name), work(mine, name))
        done(name)

    def halt() -> None:
        for mine in own:
            mine.halt()

    with workers(own, halt) as each:
        for _ in each(piece, left):
            pass
    return {table: gathered(place, names, table) for table in tables}


def _whole(part: Path, tables: Sequence[str]) -> bool:
    """Whether a part is there with all of its tables; one that another version left lacks some, and is done again."""
    return part.is_dir() and all(table_path(part, table).is_file() for table in tables)


def gathered(place: Path, names: Sequence[str], table: str) -> pd.DataFrame:
    """One table from the parts of these names."""
    frames = [read_table(place / file_name(name), table) for name in names]
    frames = [frame for frame in frames if len(frame)]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=TABLES[table].names)
