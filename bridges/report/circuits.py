"""Circuits of one behaviour: what `graph.js` draws, and sizes and curves beside it."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from bridges.errors import CheckpointError
from bridges.report.charts import Chart, Figures, Series, rounded
from bridges.report.markup import Num, Raw, details, join, note, passed, table, tag
from bridges.report.source import Source
from bridges.report.text import count, known, number, percent, visible, words

EDGES = 1500  # strongest weights of one circuit that the page holds
ENDS = 100  # of embedding and unembedding each, so that thousands of tokens leave room for what is inside
NODES = 600  # and its nodes, the most important first
EXAMPLES = 3  # places in text of one node
NODES_WITH_EXAMPLES = 300  # nodes that have them, the most important first
KEY = ["behaviour", "model", "method", "seed"]


def circuit_graphs(name: str, source: Source, figures: Figures) -> Raw:
    """The interactive graph: the sparse circuit, and the dense one as another choice."""
    title = tag("h4", "The circuit")
    nodes, edges = source.table("nodes"), source.table("edges")
    if nodes is None and edges is None:
        return join([title, note(source.missing("nodes"))])
    chosen = _chosen(name, nodes, edges)
    if not chosen:
        return join([title, note(_without(name, source))])
    graphs = [_graph(key, nodes, edges, source, figures) for key in chosen]
    label = f"Circuit of {visible(name)}"
    return join([title, figures.graph({"label": label, "circuits": graphs}, label)])


def _without(name: str, source: Source) -> str:
    """Why there is no circuit to draw."""
    rows = [r for r in source.rows("circuits") if r["behaviour"] == name and r["model"] == "sparse"]
    if not rows:
        return "No circuit was searched for."
    best = min(rows, key=lambda r: r["train_loss"])
    ended = f"{number(best['train_loss'])} nats on the training pairs; asked for were {number(best['target'])}"
    if best["reached"]:
        return (
            f"The circuit is empty: with every node at its mean the loss is {ended}. What no node takes part in does "
            "it alone: embedding, unembedding and the bigram table."
        )
    return (
        f"No circuit was found: the search ended at a loss of {ended}. Nothing was carried into the dense model, and "
        "no control was tried."
    )


def _chosen(name: str, nodes: pd.DataFrame | None, edges: pd.DataFrame | None) -> list[tuple[str, str, str, int]]:
    """One circuit for each model: the learned one of the smallest seed, if there is one."""
    found: set[tuple[str, str, str, int]] = set()
    for frame in (nodes, edges):
        if frame is not None:
            keys = frame.loc[frame["behaviour"] == name, KEY].drop_duplicates()
            found |= {(str(b), str(m), str(h), int(s)) for b, m, h, s in keys.itertuples(index=False)}
    out = []
    for model in ("sparse", "dense"):
        mine = sorted((k for k in found if k[1] == model), key=lambda k: (k[2] != "learned", k[2], k[3]))
        out += mine[:1]
    return out


def _select(frame: pd.DataFrame | None, key: tuple[str, str, str, int]) -> pd.DataFrame:
    if frame is None:
        return pd.DataFrame()
    keep = (frame["behaviour"] == key[0]) & (frame["model"] == key[1])
    return frame[keep & (frame["method"] == key[2]) & (frame["seed"] == key[3])]


def _graph(
    key: tuple[str, str, str, int],
    nodes: pd.DataFrame | None,
    edges: pd.DataFrame | None,
    source: Source,
    figures: Figures,
) -> dict[str, Any]:
    all_nodes, all_edges = _select(nodes, key), _select(edges, key)
    index: dict[tuple[str, int], int] = {}
    rows: list[list[Any]] = []

    def node(point: str, channel: int, *values: float | None) -> int:
        place = (point, int(channel))
        if place not in index:
            index[place] = len(rows)
            rows.append([visible(point), int(channel), *(values or (None, None, None))])
        return index[place]

    kept = all_nodes
    if len(kept):
        kept = kept.assign(_rank=kept["importance"].fillna(-1.0))
        kept = kept.sort_values(["_rank", "score", "point", "channel"], ascending=[False, False, True, True])[:NODES]
        for r in kept.to_dict("records"):
            node(r["point"], r["channel"], *(rounded(r[c], 4) for c in ("score", "mean", "importance")))
    tokens: dict[int, str] = {}
    known_places = set(index) if len(all_nodes) > NODES else None
    matrices: list[str] = []
    lines: list[list[Any]] = []
    total_ends = drawn_ends = 0
    if len(all_edges):
        strongest = all_edges.assign(_size=all_edges["weight"].abs())
        order = ["_size", "matrix", "source_channel", "target_channel"]
        strongest = strongest.sort_values(order, ascending=[False, True, True, True], kind="stable")
        end = strongest["source"].where(strongest["source"] == "embedding", strongest["target"])
        at_end = end.isin(("embedding", "logits"))
        total_ends = int(at_end.sum())
        for r in strongest[~at_end | (strongest.groupby(end).cumcount() < ENDS)].to_dict("records"):
            if len(lines) == EDGES:
                break
            # The stream that the embedding writes and the one that the unembedding reads are its two ends.
            start = (r["source"] if r["source"] != "stream" else "last stream", int(r["source_channel"]))
            stop = (r["target"] if r["target"] != "stream" else "first stream", int(r["target_channel"]))
            if known_places is not None and any("." in p[0] and p not in known_places for p in (start, stop)):
                continue
            if r["matrix"] not in matrices:
                matrices.append(r["matrix"])
            drawn_ends += "stream" in (r["source"], r["target"])
            lines.append([node(*start), node(*stop), rounded(r["weight"], 4), matrices.index(r["matrix"])])
            if isinstance(r.get("token"), str):
                tokens[lines[-1][0 if start[0] == "embedding" else 1]] = visible(r["token"])
    head = source.setting("sparse.d_head") if key[1] == "sparse" else None
    return {
        "name": f"{key[1]} model, {words(key[2])}",
        "head": head if isinstance(head, int) else None,
        "nodes": rows,
        "tokens": tokens,
        "edges": lines,
        "matrices": [visible(m) for m in matrices],
        "leftNodes": len(all_nodes) - len(kept),
        "leftEdges": len(all_edges) - total_ends - (len(lines) - drawn_ends),
        "leftEnds": total_ends - drawn_ends,
        "examples": _examples(key, index, source, figures),
    }


def _examples(
    key: tuple[str, str, str, int], index: dict[tuple[str, int], int], source: Source, figures: Figures
) -> dict[str, Any]:
    """Node → places in text: value, marked token, tokens (of the page's texts), values."""
    frame = source.table("activations")
    if frame is None:
        return {}
    mine = frame[(frame["behaviour"] == key[0]) & (frame["model"] == key[1]) & (frame["rank"] < EXAMPLES)]
    out: dict[str, Any] = {}
    for r in mine.sort_values(["point", "channel", "rank"], kind="stable").to_dict("records"):
        i = index.get((r["point"], int(r["channel"])))
        if i is None or i >= NODES_WITH_EXAMPLES:
            continue
        tokens, values = _tokens(r["tokens"], "tokens"), _tokens(r["values"], "values")
        shown = [figures.text(visible(str(t))) for t in tokens]
        out.setdefault(str(i), []).append(
            [rounded(r["value"], 4), int(r["token"]), shown, [rounded(v, 2) or 0 for v in values]]
        )
    return out


def _tokens(text: str, column: str) -> tuple[Any, ...]:
    try:
        return tuple(json.loads(text))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"Table 'activations' is damaged: its column {column!r} holds no JSON list.") from error


def circuit_tables(name: str, source: Source, figures: Figures) -> Raw:
    """Sizes and losses of every circuit that was searched for, and faithfulness of circuits of growing size."""
    rows = [r for r in source.rows("circuits") if r["behaviour"] == name]
    parts: list[str] = []
    if rows:
        data = table(
            "Circuits: losses are two-way, in nats (chance 0.693)",
            [
                "model",
                "method",
                "seed",
                "ablation",
                "nodes",
                "edges",
                "with embeddings",
                "target",
                "reached",
                "train loss",
                "held-out loss",
                "held-out accuracy",
                "whole model",
                "share of edges",
            ],
            [
                [
                    r["model"],
                    words(r["method"]),
                    Num(count(r["seed"])),
                    r["ablation"],
                    Num(count(r["nodes"])),
                    Num(count(r["edges"])),
                    Num(count(r["edges_with_embeddings"])),
                    Num(number(r["target"])),
                    passed(bool(r["reached"])),
                    Num(number(r["train_loss"])),
                    Num(number(r["heldout_loss"])),
                    Num(percent(r["heldout_accuracy"])),
                    Num(number(r["full_loss"])),
                    Num(percent(r["edges"] / r["total_edges"] if r["total_edges"] else None, 2)),
                ]
                for r in rows
            ],
        )
        parts.append(details(f"Every circuit searched for ({len(rows)})", data))
    elif source.table("circuits") is None:
        parts.append(note(source.missing("circuits")))
    return join([*parts, _faithfulness(name, source, figures)])


def _faithfulness(name: str, source: Source, figures: Figures) -> Raw:
    rows = [r for r in source.rows("faithfulness") if r["behaviour"] == name and r["fraction"] > 0]
    if not rows:
        return Raw("")
    looks = ("first", "second", "third", "fourth", "fifth")
    panels = []
    for model in ("sparse", "dense"):
        lines: dict[tuple[str, str, int], Series] = {}
        for r in sorted(
            (r for r in rows if r["model"] == model and r["split"] == "heldout"), key=lambda r: r["fraction"]
        ):
            key = (r["method"], r["level"], int(r["seed"]))
            label = f"{words(r['method'])}, {r['level']}s" + (f", seed {r['seed']}" if r["seed"] else "")
            line = lines.setdefault(key, Series(label, looks[len(lines) % len(looks)]))
            line.add(100 * r["fraction"], r["f"])
        panels.append(
            Chart("lines", f"{model} model", "share kept (%)", "faithfulness f", list(lines.values()), log_x=True)
        )
    for panel in panels:
        panel.rules = [("whole model", 1.0)] if not panel.empty else []
    seen: dict[tuple[Any, ...], dict[str, Any]] = {}
    for r in rows:
        seen.setdefault((r["model"], r["method"], r["level"], r["split"], r["seed"]), r)
    data = table(
        "Area under the curve of faithfulness (CPR) and under its distance from one (CMD, lower is better)",
        ["model", "method", "nodes or edges", "split", "seed", "ablation", "CPR", "CMD", "pairs"],
        [
            [
                r["model"],
                words(r["method"]),
                r["level"],
                r["split"],
                Num(count(r["seed"])),
                r["ablation"],
                Num(number(r["cpr"])),
                Num(number(r["cmd"])),
                Num(count(r["n_pairs"])),
            ]
            for r in seen.values()
        ],
    )
    points = table(
        "Faithfulness by share kept",
        ["model", "method", "nodes or edges", "split", "share kept", "f"],
        [
            [r["model"], words(r["method"]), r["level"], r["split"], Num(percent(r["fraction"])), Num(number(r["f"]))]
            for r in rows
            if known(r["f"])
        ],
    )
    caption = "f is 0 with every node at its mean and 1 for the whole model."
    return figures.figure("Faithfulness as the circuit grows", panels, caption, join([data, points]))
