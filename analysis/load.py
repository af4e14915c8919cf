"""One DataFrame per table over all runs of a folder; reads only what runs wrote, never a model."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from bridges.config import BOOKKEEPING
from bridges.errors import BridgesError, nearest
from bridges.storage.tables import TABLES, read_table, table_names

# Columns every table gets: name -> the config keys it is taken from, the first that is set.
KEY_COLUMNS = {
    "model": ("model.label", "model.name"),
    "sparsity": ("sparsity",),
    "seed": ("seed",),
    "sparse.d_model": ("sparse.d_model",),
    "sparse.n_layer": ("sparse.n_layer",),
}
FILES = ("config.yaml", "status.json")
SKIPPED = {"wandb", "tables", "checkpoints", "model", "bridges", "circuits", "__pycache__"}


@dataclass(frozen=True)
class RunRecord:
    """One readable run.

    Attributes:
        name: its folder's name; where two share one, the path.
        folder: where it is.
        config: dotted keys to values.
        status: what ``status.json`` holds.
    """

    name: str
    folder: Path
    config: dict[str, Any]
    status: dict[str, Any]

    @property
    def state(self) -> str:
        """``running``, ``finished`` or ``failed``."""
        return str(self.status.get("status", "unknown"))

    @property
    def seconds(self) -> float:
        """Wall-clock seconds over all stages."""
        stages = self.status.get("stages") or {}
        return float(sum(stage.get("seconds") or 0.0 for stage in stages.values()))


class Runs(Mapping[str, pd.DataFrame]):
    """The tables of many runs, each with the columns ``run``, ``status`` and the settings.

    Settings are the key ones (model, sparsity, seed, sparse.d_model, sparse.n_layer) and every other one that
    differs between the runs, under its dotted name. Where a table has a column of that name itself, the
    setting's is called ``config.<name>``; a table's own ``run`` or ``status`` is called ``table.<name>``.

    Attributes:
        records: the readable runs.
        problems: run and reason, for every run that is broken, unfinished, or has a table that cannot be read here:
            a damaged one, or one of another version, without columns that this one writes.
        varying: the settings that differ, under the names of their columns.
    """

    def __init__(self, records: list[RunRecord], problems: list[tuple[str, str]]):
        self.records = records
        self.settings, self.varying = _settings(records)
        self._tables: dict[str, pd.DataFrame] = {}
        problems = list(problems)
        parts: dict[str, list[pd.DataFrame]] = {}
        for record in records:
            if record.state != "finished":
                message = record.status.get("message")
                problems.append((record.name, record.state + (f": {message}" if message else "")))
            for name in table_names(record.folder):
                try:
                    frame = read_table(record.folder, name)
                except BridgesError as error:
                    problems.append((record.name, f"table {name}: {error}"))
                    continue
                if lacking := _lacking(frame, name):
                    reason = f"another version wrote it, without {', '.join(lacking)}; it is left out"
                    problems.append((record.name, f"table {name}: {reason}"))
                    continue
                parts.setdefault(name, []).append(self._with_settings(frame, record))
        for name, frames in parts.items():
            self._tables[name] = pd.concat(frames, ignore_index=True)
        self.problems = pd.DataFrame(problems, columns=["run", "reason"])

    def __getitem__(self, name: str) -> pd.DataFrame:
        return self._tables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tables)

    def __len__(self) -> int:
        return len(self._tables)

    def __repr__(self) -> str:
        tables = ", ".join(f"{name}: {len(frame)} rows" for name, frame in self.items()) or "no tables"
        return f"Runs({len(self.records)} runs, {len(self.problems)} problems; {tables})"

    def table(self, name: str) -> pd.DataFrame:
        """One table over all runs.

        Raises:
            BridgesError: no run has it.
        """
        if name not in self._tables:
            hint = nearest(name, self._tables) if self._tables else "No run has written a table yet."
            raise BridgesError(f"None of the {len(self.records)} runs has a table {name!r}. {hint}")
        return self._tables[name]

    def _with_settings(self, frame: pd.DataFrame, record: RunRecord) -> pd.DataFrame:
        frame = frame.rename(columns={"run": "table.run", "status": "table.status"})
        settings = {
            (f"config.{key}" if key in frame.columns else key): value
            for key, value in self.settings.loc[record.name].items()
        }
        front = pd.DataFrame([{"run": record.name, "status": record.state, **settings}] * len(frame))
        return pd.concat([front, frame.reset_index(drop=True)], axis=1)


def load(*folders: str | Path) -> Runs:
    """Read every run below the given folders (default: ``runs``), however deep; a folder may be a run itself.

    A broken run is listed in ``problems`` and left out; an unfinished one is listed and its tables are read.

    Raises:
        BridgesError: a folder is missing or holds no run.
    """
    found: list[Path] = []
    for root in map(Path, folders or ("runs",)):
        if not root.is_dir():
            raise BridgesError(f"There is no folder {root}. Give the one that holds the runs, usually runs/.")
        below = _find(root)
        if not below:
            raise BridgesError(
                f"There are no runs in {root}. Make one with `python -m bridges.run`, which writes to runs/, "
                "or give the folder that holds your runs."
            )
        found += below
    records: list[RunRecord] = []
    problems: list[tuple[str, str]] = []
    names = _names(found)
    for path in names:
        try:
            config, status = _config(path), _status(path)
        except BridgesError as error:
            problems.append((names[path], str(error)))
            continue
        records.append(RunRecord(names[path], path, config, status))
    return Runs(records, problems)


def _lacking(frame: pd.DataFrame, name: str) -> list[str]:
    """Columns that this version writes and the frame does not have; none of a table that only others know."""
    if name not in TABLES:
        return []
    return [c.name for c in TABLES[name].columns if not c.optional and c.name not in frame.columns]


def _find(root: Path) -> list[Path]:
    found = []
    for here, folders, files in os.walk(root):
        if any(name in files for name in FILES):
            found.append(Path(here))
            folders.clear()
        else:
            folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in SKIPPED)
    return found


def _names(folders: list[Path]) -> dict[Path, str]:
    unique = list({path.resolve(): path for path in folders}.items())
    counts = Counter(resolved.name for resolved, _ in unique)
    return {path: full.name if counts[full.name] == 1 else path.as_posix() for full, path in unique}


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.yaml"
    try:
        values = yaml.safe_load(file.read_text())
    except FileNotFoundError:
        raise BridgesError("no config.yaml") from None
    except (yaml.YAMLError, OSError, ValueError, RecursionError) as error:
        raise BridgesError(f"config.yaml cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict) or not values:
        raise BridgesError("config.yaml holds no settings")
    return _flat(values)


def _status(folder: Path) -> dict[str, Any]:
    file = folder / "status.json"
    try:
        values = json.loads(file.read_text())
    except FileNotFoundError:
        raise BridgesError("no status.json") from None
    except (ValueError, RecursionError, OSError) as error:
        raise BridgesError(f"status.json cannot be read: {error}") from error
    if not isinstance(values, dict) or "status" not in values:
        raise BridgesError("status.json holds no status")
    return values


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{prefix}{key}.")
        else:
            # A list as text, so that runs can be grouped by it.
            out[f"{prefix}{key}"] = json.dumps(value) if isinstance(value, list) else value
    return out


def _settings(records: list[RunRecord]) -> tuple[pd.DataFrame, list[str]]:
    """One row of settings per run, and the names of those that differ."""
    configs = pd.DataFrame([record.config for record in records], dtype=object)
    out = pd.DataFrame(index=[record.name for record in records])
    for column, keys in KEY_COLUMNS.items():
        values = pd.Series([None] * len(records), dtype=object)
        for key in keys:
            if key in configs.columns:
                values = values.where(values.notna(), configs[key])
        out[column] = values.infer_objects().to_numpy()
    known = {key for keys in KEY_COLUMNS.values() for key in keys}
    for key in sorted(configs.columns):
        if key in known or key.split(".")[0] in BOOKKEEPING:
            continue
        if configs[key].nunique(dropna=False) > 1:
            out[key] = configs[key].infer_objects().to_numpy()
    return out, [column for column in out.columns if out[column].nunique(dropna=False) > 1]
