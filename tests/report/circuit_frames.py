"""Tables of circuits: one worked out by hand, others drawn at random."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from bridges.storage.tables import write_table

from .frames import CASES, NAN, NASTY, WIDTH, Row, around

FLOW = (("q", "attn_in", "q"), ("k", "attn_in", "k"), ("v", "attn_in", "v"), ("out", "v", "attn_out"))
FLOW += (("up", "mlp_in", "mlp_neuron"), ("down", "mlp_neuron", "mlp_out"))
# Tokens around a peak, all different where there are more than the eight written below; of the example pair's prompts.
WINDOW, PROMPT_TOKENS = 8, 5
KINDS = ("attn_in", "q", "k", "v", "attn_out", "mlp_in", "mlp_neuron", "mlp_out")


def planted_circuit() -> tuple[list[Row], list[Row]]:
    """A circuit worked out by hand: a token is read, moved, detected by neuron 242, and written to the answer.

    Node 2.mlp_neuron:11 stands between two of the largest, is itself the smallest, and belongs to no core.
    """
    chain = [("0.attn_in", 5, 3.0), ("0.v", 1, -2.5), ("0.attn_out", 7, 2.0), ("1.mlp_in", 7, 1.8)]
    chain += [("1.mlp_neuron", 242, 4.0), ("1.mlp_out", 9, 1.5), ("2.mlp_in", 9, 1.2), ("2.mlp_neuron", 11, 0.001)]
    chain += [("2.mlp_out", 3, 0.9)]
    rest = [("3.q", channel, 0.01 * (channel + 1)) for channel in range(8)]
    nodes = [
        {"point": p, "channel": c, "attribution": a, "effect": 0.9 * a if a > 1 else NAN} for p, c, a in chain + rest
    ]
    steps = [("0.v", 0, 1, 0.5), ("0.out", 1, 2, -0.7), ("1.up", 3, 4, 1.1), ("1.down", 4, 5, 0.8)]
    steps += [("2.up", 6, 7, 0.3), ("2.down", 7, 8, 0.2)]
    edges = [
        {"matrix": m, "source": chain[a][0], "source_channel": chain[a][1], "weight": w, "attribution": 2 * w}
        | {"target": chain[b][0], "target_channel": chain[b][1], "token": None}
        for m, a, b, w in steps
    ]
    ends = [("tokens", "embedding", 17, "stream", 5, 0.8, "\tfor"), ("head", "stream", 3, "logits", 40, 0.6, "]]")]
    ends += [("head", "stream", 3, "logits", 41, -0.4, NASTY)]
    for matrix, source, source_channel, target, target_channel, weight, token in ends:
        edge = {"matrix": matrix, "source": source, "source_channel": source_channel, "target": target}
        edge |= {"target_channel": target_channel, "weight": weight, "attribution": 1.5 * weight, "token": token}
        edges.append(edge)
    return [n | {"score": 1.0, "mean": 0.25, "protected": n["channel"] == 9} for n in nodes], edges


def random_circuit(rng: np.random.Generator, size: int, layers: int = 4) -> tuple[list[Row], list[Row]]:
    """About ``size`` nodes in every layer and kind, few of which carry most of the attribution."""
    stream = rng.choice(WIDTH, 3 * size, replace=False)
    places: dict[str, list[int]] = {}
    for layer in range(layers):
        for kind in KINDS:
            pool = stream if kind.endswith(("in", "out")) else np.arange(WIDTH)
            places[f"{layer}.{kind}"] = sorted(rng.choice(pool, size, replace=False).tolist())
    nodes = [
        {"point": p, "channel": c, "score": rng.random(), "mean": rng.normal(), "protected": bool(rng.random() < 0.1)}
        | {"attribution": float(rng.normal() * rng.exponential() ** 2), "effect": NAN}
        for p, channels in places.items()
        for c in channels
    ]
    edges: list[Row] = []

    def edge(matrix: str, source: str, by: int, target: str, to: int, token: str | None = None) -> None:
        row = {"matrix": matrix, "source": source, "source_channel": int(by), "target": target}
        row |= {"target_channel": int(to), "weight": float(rng.normal()), "token": token}
        edges.append(row | {"attribution": float(rng.normal() * rng.exponential())})

    for layer in range(layers):
        for matrix, source, target in FLOW:
            for to in places[f"{layer}.{target}"]:
                for by in rng.permutation(places[f"{layer}.{source}"])[:3]:
                    edge(f"{layer}.{matrix}", f"{layer}.{source}", by, f"{layer}.{target}", to)
    for token in range(12):
        edge("tokens", "embedding", token, "stream", rng.choice(places["0.attn_in"]), f" t{token}")
    for token in (400, 401):
        edge("head", "stream", rng.choice(places[f"{layers - 1}.mlp_out"]), "logits", token, f" out{token}")
    return nodes, edges


def _activations(rng: np.random.Generator, name: str, nodes: list[Row]) -> list[Row]:
    rows = []
    for node in nodes:
        for rank in range(3):
            tokens = ["if", " x", "\t", "</script>", "(", '"', "\n", "y"]
            if len(tokens) < WINDOW:
                tokens = [f" token{i}" for i in rng.integers(0, 2000, WINDOW)]
            values = (rng.normal(size=WINDOW) * (3 - rank)).round(4).tolist()
            row = {"behaviour": name, "model": "sparse", "point": node["point"], "channel": node["channel"]}
            row |= {"rank": rank, "value": max(values), "token": int(np.argmax(values))}
            rows.append(row | {"tokens": json.dumps(tokens), "values": json.dumps(values)})
    return rows


def _prompt_activations(rng: np.random.Generator, name: str, nodes: list[Row]) -> list[Row]:
    """On a pair whose third token differs; the largest activation of every node is 2, there."""
    rows = []
    for node in nodes:
        for prompt, third in (("clean", "["), ("counterfactual", " </b>")):
            values = [0.0, *rng.uniform(-1, 1, PROMPT_TOKENS - 1).round(4).tolist()]
            values[2] = 2.0 if prompt == "clean" else -1.0
            row = {"behaviour": name, "model": "sparse", "point": node["point"], "channel": node["channel"]}
            row |= {"prompt": prompt, "tokens": json.dumps(["x", " = [", third, "1,", *[" 2"] * (PROMPT_TOKENS - 4)])}
            rows.append(row | {"values": json.dumps(values)})
    return rows


def _recovered(nodes: list[Row]) -> None:
    """Shares at some sizes: recovered, the square root of the share of nodes; lost, everything from ten nodes on."""
    ranked = sorted(nodes, key=lambda node: -abs(node["attribution"]))
    sizes = {1, 5, 10, 12, 15, 20, 30, 50, 80, 120, 200, len(ranked)}
    for k, node in enumerate(ranked, 1):
        node["recovered"] = (k / len(ranked)) ** 0.5 if k in sizes else NAN
        node["lost"] = min(1.0, k / 10) if k in sizes else NAN


def write_circuits(folder: Path, rng: np.random.Generator, size: int) -> None:
    tables: dict[str, list[Row]] = {k: [] for k in ("circuits", "nodes", "edges", "activations", "controls")}
    tables |= {"faithfulness": [], "prompt_activations": []}
    for name, case in CASES.items():
        if not case.judged:
            continue
        for model in ("sparse", "dense"):
            which = {"behaviour": name, "model": model, "method": "learned", "seed": 0}
            planted = name == "bracket_counting" and model == "sparse"
            nodes, edges = planted_circuit() if planted else random_circuit(rng, size)
            _recovered(nodes)
            tables["nodes"] += [which | node for node in nodes]
            tables["edges"] += [which | edge for edge in edges]
            row = which | {"objective": "faithful", "ablation": "mean", "nodes": len(nodes), "protected": 1}
            row |= {"edges": len(edges), "edges_with_embeddings": len(edges), "node_level_edges": 2 * len(edges)}
            row |= {"total_nodes": 16384, "total_edges": 125_000, "target": 0.15, "reached": True, "train_loss": 0.14}
            row |= {"carried": 0.3, "heldout_fvu": case.fvu, "heldout_loss": 0.19, "heldout_accuracy": 0.95}
            tables["circuits"].append(row | {"full_loss": 0.12, "scale": 1.0, "shift": 0.0, "n_pairs": 128})
            for fraction in (0.001, 0.01, 0.1, 1.0):
                point = which | {"ablation": "mean", "split": "heldout", "level": "node", "fraction": fraction}
                tables["faithfulness"].append(
                    point | {"f": 1 - 0.2 * (1 - fraction), "cpr": 0.8, "cmd": 0.2, "n_pairs": 9}
                )
            if model == "dense":
                continue
            tables["activations"] += _activations(rng, name, nodes)
            tables["prompt_activations"] += _prompt_activations(rng, name, nodes)
            for draw, control in enumerate(("necessity", "resample", "resample")):
                given = which | {"control": control, "split": "heldout", "ablation": "mean", "draw": draw, "size": 34}
                given |= {"quantity": "accuracy", "reference": 0.5, "decides": control == "necessity", "n_pairs": 64}
                tables["controls"].append(given | around("value", 0.6 + 0.1 * draw, 0.05))
    for table, rows in tables.items():
        write_table(folder, table, pd.DataFrame(rows))
