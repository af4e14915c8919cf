"""One circuit for each run, behaviour and model: the one that sizes are compared by."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from .load import Runs
from .settings import finished_rows

COLUMNS = ["run", "behaviour", "model", "method", "seed", "nodes", "edges", "target", "reached", "heldout_accuracy"]


def chosen_circuits(runs: Runs) -> pd.DataFrame:
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

    A circuit without edges (the bias alone decides) counts as one edge, since the mean has no place for 0.
    """
    values = np.asarray(list(sizes), dtype=float)
    return float(np.exp(np.log(np.maximum(values, 1.0)).mean())) if len(values) else float("nan")
