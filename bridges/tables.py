"""Tidy tables of a run on disk: what is measured is a row, and every figure is made from these files alone.

To add a table, add one entry to `TABLES`. Wall-clock figures go to ``timing`` only, so that every other table
is byte-identical when a run is repeated or resumed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bridges.errors import BridgesError, CheckpointError, nearest

SCHEMA_VERSION = 1
LOSS_TERMS = ("ce", "kl", "nmse_encoder", "nmse_decoder", "kl_d2s", "kl_s2d")
BRIDGES = ("trained", "untrained", "ridge")
PATH_KINDS = (
    "pure_dense",
    "pure_sparse",
    "bigram",
    "single_d2s",
    "single_s2d",
    "round_trip_dense",
    "round_trip_sparse",
    "double_dsd",
    "double_sds",
)

Kind = Literal["int", "float", "str", "bool"]
_ARROW: dict[Kind, pa.DataType] = {
    "int": pa.int64(),
    "float": pa.float64(),
    "str": pa.string(),
    "bool": pa.bool_(),
}


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: as in the file.
        kind: its type. A float may always be missing (NaN); the other kinds only where ``optional``.
        meaning: one line, with the unit.
        optional: the column, or any of its values, may be missing.
        choices: the only values it takes, empty for any.
    """

    name: str
    kind: Kind
    meaning: str
    optional: bool = False
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """One table: what a row is, and its columns in the order of the file."""

    name: str
    row: str
    columns: tuple[Column, ...]

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return [column.name for column in self.columns]

    def arrow(self, frame: pd.DataFrame) -> pa.Table:
        """The frame checked against this table, its columns in the registry's order and types.

        Raises:
            BridgesError: an unknown or missing column, a missing value, or a value of another type.
        """
        for given in frame.columns:
            if given not in self.names:
                raise BridgesError(f"Table {self.name!r} has no column {given!r}. {nearest(given, self.names)}")
        if not frame.columns.is_unique:
            raise BridgesError(f"Table {self.name!r} got a column twice: {list(frame.columns)}.")
        missing = [c.name for c in self.columns if not c.optional and c.name not in frame.columns]
        if missing:
            raise BridgesError(
                f"Table {self.name!r} needs the columns {', '.join(missing)}; got {', '.join(map(str, frame.columns))}."
            )
        kept = [column for column in self.columns if column.name in frame.columns]
        arrays = [self._array(column, frame[column.name]) for column in kept]
        metadata = {"bridges.table": self.name, "bridges.schema_version": str(SCHEMA_VERSION)}
        fields = [pa.field(column.name, _ARROW[column.kind]) for column in kept]
        return pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata))

    def _array(self, column: Column, values: pd.Series) -> pa.Array:
        where = f"Table {self.name!r}, column {column.name!r}"
        try:
            array = pa.Array.from_pandas(values).cast(_ARROW[column.kind])
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            expected = f"{column.kind} values ({column.meaning})"
            raise BridgesError(f"{where}: expected {expected}; {error}") from error
        if array.null_count and column.kind != "float" and not column.optional:
            raise BridgesError(f"{where}: {array.null_count} of {len(array)} values are missing.")
        if column.choices:
            for value in array.unique().drop_null().to_pylist():
                if value not in column.choices:
                    raise BridgesError(f"{where}: unknown value {value!r}. {nearest(value, column.choices)}")
        return array


def _with_interval(name: str, meaning: str) -> tuple[Column, ...]:
    return (
        Column(name, "float", meaning),
        Column(f"{name}_low", "float", f"lower end of the interval of {name}"),
        Column(f"{name}_high", "float", f"upper end of the interval of {name}"),
    )


_TERMS = tuple(
    column
    for term in LOSS_TERMS
    for column in (
        Column(term, "float", f"loss term {term}, raw", optional=True),
        Column(f"{term}_weighted", "float", f"loss term {term} times its coefficient", optional=True),
    )
)
_N_SEQUENCES = Column("n_sequences", "int", "sequences measured on")
_SPLIT = Column("split", "str", "split of the corpus measured on")

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        Table(
            "training",
            "one logged training step",
            (
                Column("step", "int", "optimizer steps done"),
                Column("tokens", "int", "training tokens seen"),
                Column("total", "float", "the loss that is back-propagated: the sum of the weighted terms"),
                *_TERMS,
                Column("lr", "float", "learning rate of this step", optional=True),
                Column("l0_target", "float", "fraction of weights the schedule lets be nonzero", optional=True),
                Column("l0_actual", "float", "fraction of weights that are nonzero", optional=True),
                Column("grad_rms", "float", "RMS over all gradients, before clipping", optional=True),
                Column("dead_neurons", "int", "MLP neurons that no weight enters or none leaves", optional=True),
            ),
        ),
        Table(
            "timing",
            "one logged training step",
            (
                Column("step", "int", "optimizer steps done"),
                Column("seconds", "float", "wall-clock seconds of training so far"),
                Column("tokens_per_second", "float", "training tokens per second since the row before"),
            ),
        ),
        Table(
            "sites",
            "one pair of sites under one set of bridges",
            (
                Column("bridges", "str", "which bridges", choices=BRIDGES),
                Column("pair", "int", "index of the pair, from the embedding up"),
                Column("dense_site", "int", "site in the dense model"),
                Column("sparse_site", "int", "site in the sparse model"),
                Column("nmse_encoder", "float", "NMSE of the encoded dense state against the sparse state"),
                Column("nmse_decoder", "float", "NMSE of the decoded sparse state against the dense state"),
                Column("fvu_encoder", "float", "fraction of variance unexplained by the encoder"),
                Column("fvu_decoder", "float", "fraction of variance unexplained by the decoder"),
                *_with_interval("kl_d2s", "KL(dense || hybrid dense to sparse at this pair), nats per token"),
                *_with_interval("kl_s2d", "KL(dense || hybrid sparse to dense at this pair), nats per token"),
                _N_SEQUENCES,
                _SPLIT,
            ),
        ),
        Table(
            "paths",
            "one mixed path",
            (
                Column(
                    "bridges",
                    "str",
                    "which bridges; none where the path crosses no bridge",
                    optional=True,
                    choices=(*BRIDGES, "none"),
                ),
                Column("path", "str", "segments in order, such as D0-S3-D8"),
                Column("kind", "str", "what sort of path", choices=PATH_KINDS),
                Column("crossings", "int", "bridges crossed"),
                *_with_interval("ce", "cross-entropy with the next token, nats per token"),
                *_with_interval("kl", "KL(dense || path) over the full vocabulary, nats per token"),
                _N_SEQUENCES,
                Column("n_tokens", "int", "predicted tokens measured on"),
                _SPLIT,
            ),
        ),
        Table(
            "sparsity",
            "one weight matrix of the sparse model",
            (
                Column("matrix", "str", "name of the parameter"),
                Column("rows", "int", "its rows"),
                Column("columns", "int", "its columns"),
                Column("numel", "int", "its entries"),
                Column("budget", "int", "entries that may be nonzero"),
                Column("nonzeros", "int", "entries that are nonzero"),
                Column("fraction", "float", "nonzeros / numel"),
            ),
        ),
    )
}


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
