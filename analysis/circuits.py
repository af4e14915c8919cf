"""One circuit for each run, behaviour and model: the one that sizes are compared by."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from .load import Runs
from .settings import finished_rows

COLUMNS = [
    "run",
    "behaviour",
    "model",
    "method",
    "seed",
    "objective",
    "target",
    "reached",
    "nodes",
    "edges",
    "carried",
    "heldout_fvu",
    "heldout_accuracy",
]


def selected_circuits(runs: Runs) -> pd.DataFrame:
    """The circuits of finished runs, one for each run, behaviour and model (``sparse`` or ``dense``).

    Of several methods the one that the run was set to search by (``circuits.method``, learned pruning by default)
    counts, of several searches the one of the smallest seed: baselines and repeats are there to be compared with.

    Raises:
        BridgesError: no finished run has circuits.
    """
    frame = finished_rows(runs, "circuits")
    methods = {record.name: str(record.config.get("circuits.method") or "learned") for record in runs.records}
    frame = frame[frame["method"] == frame["run"].map(methods)]
    frame = frame.sort_values(["run", "behaviour", "model", "seed"], kind="stable")
    frame = frame.drop_duplicates(["run", "behaviour", "model"], keep="first")
    return frame[COLUMNS].astype({"reached": bool}).reset_index(drop=True)


def geometric_mean(sizes: Iterable[float]) -> float:
    """Geometric mean of numbers of nodes or edges; NaN of nothing.

    Circuits without edges (a bigram table does the behaviour) are left out: no mean has a place for them.
    """
    values = np.asarray(list(sizes), dtype=float)
    values = values[values > 0]
    return float(np.exp(np.log(values).mean())) if len(values) else float("nan")
