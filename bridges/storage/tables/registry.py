"""Every table there is. To add one, add it to the file of its subject."""

from __future__ import annotations

from bridges.storage.tables.behaviours import BEHAVIOUR_TABLES
from bridges.storage.tables.circuits import CIRCUIT_TABLES
from bridges.storage.tables.column import Table
from bridges.storage.tables.hybrids import BRIDGE_TABLES
from bridges.storage.tables.verdicts import VERDICT_TABLES

TABLES: dict[str, Table] = {
    table.name: table for table in (*BRIDGE_TABLES, *BEHAVIOUR_TABLES, *CIRCUIT_TABLES, *VERDICT_TABLES)
}
