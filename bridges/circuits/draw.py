"""A picture of a circuit: layers from left to right, nodes by kind, weights by sign and size."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bridges.config.literals import NODE_KINDS

# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = dict(
    zip(
        NODE_KINDS,
        ("#56B4E9", "#E69F00", "#CC79A7", "#009E73", "#0072B2", "#F0E442", "#D55E00", "#8A8A8A"),
        strict=True,
    )
)
POSITIVE, NEGATIVE, STREAM = "#0072B2", "#D55E00", "#C8C8C8"
# Columns of one layer; queries, keys and values share one.
_COLUMN = {"attn_in": 0, "q": 1, "k": 1, "v": 1, "attn_out": 2, "mlp_in": 3, "mlp_neuron": 4, "mlp_out": 5}
# With more nodes than this, names and snippets would only cover each other.
LABELLED = 40

Place = dict[tuple[str, int], tuple[float, float]]


def places(nodes: pd.DataFrame) -> Place:
    """Where each node stands, ``{(point, channel): (x, y)}``: columns as in the forward pass, centred, none twice."""
    columns: dict[int, list[tuple[str, int]]] = {}
    for point, channel in zip(nodes["point"], nodes["channel"], strict=True):
        layer, kind = str(point).split(".")
        columns.setdefault(6 * int(layer) + _COLUMN[kind], []).append((str(point), int(channel)))
    # Layers in which nothing is kept take no room.
    return {
        node: (float(x), (len(mine) - 1) / 2 - i)
        for x, column in enumerate(sorted(columns))
        for mine in [columns[column]]
        for i, node in enumerate(mine)
    }


def snippet(tokens: Iterable[str], marked: int, width: int = 18) -> str:
    """The end of what comes before the marked token, and the token in brackets, on one line."""
    shown = [t.replace("\n", "⏎").replace("\t", "⇥") for t in tokens]
    before = "".join(shown[:marked])[-width:]
    return f"{before}[{shown[marked]}]".replace("$", r"\$")


def draw_circuit(
    nodes: pd.DataFrame,
    edges: pd.DataFrame,
    activations: pd.DataFrame | None = None,
    title: str = "",
    path: str | Path | None = None,
    core: int | None = LABELLED,
) -> Figure:
    """Draw one circuit, or its core: the nodes with the largest attribution.

    Args:
        nodes, edges, activations: rows of the tables of those names that belong to it; a column ``name`` of the nodes
            stands in place of point and channel where it is not empty.
        title: above the picture.
        path: a ``.png`` or ``.svg`` file to write it to.
        core: nodes that are drawn at most (None: all).

    Returns:
        the figure, which belongs to no window.
    """
    if core is not None and len(nodes) > core:
        largest = nodes["attribution"].abs().sort_values(ascending=False, kind="stable").index[:core]
        title = f"{title}; the {core} with the largest attribution" if title else ""
        nodes = nodes.loc[sorted(largest)]
    at = places(nodes)
    high = max([1.0, *(abs(y) for _, y in at.values())])
    wide = max([1.0, *(x for x, _ in at.values())])
    labelled = len(at) <= LABELLED
    spread = 1.75 if labelled else 1.1
    size = (min(26.0, 3.0 + spread * (wide + 1)), min(20.0, 2.0 + (0.85 if labelled else 0.16) * (2 * high + 1)))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    _stream(axes, at)
    _edges(axes, at, edges)
    _nodes(axes, at, nodes, _snippets(activations) if labelled else {}, labelled)
    axes.set(xlim=(-0.6, wide + 0.6), ylim=(-high - 0.9, high + 0.9))
    axes.axis("off")
    if title:
        axes.set_title(title, fontsize=11, loc="left")
    _legend(axes, nodes)
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        # Without a date, and with fixed ids in SVG, the same circuit gives the same bytes.
        metadata = {"Date": None} if str(path).endswith(".svg") else {"Software": None}
        figure.savefig(path, dpi=110, metadata=metadata)
    return figure


def _snippets(activations: pd.DataFrame | None) -> dict[tuple[str, int], str]:
    if activations is None or activations.empty:
        return {}
    first = activations[activations["rank"] == 0]
    return {
        (str(r["point"]), int(r["channel"])): snippet(json.loads(r["tokens"]), int(r["token"]))
        for r in first.to_dict("records")
    }


def _nodes(axes: Axes, at: Place, nodes: pd.DataFrame, snippets: dict, labelled: bool) -> None:
    for kind in NODE_KINDS:
        mine = [n for n in at if n[0].endswith(f".{kind}")]
        if mine:
            xs, ys = zip(*(at[n] for n in mine), strict=True)
            axes.scatter(xs, ys, s=150 if labelled else 18, c=COLOURS[kind], edgecolors="white", zorder=3)
    if not labelled:
        return
    names = {(str(r["point"]), int(r["channel"])): r.get("name") for r in nodes.to_dict("records")}
    for node, (x, y) in at.items():
        name = names.get(node) or f"{node[0]}:{node[1]}"
        axes.annotate(name, (x, y), (0, 9), textcoords="offset points", ha="center", fontsize=7)
        if node in snippets:
            axes.annotate(
                snippets[node], (x, y), (0, -15), textcoords="offset points", ha="center", fontsize=6, color="#555555",
                family="monospace",
            )  # fmt: skip


def _edges(axes: Axes, at: Place, edges: pd.DataFrame) -> None:
    """Kept weights between kept nodes: colour by sign, width by attribution relative to the largest."""
    rows = edges[(edges["source"].isin({p for p, _ in at})) & (edges["target"].isin({p for p, _ in at}))]
    if rows.empty:
        return
    largest = float(rows["attribution"].abs().max()) or 1.0
    lines, colours, widths = [], [], []
    columns = ("source", "source_channel", "target", "target_channel", "weight", "attribution")
    for source, by, target, to, weight, effect in zip(*(rows[c] for c in columns), strict=True):
        start, end = at.get((source, int(by))), at.get((target, int(to)))
        if start and end:
            lines.append([start, end])
            colours.append(POSITIVE if weight > 0 else NEGATIVE)
            widths.append(0.3 + 3.0 * math.sqrt(abs(effect) / largest))
    axes.add_collection(LineCollection(lines, colors=colours, linewidths=widths, alpha=0.75, zorder=2))


def _stream(axes: Axes, at: Place) -> None:
    """Thin grey lines along the residual stream: from each write of a channel to every later read of it."""
    writes = [n for n in at if n[0].endswith(("attn_out", "mlp_out"))]
    reads = [n for n in at if n[0].endswith(("attn_in", "mlp_in"))]
    lines = [[at[w], at[r]] for w in writes for r in reads if w[1] == r[1] and at[w][0] < at[r][0]]
    axes.add_collection(LineCollection(lines, colors=STREAM, linewidths=0.9, linestyles="dashed", zorder=1))


def _legend(axes: Axes, nodes: pd.DataFrame) -> None:
    present = {str(p).split(".")[1] for p in nodes["point"]}
    handles = [
        Line2D([], [], marker="o", linestyle="", color=COLOURS[k], markersize=7, label=k)
        for k in NODE_KINDS
        if k in present
    ]
    handles += [
        Line2D([], [], color=POSITIVE, label="positive weight"),
        Line2D([], [], color=NEGATIVE, label="negative weight"),
        Line2D([], [], color=STREAM, linestyle="dashed", label="same channel of the stream"),
    ]
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=6, frameon=False, fontsize=7)
