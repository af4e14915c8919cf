"""The circuits of one behaviour as `graph.js` draws them: nodes and edges by attribution."""

from __future__ import annotations

from typing import Any

import pandas as pd

from bridges.report.charts import Figures, rounded
from bridges.report.examples import Examples
from bridges.report.markup import Raw, note, tag
from bridges.report.names import node_key
from bridges.report.source import Source
from bridges.report.text import brief, escape, known, visible

CORE = 12  # nodes that a circuit opens with
# Nodes, edges, and tokens read and written that the page holds of one circuit, the largest attributions first; the
# dense model's own circuit is beside the point and there for its shape.
LIMITS = {"sparse": (400, 1500, 120), "dense": (60, 300, 40)}
KEY = ["behaviour", "model", "method", "seed"]

Which = tuple[str, str, str, int]


def graph(name: str, source: Source, figures: Figures, examples: Examples) -> int | None:
    """Put the behaviour's circuits into the page: the sparse one and, as another choice, the dense model's own.

    Returns:
        the number of the graph, None where there is no circuit.
    """
    nodes, edges = source.table("nodes"), source.table("edges")
    circuits = []
    for which in _learned(name, nodes):
        circuits.append(_circuit(which, _select(nodes, which), _select(edges, which), source, examples))
    if not circuits:
        return None
    return figures.add_graph({"label": visible(name), "core": CORE, "circuits": circuits})


def graph_holder(number: int, name: str) -> Raw:
    """Where `graph.js` draws a circuit of the page."""
    return Raw(f'<div class="graph" data-graph="{number}" role="group" aria-label="Circuit of {escape(name)}"></div>')


def without(name: str, source: Source) -> Raw:
    """Why there is no circuit to draw."""
    if source.table("circuits") is None:
        return note(source.missing("circuits"))
    rows = [r for r in source.of("circuits", name) if r["model"] == "sparse"]
    if not rows:
        return note("No circuit was searched for.")
    best = min(rows, key=lambda r: r["train_loss"])
    measure = "unexplained variance" if best["objective"] == "faithful" else "a loss in nats"
    ended = f"{measure} of {brief(best['train_loss'])} on the training pairs; asked for was {brief(best['target'])}"
    if best["nodes"]:
        return note(f"The search ended at {ended}; the nodes of its circuit were not written.")
    return tag("p", f"The circuit is empty: with every node at its mean the search is at {ended}.", class_="note")


def _learned(name: str, nodes: pd.DataFrame | None) -> list[Which]:
    """One circuit for each model: the learned one of the smallest seed, if there is one."""
    if nodes is None:
        return []
    keys = nodes.loc[nodes["behaviour"] == name, KEY].drop_duplicates()
    found = [(str(b), str(m), str(h), int(s)) for b, m, h, s in keys.itertuples(index=False)]
    out = []
    for model in ("sparse", "dense"):
        out += sorted((k for k in found if k[1] == model), key=lambda k: (k[2] != "learned", k[2], k[3]))[:1]
    return out


def _select(frame: pd.DataFrame | None, which: Which) -> pd.DataFrame:
    if frame is None:
        return pd.DataFrame()
    keep = (frame["behaviour"] == which[0]) & (frame["model"] == which[1])
    return frame[keep & (frame["method"] == which[2]) & (frame["seed"] == which[3])]


def _by_attribution(frame: pd.DataFrame, ties: list[str]) -> pd.DataFrame:
    """The largest attributions first, what was not measured last; then as the rest of the columns say."""
    size = frame["attribution"].abs().fillna(-1.0)
    return frame.assign(_size=size).sort_values(["_size", *ties], ascending=[False] + [True] * len(ties))


def recovered(nodes: pd.DataFrame) -> list[list[float | int | None]]:
    """Sizes k and the share of the circuit's effect that its first k nodes recover; none where it was not measured.

    Args:
        nodes: rows of table ``nodes``, the largest attribution first.
    """
    if "recovered" not in nodes:
        return []
    shares = enumerate(nodes["recovered"], 1)
    return [[k, rounded(share, 3)] for k, share in shares if rounded(share) is not None]


def _circuit(
    which: Which, nodes: pd.DataFrame, edges: pd.DataFrame, source: Source, examples: Examples
) -> dict[str, Any]:
    model = which[1]
    most_nodes, most_edges, most_tokens = LIMITS[model]
    ordered = _by_attribution(nodes, ["point", "channel"])
    kept = ordered[:most_nodes]
    points = list(dict.fromkeys(kept["point"]))
    index = {(str(p), int(c)): i for i, (p, c) in enumerate(zip(kept["point"], kept["channel"], strict=True))}
    rows = []
    for rank, row in enumerate(kept.to_dict("records")):
        examples.add(node_key(model, visible(row["point"]), row["channel"]), rank)
        values = (rounded(row["attribution"], 3), rounded(row["effect"], 3), rounded(row["mean"], 3))
        rows.append([points.index(row["point"]), int(row["channel"]), *values, int(row["protected"])])
    inside, reads, writes = _edges(edges, index)
    answers = _answers(which[0], source)
    prompts, shades = examples.pair(which[0], model, [(str(p), int(c)) for p, c in index])
    head = source.setting("sparse.d_head") if model == "sparse" else None
    matrices = list(dict.fromkeys(e[4] for e in inside[:most_edges]))
    total = float(nodes["attribution"].abs().sum())
    return {
        "model": model,
        "head": head if isinstance(head, int) else None,
        "points": [visible(point) for point in points],
        "nodes": rows,
        "total": rounded(total, 4),
        "recovered": recovered(ordered),
        "answers": answers,
        "prompts": prompts,
        "shades": shades,
        "matrices": [visible(matrix) for matrix in matrices],
        "edges": [[*edge[:4], matrices.index(edge[4])] for edge in inside[:most_edges]],
        "reads": reads[:most_tokens],
        # Of the example's two answers all.
        "writes": [row for place, row in enumerate(writes) if place < most_tokens or row[1] in answers],
        "left": {
            "nodes": len(ordered) - len(kept),
            "edges": len(edges) - len(reads) - len(writes) - len(inside[:most_edges]),
        },
    }


def _answers(name: str, source: Source) -> list[str]:
    """The right next token of the example pair's clean prompt, then that of its counterfactual."""
    suite = next(iter(source.of("suite", name)), {})
    return [visible(str(suite[key])) for key in ("answer", "other") if known(suite.get(key))]


def _edges(edges: pd.DataFrame, index: dict[tuple[str, int], int]) -> tuple[list[Any], list[Any], list[Any]]:
    """Edges between nodes that the page holds, what channels read of tokens, and what tokens get of channels.

    Returns:
        ``[source, target, weight, attribution, matrix]``, ``[token, channel, weight, attribution]`` and
        ``[channel, token, weight, attribution]``, the largest attributions first.
    """
    inside: list[Any] = []
    reads: list[Any] = []
    writes: list[Any] = []
    if edges.empty:
        return inside, reads, writes
    for row in _by_attribution(edges, ["matrix", "source_channel", "target_channel"]).to_dict("records"):
        values = [rounded(row["weight"], 3), rounded(row["attribution"], 3)]
        token = visible(row["token"]) if isinstance(row.get("token"), str) else ""
        if row["source"] == "embedding":
            reads.append([token or f"#{row['source_channel']}", int(row["target_channel"]), *values])
        elif row["target"] == "logits":
            writes.append([int(row["source_channel"]), token or f"#{row['target_channel']}", *values])
        else:
            ends = ((row[f"{end}"], int(row[f"{end}_channel"])) for end in ("source", "target"))
            first, second = (index.get(end) for end in ends)
            if first is not None and second is not None:
                inside.append([first, second, *values, row["matrix"]])
    return inside, reads, writes
