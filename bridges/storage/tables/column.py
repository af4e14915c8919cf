"""What a table of a run looks like: its columns, their types and what they mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pandas as pd
import pyarrow as pa

from bridges.errors import BridgesError, nearest

SCHEMA_VERSION = 2

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


def with_interval(name: str, meaning: str, optional: bool = False) -> tuple[Column, ...]:
    return (
        Column(name, "float", meaning, optional=optional),
        Column(f"{name}_low", "float", f"lower end of the interval of {name}", optional=optional),
        Column(f"{name}_high", "float", f"upper end of the interval of {name}", optional=optional),
    )
