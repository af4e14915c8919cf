"""What a report is made from: the files of one run's folder, any of which may not be there yet."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from bridges.errors import CheckpointError
from bridges.report.names import Names, read_names
from bridges.storage.tables import read_table, table_path

# table -> the stage that writes it
STAGES = {
    **dict.fromkeys(("training",), "train"),
    **dict.fromkeys(("sites", "paths", "sparsity"), "evaluate"),
    "profile": "prepare",
    "scope": "scope",
    **dict.fromkeys(("suite", "behaviours"), "behaviours"),
    **dict.fromkeys(("circuits", "nodes", "edges", "activations", "prompt_activations"), "circuits"),
    **dict.fromkeys(("controls", "faithfulness"), "circuits"),
    **dict.fromkeys(("agreement", "transfer", "similarity", "claims", "verdicts"), "compare"),
}
# Where a run was written and how it was tracked is no part of what it found, and differs between equal runs.
BOOKKEEPING = ("runs_dir", "name", "resume", "tracking")
# The command names the run's folder; a resumed run has another one than an uninterrupted run.
LEFT_OUT = ("command",)


class Source:
    """The files of one run.

    Args:
        folder: the run's folder.

    Raises:
        CheckpointError: there is no run there, or one of its files is damaged.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if not (self.folder / "config.yaml").is_file():
            raise CheckpointError(
                f"{folder} is no run folder: it has no config.yaml. Give the folder that `bridges run` wrote."
            )
        self._tables: dict[str, pd.DataFrame | None] = {}
        self._by_behaviour: dict[str, dict[str, list[dict[str, Any]]]] = {}

    @cached_property
    def config(self) -> dict[str, Any]:
        """Settings without `BOOKKEEPING`; read as they are, so that a run of another version can be shown."""
        try:
            values = yaml.safe_load((self.folder / "config.yaml").read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{self.folder / 'config.yaml'} is damaged: {error}") from error
        if not isinstance(values, dict):
            raise CheckpointError(f"{self.folder / 'config.yaml'} is damaged: it holds no settings.")
        return {key: value for key, value in values.items() if key not in BOOKKEEPING}

    def _json(self, name: str) -> dict[str, Any]:
        file = self.folder / name
        if not file.is_file():
            return {}
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{file} is damaged: {error}") from error
        if not isinstance(values, dict):
            raise CheckpointError(f"{file} is damaged: it holds no object.")
        return values

    @cached_property
    def names(self) -> Names:
        """What a reader has called nodes."""
        return read_names(self.folder)

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Versions, commit and machine; empty where the file is missing."""
        return {key: value for key, value in self._json("environment.json").items() if key not in LEFT_OUT}

    @cached_property
    def stages(self) -> dict[str, str]:
        """Each stage's status, without its seconds and without the stage that writes the report."""
        stages = self._json("status.json").get("stages") or {}
        return {name: str(stage.get("status")) for name, stage in stages.items() if name != "report"}

    def table(self, name: str) -> pd.DataFrame | None:
        """The table, or None where the run has not written it or it has no rows."""
        if name not in self._tables:
            present = table_path(self.folder, name).is_file()
            frame = read_table(self.folder, name) if present else None
            self._tables[name] = None if frame is None or frame.empty else frame
        return self._tables[name]

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The table's rows in order; none where there is no table."""
        frame = self.table(name)
        return [] if frame is None else [{str(k): v for k, v in row.items()} for row in frame.to_dict("records")]

    def of(self, name: str, behaviour: str) -> list[dict[str, Any]]:
        """The table's rows of one behaviour, in order."""
        if name not in self._by_behaviour:
            found: dict[str, list[dict[str, Any]]] = {}
            for row in self.rows(name):
                found.setdefault(row["behaviour"], []).append(row)
            self._by_behaviour[name] = found
        return self._by_behaviour[name].get(behaviour, [])

    def setting(self, key: str) -> Any:
        """The setting under a dotted name; None where there is none."""
        value: Any = self.config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    def missing(self, name: str) -> str:
        """A sentence about the stage that writes a table that is not there or has no rows (of a behaviour)."""
        stage = STAGES[name]
        if table_path(self.folder, name).is_file():
            rows = "no rows" if self.table(name) is None else "no rows of this behaviour"
            return f"The stage “{stage}” has run; its table “{name}” has {rows}."
        state = self.stages.get(stage)
        been = {"failed": "has failed", "running": "was not finished", "finished": "has written no such table"}
        return (
            f"The stage “{stage}”, which writes the table “{name}”, {been.get(state or '', 'has not run')}. "
            "To do what is missing: bridges run resume=runs/<folder>"
        )
