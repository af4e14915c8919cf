"""Reading and writing the tables of a run's folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bridges.errors import BridgesError, CheckpointError, nearest
from bridges.storage.folder import whole_folder
from bridges.storage.tables.column import SCHEMA_VERSION, Table
from bridges.storage.tables.registry import TABLES


def schema(name: str) -> Table:
    """The registered table of that name.

    Raises:
        BridgesError: there is none.
    """
    if name not in TABLES:
        raise BridgesError(f"There is no table {name!r}. {nearest(name, TABLES)}")
    return TABLES[name]


def table_path(folder: str | Path, name: str) -> Path:
    """Where the run in ``folder`` keeps the table."""
    return Path(folder) / "tables" / f"{name}.parquet"


def table_names(folder: str | Path) -> list[str]:
    """The tables that the run in ``folder`` has written."""
    return sorted(path.stem for path in (Path(folder) / "tables").glob("*.parquet"))


def write_table(folder: str | Path, name: str, frame: pd.DataFrame) -> Path:
    """Write one table of a run, whole or not at all.

    Equal frames give equal bytes: rows stay in order, columns go in the registry's, the index is dropped.

    Args:
        folder: the run's folder.
        name: a table of `TABLES`.
        frame: the rows.

    Returns:
        the file written.

    Raises:
        BridgesError: the frame does not fit the table.
    """
    table = schema(name).arrow(frame)
    path = table_path(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        pq.write_table(table, temporary, compression="zstd")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def read_table(folder: str | Path, name: str) -> pd.DataFrame:
    """Read one table of a run.

    Args:
        folder: the run's folder.
        name: the table; also one that only a later stage or another version registers.

    Raises:
        CheckpointError: the run has no such table, or its file is damaged.
        BridgesError: a newer version of Bridges wrote it.
    """
    path = table_path(folder, name)
    if not path.is_file():
        hint = _present(folder, name, table_names(folder))
        raise CheckpointError(f"{folder} has no table {name!r}. {hint}")
    try:
        table = pq.read_table(path)
        version = int((table.schema.metadata or {})[b"bridges.schema_version"])
    except (pa.ArrowException, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({error}). Run the stage that writes it again.") from error
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path} was not written by Bridges: it states no schema version.") from error
    if version > SCHEMA_VERSION:
        raise BridgesError(
            f"{path} has schema version {version}; this Bridges reads up to {SCHEMA_VERSION}. Update Bridges."
        )
    return table.to_pandas()


def _present(folder: str | Path, name: str, names: Iterable[str]) -> str:
    names = list(names)
    if names:
        return nearest(name, names)
    return f"It has no tables yet; look into {Path(folder) / 'status.json'} for how far the run came."


def write_part(folder: str | Path, tables: Mapping[str, list[dict[str, Any]]]) -> None:
    """Write a folder of tables that appears whole or not at all, for work that is done piece by piece.

    Args:
        folder: of this piece. tables: ``{name: rows}``.
    """
    with whole_folder(Path(folder)) as place:
        for name, rows in tables.items():
            table = schema(name)
            # pandas makes floats of integers where some are missing.
            integers = {c.name: "Int64" for c in table.columns if c.kind == "int" and c.optional}
            write_table(place, name, pd.DataFrame(rows, columns=table.names).astype(integers))
