"""Sizes of circuits: ``python -m analysis.sizes runs/`` sets sparse circuits beside the dense model's, as published.

The paper's Fig. 2: at equal pretraining loss the sparse model's circuits are about 16 times smaller, by the geometric
mean of edges over tasks. A ratio means something only between circuits of one objective that reached the same target,
beside the losses of both models, and beside how many behaviours have a circuit in each. Circuits without edges, the
work of a bigram table, are listed apart: they enter no mean.
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

from .advice import repeat_command
from .circuits import geometric_mean, selected_circuits
from .command import Result, run_command, table_text, unfinished_text
from .load import Runs
from .overview import overview
from .style import BLACK, BLUE, GREY, VERMILION, log_scale, new_figure

PAPER_RATIO = 16.0
PAPER_OBJECTIVE = "task_loss"
RESAMPLES = 10_000
COUNTED = "counted"
WITHOUT_EDGES = "without edges"
MODELS = ("sparse", "dense")
LOOKS = (("sparse", BLUE, "o"), ("dense", VERMILION, "s"))
COLUMNS = [
    "run",
    "behaviour",
    "status",
    "objective",
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

    Columns: run, behaviour, status (``counted``, or why the pair is not), objective and target (unexplained variance,
    or nats of two-way loss), nodes and edges (inside the blocks) of the sparse and the dense circuit (NaN where none
    reached the target), ``node_ratio`` and ``edge_ratio`` (dense / sparse; NaN where the pair is not counted),
    ``ce_sparse`` and ``ce_dense`` (nats per token of held-out text).

    Raises:
        BridgesError: no finished run has circuits.
    """
    circuits = _circuits(runs).set_index(["run", "behaviour"])
    columns = ["objective", "target", "reached", "nodes", "edges"]
    sides = [circuits[circuits["model"] == model][columns].add_prefix(f"{model}_") for model in MODELS]
    frame = sides[0].join(sides[1], how="outer").reset_index()
    for name in ("objective", "target"):
        frame[name] = frame[f"sparse_{name}"].fillna(frame[f"dense_{name}"])
    frame["status"] = [_status(row) for row in frame.to_dict("records")]
    counted = frame["status"] == COUNTED
    for what in ("node", "edge"):
        for model in MODELS:
            found = frame[f"{model}_reached"].map(lambda reached: not pd.isna(reached) and bool(reached))
            frame[f"{model}_{what}s"] = frame[f"{model}_{what}s"].astype(float).where(found)
        frame[f"{what}_ratio"] = (frame[f"dense_{what}s"] / frame[f"sparse_{what}s"]).where(counted)
    losses = overview(runs).set_index("run")
    for name in ("ce_sparse", "ce_dense"):
        frame[name] = frame["run"].map(losses[name])
    return frame[COLUMNS].sort_values(["run", "behaviour"], kind="stable", ignore_index=True)


def _circuits(runs: Runs) -> pd.DataFrame:
    circuits = selected_circuits(runs)
    if circuits.empty:
        raise BridgesError("Of the runs with circuits none has one of the method it was set to search by.")
    return circuits


def _status(row: Mapping[Any, Any]) -> str:
    missing = [model for model in MODELS if pd.isna(row[f"{model}_reached"])]
    failed = [model for model in MODELS if model not in missing and not row[f"{model}_reached"]]
    if failed:
        return f"target not reached: {' and '.join(failed)}"
    if bare := [model for model in MODELS if model not in missing and row[f"{model}_edges"] == 0]:
        return f"{WITHOUT_EDGES}: {' and '.join(bare)}"
    if missing:
        return f"no {' and no '.join(missing)} circuit"
    if row["sparse_objective"] != row["dense_objective"]:
        return "different objectives"
    return COUNTED if np.isclose(row["sparse_target"], row["dense_target"]) else "different targets"


def coverage(runs: Runs) -> pd.DataFrame:
    """How many behaviours have a circuit, and its size, for each run and model that was searched.

    Columns: run, model, objective, target, behaviours (searched for), found (a circuit reached the target),
    ``without_edges`` (of those, in no mean), nodes and edges (geometric means over the other found ones; each model's
    own behaviours), ce (of the model, nats per token of held-out text).

    Raises:
        BridgesError: no finished run has circuits.
    """
    losses = overview(runs).set_index("run")
    rows = []
    for (run, model), part in _circuits(runs).groupby(["run", "model"], sort=True):
        found = part[part["reached"]]
        counted = found[found["edges"] > 0]
        row = {"run": run, "model": model, "objective": part["objective"].iloc[0], "target": part["target"].iloc[0]}
        row |= {"behaviours": len(part), "found": len(found), "without_edges": len(found) - len(counted)}
        row |= {name: geometric_mean(counted[name]) for name in ("nodes", "edges")}
        rows.append(row | {"ce": losses[f"ce_{model}"][str(run)]})
    return pd.DataFrame(rows).sort_values(["run", "model"], ascending=[True, False], ignore_index=True)


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
    figure, axes = new_figure(5.4, max(3.4, 1.3 + 0.26 * rows), 1, 2)
    if len(means) == 1:
        _dumbbells(axes[0], frame)
    else:
        _ratios(axes[0], frame, means)
    _losses(axes[1], frame, means)
    return figure


def _dumbbells(axis: Axes, frame: pd.DataFrame) -> None:
    order = frame.sort_values(["edge_ratio", "behaviour"], ascending=[True, False], na_position="first")
    y = np.arange(len(order))
    counted = (order["status"] == COUNTED).to_numpy()
    edges = {model: order[f"{model}_edges"].to_numpy(float) for model in MODELS}
    axis.hlines(y[counted], edges["sparse"][counted], edges["dense"][counted], color="#CCCCCC", linewidth=2, zorder=1)
    for model, colour, marker in LOOKS:
        axis.plot(edges[model][counted], y[counted], marker, color=colour, markersize=5, label=f"{model} circuit")
        alone = ~counted & (edges[model] > 0)
        if alone.any():
            hollow = axis.plot(edges[model][alone], y[alone], marker, color=colour, markersize=5)[0]
            hollow.set(markerfacecolor="white", label=f"{model}, in no mean")
    reasons = order["status"].str.replace("target not reached", "not found")
    names = order["behaviour"].where(counted, order["behaviour"] + " (" + reasons + ")")
    axis.set_yticks(y, names, fontsize=8)
    axis.set_ylim(-0.7, len(order) - 0.3)
    axis.set_xlabel("edges")
    if any((values > 0).any() for values in edges.values()):
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


def _losses(axis: Axes, frame: pd.DataFrame, means: pd.DataFrame) -> None:
    """Edges against loss; a model whose circuits have no counterpart is drawn alone and hollow."""
    shown = means[means["behaviours"] > 0]
    for _, row in shown.iterrows():
        x, y = [row["ce_sparse"], row["ce_dense"]], [row["sparse_edges"], row["dense_edges"]]
        axis.plot(x, y, color="#CCCCCC", linewidth=1.2, zorder=1)
    drawn = len(shown) > 0
    for model, colour, marker in LOOKS:
        if len(shown):
            axis.plot(shown[f"ce_{model}"], shown[f"{model}_edges"], marker, color=colour, label=f"{model} model")
        rest = frame[~frame["run"].isin(shown["run"])].groupby("run")
        edges = rest[f"{model}_edges"].agg(geometric_mean).dropna()
        if len(edges):
            losses = rest[f"ce_{model}"].first()[edges.index]
            axis.plot(losses, edges, marker, color=colour, markerfacecolor="white", label=f"{model} model alone")
            drawn = True
    axis.set_xlabel("cross-entropy on held-out text (nats per token)")
    axis.set_ylabel("edges, geometric mean", color=BLACK)
    axis.margins(x=0.12)
    if drawn:
        log_scale(axis, "y")
        axis.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


def sizes_text(frame: pd.DataFrame, found: pd.DataFrame, seed: int = 0) -> str:
    """The tables for the terminal (behaviours of one run only), and what is in no mean and why.

    Args:
        frame: of `sizes`. found: of `coverage`. seed: of the bootstrap.
    """
    behaviours = frame.drop(columns=["run", "objective", "target", "ce_sparse", "ce_dense"])
    counts = dict.fromkeys(("sparse_nodes", "sparse_edges", "dense_nodes", "dense_edges"), ".0f")
    means = dict.fromkeys(counts, ".1f") | dict.fromkeys(("edge_ratio", "edge_ratio_low", "edge_ratio_high"), ".2f")
    ratios = {"node_ratio": ".1f", "edge_ratio": ".1f"}
    skipped = frame[frame["status"] != COUNTED]
    lines = [
        *([table_text(behaviours, counts | ratios), ""] if frame["run"].nunique() == 1 else []),
        "Behaviours with a circuit in each model; nodes and edges: geometric means over each model's own circuits that "
        "have edges; ce: cross-entropy, nats per token:",
        "",
        table_text(found, {"nodes": ".1f", "edges": ".1f", "target": "g"}),
        "",
        *_paired_text(frame, means, seed),
        f"{len(frame) - len(skipped)} of {len(frame)} pairs counted"
        + "".join(f"; {status}: {n}" for status, n in skipped["status"].value_counts().items()),
        *_bare_text(frame),
    ]
    return "\n".join(lines)


def _paired_text(frame: pd.DataFrame, formats: Mapping[str, str], seed: int) -> list[str]:
    summary = size_summary(frame, seed).drop(columns=["ce_sparse", "ce_dense"])
    if not summary["behaviours"].any():
        return []
    units = "ratio dense / sparse with a 95 % interval over behaviours:"
    what = "Geometric means over the behaviours whose two circuits reached the same target, with edges; " + units
    return [what, "", table_text(summary, formats), ""]


def _bare_text(frame: pd.DataFrame) -> list[str]:
    bare = frame[frame[["sparse_edges", "dense_edges"]].eq(0).any(axis=1)]
    if bare.empty:
        return []
    several = frame["run"].nunique() > 1
    names = []
    for row in bare.to_dict("records"):
        models = " and ".join(model for model in MODELS if row[f"{model}_edges"] == 0)
        names.append(f"{row['behaviour']} ({models}{', ' + row['run'] if several else ''})")
    return [f"Without edges, the work of a bigram table, and so in no mean: {', '.join(names)}"]


def _missing_text(runs: Runs, found: pd.DataFrame) -> str:
    """The command that searches for what would be needed to compare sizes as published."""
    last = next(record for record in reversed(runs.records) if record.name in set(found["run"]))
    lines = []
    if not (found["model"] == "dense").any():
        command = repeat_command(last, "circuits.models=[sparse,dense]")
        lines.append(f"No circuits of the dense model were searched for: `{command}`")
    if not (found["objective"] == PAPER_OBJECTIVE).any():
        command = repeat_command(last, "circuits=published")
        lines.append(f"The paper's sizes are of its own objective, a two-way loss of 0.15 nats: `{command}`")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""

    def make(runs: Runs, _: object) -> Result:
        frame = sizes(runs)
        found = coverage(runs)
        parts = [sizes_text(frame, found), _missing_text(runs, found), unfinished_text(runs)]
        return Result("\n\n".join(filter(None, parts)), frame, sizes_figure(frame))

    return run_command("sizes", __doc__, make, arguments)


if __name__ == "__main__":
    sys.exit(main())
