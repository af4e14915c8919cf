"""Tidy tables of a run on disk: what is measured is a row, and every figure is made from these files alone.

Wall-clock figures go to ``timing`` only, so that every other table is byte-identical when a run is repeated or resumed.
"""

from bridges.storage.tables.column import SCHEMA_VERSION, Column, Table
from bridges.storage.tables.files import read_table, schema, table_names, table_path, write_part, write_table
from bridges.storage.tables.hybrids import BRIDGES, LOSS_TERMS, PATH_KINDS
from bridges.storage.tables.registry import TABLES

__all__ = [
    "BRIDGES",
    "LOSS_TERMS",
    "PATH_KINDS",
    "SCHEMA_VERSION",
    "TABLES",
    "Column",
    "Table",
    "read_table",
    "schema",
    "table_names",
    "table_path",
    "write_part",
    "write_table",
]
