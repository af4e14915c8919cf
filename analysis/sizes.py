"""Sizes of circuits: ``python -m analysis.sizes runs/`` sets sparse circuits beside the dense model's.

The paper's Fig. 2: at equal pretraining loss the sparse model's circuits are about 16 times smaller. A ratio means
something only between circuits that reached the same target, and beside the losses of both models.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bridges.errors import BridgesError

from .circuits import chosen_circuits, geometric_mean
from .command import Result, run_command, table_text, unfinished_text
from .load import Runs
from .overview import overview
from .style import BLACK, BLUE, GREY, VERMILION, log_scale, new_figure

PAPER_RATIO = 16.0
RESAMPLES = 10_000
COUNTED = "counted"
COLUMNS = [
    "run",
    "behaviour",
    "status",
    "target",
    "sparse_nodes",
    "sparse_edges",
    "dense_nodes",
    "dense_edges",
    "node_ratio",
    "edge_ratio",
    "ce_sparse",
    "ce_dense",
]


def sizes(runs: Runs) -> pd.DataFrame:
    """Sparse and dense circuit of each behaviour, side by side.

    Columns: run, behaviour, status (``counted``, or why the pair is not), target (two-way loss, nats), nodes and edges
    (inside the blocks) of the sparse and the dense circuit, ``node_ratio`` and ``edge_ratio`` (dense / sparse; a
    circuit without any counts as one), ``ce_sparse`` and ``ce_dense`` (nats per token of held-out text).
    The ratios are NaN where the pair is not counted.

    Raises:
        BridgesError: no finished run has circuits.
    """
    circuits = chosen_circuits(runs).set_index(["run", "behaviour"])
    if circuits.empty:
        raise BridgesError("Of the runs with circuits none has one of the method it was set to search by.")
    sides = [
        circuits[circuits["model"] == model][["target", "reached", "nodes", "edges"]].add_prefix(f"{model}_")
        for model in ("sparse", "dense")
    ]
    frame = sides[0].join(sides[1], how="outer").reset_index()
    frame["target"] = frame["sparse_target"].fillna(frame["dense_target"])
    frame["status"] = [_status(row) for row in frame.to_dict("records")]
    counted = frame["status"] == COUNTED
    for what in ("node", "edge"):
        ratio = frame[f"dense_{what}s"].clip(lower=1) / frame[f"sparse_{what}s"].clip(lower=1)
        frame[f"{what}_ratio"] = ratio.astype(float).where(counted)
    losses = overview(runs).set_index("run")
    for name in ("ce_sparse", "ce_dense"):
        frame[name] = frame["run"].map(losses[name])
    return frame[COLUMNS].sort_values(["run", "behaviour"], kind="stable", ignore_index=True)


def _status(row: Mapping[Any, Any]) -> str:
    missing = [model for model in ("sparse", "dense") if pd.isna(row[f"{model}_reached"])]
    failed = [model for model in ("sparse", "dense") if model not in missing and not row[f"{model}_reached"]]
    if failed:
        return f"target not reached: {' and '.join(failed)}"
    if missing:
        return f"no {' and no '.join(missing)} circuit"
    return COUNTED if np.isclose(row["sparse_target"], row["dense_target"]) else "different targets"


def size_summary(frame: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Geometric means of `sizes` over the counted behaviours of each run.

    Columns: run, behaviours, left_out, the geometric means of nodes and edges of both models, ``edge_ratio``
    (dense / sparse) with ``edge_ratio_low`` and ``edge_ratio_high`` (95 % percentile bootstrap over behaviours; NaN
    for fewer than two), the same for nodes, ``ce_sparse`` and ``ce_dense`` (nats per token).

    Args:
        seed: of the bootstrap.
    """
    rows = []
    for run, part in frame.groupby("run", sort=True):
        counted = part[part["status"] == COUNTED]
        row: dict[str, object] = {"run": run, "behaviours": len(counted), "left_out": len(part) - len(counted)}
        for column in ("sparse_nodes", "sparse_edges", "dense_nodes", "dense_edges"):
            row[column] = geometric_mean(counted[column])
        for what in ("edge_ratio", "node_ratio"):
            low, high = _interval(counted[what].to_numpy(float), seed)
            mean = geometric_mean(counted[f"dense_{what[:4]}s"]) / geometric_mean(counted[f"sparse_{what[:4]}s"])
            row |= {what: mean, f"{what}_low": low, f"{what}_high": high}
        rows.append(row | {name: part[name].iloc[0] for name in ("ce_sparse", "ce_dense")})
    return pd.DataFrame(rows)


def _interval(ratios: np.ndarray, seed: int) -> tuple[float, float]:
    if len(ratios) < 2:
        return float("nan"), float("nan")
    draws = np.random.default_rng(seed).integers(len(ratios), size=(RESAMPLES, len(ratios)))
    low, high = np.quantile(np.log(ratios)[draws].mean(axis=1), [0.025, 0.975])
    return float(np.exp(low)), float(np.exp(high))


def sizes_figure(frame: pd.DataFrame, seed: int = 0) -> Figure:
    """Draw `sizes`: left, what each behaviour takes (one run) or each run's ratios; right, edges against loss."""
    means = size_summary(frame, seed)
    rows = frame["behaviour"].nunique() if len(means) == 1 else len(means)
    figure, (left, right) = new_figure(5.4, max(3.4, 1.3 + 0.26 * rows), 1, 2)
    if len(means) == 1:
        _dumbbells(left, frame)
    else:
        _ratios(left, frame, means)
    _losses(right, means)
    return figure


def _dumbbells(axis: Axes, frame: pd.DataFrame) -> None:
    order = frame.sort_values(["edge_ratio", "behaviour"], ascending=[True, False], na_position="first")
    y = np.arange(len(order))
    counted = (order["status"] == COUNTED).to_numpy()
    edges = {model: order[f"{model}_edges"].clip(lower=1).to_numpy(float) for model in ("sparse", "dense")}
    axis.hlines(y[counted], edges["sparse"][counted], edges["dense"][counted], color="#CCCCCC", linewidth=2, zorder=1)
    for model, colour, marker in (("sparse", BLUE, "o"), ("dense", VERMILION, "s")):
        axis.plot(edges[model][counted], y[counted], marker, color=colour, markersize=5, label=f"{model} circuit")
    names = [n if c else f"{n} (left out)" for n, c in zip(order["behaviour"], counted, strict=True)]
    axis.set_yticks(y, names, fontsize=8)
    axis.set_ylim(-0.7, len(order) - 0.3)
    axis.set_xlabel("edges")
    if counted.any():
        log_scale(axis, "x")
        axis.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


def _ratios(axis: Axes, frame: pd.DataFrame, means: pd.DataFrame) -> None:
    axis.axvline(1.0, color=GREY, linewidth=1)
    axis.axvline(PAPER_RATIO, color=GREY, linewidth=1, linestyle="--")
    for y, row in enumerate(means.to_dict("records")):
        ratios = frame.loc[(frame["run"] == row["run"]) & (frame["status"] == COUNTED), "edge_ratio"]
        axis.plot(ratios, [y] * len(ratios), "o", color=GREY, alpha=0.5, markersize=4)
        axis.hlines(y, row["edge_ratio_low"], row["edge_ratio_high"], color=BLUE, linewidth=2.4)
        axis.plot(row["edge_ratio"], y, "D", color=BLUE, markersize=6, markeredgecolor="white")
    labels = [f"{row['run']} ({row['behaviours']})" for row in means.to_dict("records")]
    axis.set_yticks(range(len(means)), labels, fontsize=8)
    axis.set_ylim(len(means) - 0.4, -0.6)
    axis.set_xlabel("edges of the dense circuit / of the sparse one\n(dashed: the paper's 16)", fontsize=9)
    log_scale(axis, "x")


def _losses(axis: Axes, means: pd.DataFrame) -> None:
    shown = means[means["behaviours"] > 0]
    for _, row in shown.iterrows():
        x, y = [row["ce_sparse"], row["ce_dense"]], [row["sparse_edges"], row["dense_edges"]]
        axis.plot(x, y, color="#CCCCCC", linewidth=1.2, zorder=1)
    for model, colour, marker in (("sparse", BLUE, "o"), ("dense", VERMILION, "s")):
        axis.plot(shown[f"ce_{model}"], shown[f"{model}_edges"], marker, color=colour, label=f"{model} model")
    axis.set_xlabel("cross-entropy on held-out text (nats per token)")
    axis.set_ylabel("edges, geometric mean", color=BLACK)
    axis.margins(x=0.12)
    if len(shown):
        log_scale(axis, "y")
        axis.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


def sizes_text(frame: pd.DataFrame, seed: int = 0) -> str:
    """Both tables for the terminal (behaviours of one run only), and what was left out and why."""
    behaviours = frame.drop(columns=["ce_sparse", "ce_dense"])
    counts = dict.fromkeys(("sparse_nodes", "sparse_edges", "dense_nodes", "dense_edges"), ".0f")
    means = dict.fromkeys(counts, ".1f") | dict.fromkeys(("edge_ratio", "edge_ratio_low", "edge_ratio_high"), ".2f")
    ratios = {"node_ratio": ".1f", "edge_ratio": ".1f", "target": "g"}
    summary = size_summary(frame, seed)
    left = frame[frame["status"] != COUNTED]
    single = frame["run"].nunique() == 1
    lines = [
        *([table_text(behaviours, counts | ratios) + "\n"] if single else []),
        "Geometric means over the behaviours where both circuits reached the same target; 95 % intervals over "
        "behaviours; cross-entropy (ce) in nats per token:\n",
        table_text(summary, means),
        f"\n{len(frame) - len(left)} of {len(frame)} pairs counted"
        + "".join(f"; {status}: {n}" for status, n in left["status"].value_counts().items()),
    ]
    empty = frame[(frame["status"] == COUNTED) & (frame[["sparse_edges", "dense_edges"]].min(axis=1) == 0)]
    if len(empty):
        lines.append(f"{len(empty)} of them have a circuit without edges, which counts as one edge.")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""

    def make(runs: Runs, _: object) -> Result:
        frame = sizes(runs)
        text = "\n\n".join(filter(None, [sizes_text(frame), unfinished_text(runs)]))
        return Result(text, frame, sizes_figure(frame))

    return run_command("sizes", __doc__, make, arguments)


if __name__ == "__main__":
    sys.exit(main())
