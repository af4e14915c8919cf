"""What a study has found, as tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bridges.config.search import CircuitSettings
from bridges.errors import BridgesError
from bridges.storage.tables.behaviours import BEHAVIOUR, SEED
from bridges.storage.tables.circuits import MODEL
from bridges.storage.tables.column import Column, Table
from bridges.tuning.circuits.ranges import RANGES
from bridges.tuning.circuits.trial import tried
from bridges.tuning.optuna_study import counted

OPTUNA_STATES = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
STATES = ("complete", "pruned", "failed")
SEARCHES = Table(
    "searches",
    "one search for one behaviour's circuit, in one trial of a study",
    (
        Column("trial", "int", "number of the trial, from 0"),
        Column("state", "str", "what became of the trial", choices=STATES),
        BEHAVIOUR,
        MODEL,
        SEED,
        *(Column(name, "float", f"the trial's {name}") for name in RANGES),
        Column("nodes", "int", "kept nodes"),
        Column("edges", "int", "kept weights between kept nodes, inside the blocks", optional=True),
        Column("target", "float", "two-way loss the circuit had to reach, nats"),
        Column("reached", "bool", "whether it did on the training pairs"),
        Column("train_loss", "float", "two-way loss on the training pairs, calibrated, nats"),
        Column("score", "float", "log10 of edges (nodes where edges are off); see `score` where it did not reach"),
    ),
)


@dataclass(frozen=True)
class Study:
    """What a study has found.

    Attributes:
        settings: of the best trial; what was not tuned is as given.
        value: of that trial, the mean `score` over behaviours; 10**value is the geometric mean of edges where every
            circuit reached its target.
        trials: one row per trial: number, state, value (NaN unless complete), the tuned settings, behaviours searched,
            circuits that reached their target, seconds of searching, error.
        table: one row per search, columns of `SEARCHES`.
    """

    settings: CircuitSettings
    value: float
    trials: pd.DataFrame
    table: pd.DataFrame

    @property
    def best(self) -> dict[str, float]:
        """The tuned settings of the best trial."""
        return {name: getattr(self.settings, name) for name in RANGES}

    @property
    def overrides(self) -> list[str]:
        """The same as arguments of ``python -m bridges.run``."""
        return [f"circuits.{name}={value:g}" for name, value in self.best.items()]


def result_of(
    study: Any, settings: CircuitSettings, ranges: Mapping[str, tuple[float, float]], seed: int, model: str
) -> Study:
    """Everything in the storage as tables, and the best trial."""
    names = {optuna_s: ours for ours, optuna_s in OPTUNA_STATES.items()}
    rows: list[dict[str, Any]] = []
    searches: list[dict[str, Any]] = []
    used: list[CircuitSettings] = []
    for index, trial in enumerate(counted(study)):
        found, state = trial.user_attrs.get("found", []), names[trial.state.name]
        used.append(tried(settings, {n: v for n, v in trial.params.items() if n in ranges}))
        values = {name: getattr(used[-1], name) for name in RANGES}
        head = {"trial": index, "state": state}
        rows.append(
            head
            | {"value": trial.value if state == "complete" else math.nan}
            | values
            | {
                "behaviours": len(found),
                "reached": sum(row["reached"] for row in found),
                "seconds": sum(row["seconds"] for row in found),
                "error": trial.user_attrs.get("error"),
            }
        )
        shared = head | {"model": model, "seed": seed, "target": settings.target} | values
        searches += [shared | {k: v for k, v in row.items() if k != "seconds"} for row in found]
    frame = pd.DataFrame(rows)
    table = pd.DataFrame(searches, columns=SEARCHES.names)
    table["edges"] = table["edges"].astype("Int64")
    complete = frame[frame["state"] == "complete"]
    if complete.empty:
        raise BridgesError(f"None of {len(frame)} trials was completed. The last one: {frame['error'].iloc[-1]}")
    # Only complete trials have a value; of equal ones the earlier stays.
    best = int(frame["value"].argmin())
    return Study(used[best], float(frame["value"][best]), frame, table)
