"""A circuit on one prompt as an attribution graph: the JSON that the viewers of circuit-tracer and Neuronpedia open.

The format has nodes at tokens and weighted links between them. A channel of a circuit becomes one node, at the token
where its attribution is largest, or its value farthest from its mean; the prompt's tokens and the candidate answers are
nodes too. A link is a weight of the circuit with its attribution. Weights end in the residual stream, so what the
stream does between them is added here: see `attribution_graph`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from bridges.circuits.circuit import Circuit
from bridges.circuits.weights import EMBEDDING, LOGITS
from bridges.errors import BridgesError
from bridges.interop.graph_links import (
    Edge,
    Node,
    given_links,
    into_answers,
    into_reads,
    last_largest,
    position,
    read_already,
    run_circuit,
)
from bridges.stack import ResidualStack
from bridges.storage.folder import read_json
from bridges.version import __version__

# What the viewers take for a channel with a label, an activation and links.
FEATURE_TYPE = "cross layer transcoder"
# Nodes that are shown in the viewer's second panel from the start.
PINNED = 24


def cantor(x: int, y: int) -> int:
    """The number of a pair of non-negative integers (Cantor's pairing), by which the format counts features."""
    return (x + y) * (x + y + 1) // 2 + y


def attribution_graph(
    stack: ResidualStack,
    circuit: Circuit,
    ids: Tensor,
    tokens: Sequence[str],
    answers: Mapping[int, str],
    attribution: Mapping[str, Tensor],
    edges: Iterable[Edge],
    names: Mapping[Node, str] | None = None,
    groups: Mapping[str, Sequence[Node]] | None = None,
    *,
    slug: str | None = None,
    scan: str | None = None,
) -> dict[str, Any]:
    """The graph of a circuit on one prompt, as plain JSON values.

    Links that the stream makes, where ``edges`` has none of that kind into a node:

    - Into a channel that is read: the channel's own attribution, shared among the circuit's nodes and the token that
      write to that channel before, in proportion to what each writes at its token.
    - Into an answer: what a node writes at the last token adds to the answer's logit directly, the last norm's scale
      held fixed (direct logit attribution).

    Args:
        stack: the model that the circuit was cut out of; it is run, reduced to the circuit.
        ids: the prompt, ``[T]``. tokens: the text of each of its tokens.
        answers: ids of the candidate next tokens and their texts, the right one first.
        attribution: ``{point: [channels]}`` for every point with nodes of the circuit; or ``[T, channels]``: a node
            then stands at the token where its attribution is largest, and its attribution is the sum over tokens.
        edges: ``(source point, source channel, target point, target channel, weight)`` between nodes of the circuit;
            the weight is the attribution of the edge. A target ``logits`` has an answer's id as its channel, a source
            ``embedding`` a token's. Rows that name the ``stream``, as those of table ``edges`` do, are passed over.
        names: labels that a person gave to nodes. groups: nodes that a person put together, by the group's label; the
            viewers show each as one (a supernode). Both as `given_names` reads them from a run's ``names.json``.
        slug: name of the graph (default: the behaviour's). scan: what the viewer takes for the model's name.

    Returns:
        ``{"metadata", "qParams", "nodes", "links"}``. ``layer`` counts points in forward order (layer 1's
        ``mlp_neuron`` is 14 of 8 kinds a layer), so that every kind has a row of its own in the viewer.

    Raises:
        BridgesError: the inputs do not fit each other.
    """
    names, groups = names or {}, groups or {}
    order = {point: i for i, point in enumerate(stack.nodes.widths)}
    kept = [(p, c) for p in order for c in circuit.nodes[p].nonzero()[:, 0].tolist()]
    grouped = [node for members in groups.values() for node in members]
    _check(kept, ids, tokens, answers, attribution, [*names, *grouped])
    run = run_circuit(stack, circuit, ids)
    at, score = {}, {}
    for p, c in kept:
        given_score = attribution[p][..., c]
        score[p, c] = float(given_score.sum())
        by_token = given_score.ndim == 1
        at[p, c] = last_largest(given_score) if by_token else position(run.values[p][:, c], circuit, (p, c))
    node_ids = {node: f"{order[node[0]]}_{node[1]}_{at[node]}" for node in kept}
    node_ids |= {(EMBEDDING, t): f"E_{int(token)}_{t}" for t, token in enumerate(ids)}
    node_ids |= {(LOGITS, token): f"{len(order) + 1}_{token}_{len(tokens) - 1}" for token in answers}
    given = given_links(edges, node_ids, ids)
    read, reached = read_already(given), {target for _, target, _ in given}
    reads = into_reads(kept, order, at, score, run, stack.parallel)
    links = [*given, *(link for link in reads if link[1] not in read)]
    links += [link for link in into_answers(stack, kept, answers, ids, run) if link[1] not in reached]
    influence = _influence(score)
    nodes = [_token_node(node_ids[EMBEDDING, t], t, int(token)) for t, token in enumerate(ids)]
    nodes += [
        _channel_node(node_ids[node], order[node[0]], node[1], at[node])
        | {"clerp": names.get(node, f"{node[0]}:{node[1]}"), "influence": influence[node]}
        | {"activation": float(run.values[node[0]][at[node], node[1]])}
        for node in kept
    ]
    right = next(iter(answers))
    for token, text in answers.items():
        answer = _answer_node(node_ids[LOGITS, token], token, text, float(run.probabilities[token]))
        last = len(tokens) - 1
        place = {"layer": str(len(order) + 1), "ctx_idx": last, "jsNodeId": f"L_{token}-{last}"}
        nodes.append(answer | place | {"is_target_logit": token == right})
    strongest = sorted(kept, key=lambda node: -abs(score[node]))[:PINNED]
    metadata = {
        "slug": _slug(slug or circuit.behaviour),
        "scan": scan or f"bridges-{circuit.model}",
        "transcoder_list": [],
        "prompt_tokens": list(tokens),
        "prompt": "".join(tokens),
        "node_threshold": 1.0,
        "schema_version": 1,
        "info": {
            "description": f"Circuit of {circuit.behaviour} in the {circuit.model} model: {circuit.size} nodes. "
            "Rows are node points in forward order: " + ", ".join(f"{i} {p}" for p, i in order.items()) + ".",
            "generator": {"name": "bridges", "version": __version__},
        },
    }
    # A group is shown by its members, which are pinned with it.
    pinned = dict.fromkeys([*strongest, *grouped])
    parameters = {
        "pinnedIds": [*(node_ids[node] for node in pinned), *(node_ids[LOGITS, token] for token in answers)],
        "supernodes": [[label, *(node_ids[node] for node in members)] for label, members in groups.items() if members],
        "linkType": "both",
        "clickedId": node_ids[LOGITS, right],
        "sg_pos": "",
    }
    rows = [{"source": node_ids[s], "target": node_ids[t], "weight": w} for s, t, w in links]
    return {"metadata": metadata, "qParams": parameters, "nodes": [_PLAIN | n for n in nodes], "links": rows}


_PLAIN: dict[str, Any] = {
    "token_prob": 0.0,
    "is_target_logit": False,
    "run_idx": 0,
    "reverse_ctx_idx": 0,
    "clerp": "",
    "influence": None,
    "activation": None,
}


def _check(
    kept: Sequence[Node],
    ids: Tensor,
    tokens: Sequence[str],
    answers: Mapping[int, str],
    attribution: Mapping[str, Tensor],
    named: Iterable[Node],
) -> None:
    if ids.ndim != 1 or len(ids) != len(tokens) or not len(tokens):
        raise BridgesError(f"A graph is of one prompt: {tuple(ids.shape)} ids and {len(tokens)} texts do not fit.")
    if not answers:
        raise BridgesError("A graph needs at least one answer.")
    for point, channel in kept:
        values = attribution.get(point)
        if values is None or channel >= values.shape[-1]:
            raise BridgesError(f"attribution has no value for {point}:{channel}, which is a node of the circuit.")
        if values.ndim > 1 and tuple(values.shape[:-1]) != (len(tokens),):
            raise BridgesError(f"attribution of {point} is {tuple(values.shape)}; the prompt has {len(tokens)} tokens.")
        if not values[..., channel].isfinite().all():
            raise BridgesError(f"The attribution of {point}:{channel} is not finite.")
    if stray := sorted(set(named) - set(kept)):
        raise BridgesError(f"A name or group is of {stray[0][0]}:{stray[0][1]}, which is no node of the circuit.")


def _influence(score: Mapping[Node, float]) -> dict[Node, float]:
    """The share of all attribution that a node and the stronger ones hold: the viewer's slider hides from there on."""
    total, so_far, influence = sum(map(abs, score.values())), 0.0, {}
    for node in sorted(score, key=lambda node: -abs(score[node])):
        so_far += abs(score[node])
        influence[node] = min(1.0, so_far / total) if total else 1.0
    return influence


def _token_node(node_id: str, t: int, token: int) -> dict[str, Any]:
    return {
        "node_id": node_id,
        "feature": t,
        "layer": "E",
        "ctx_idx": t,
        "feature_type": "embedding",
        "jsNodeId": f"E_{token}-{t}",
    }


def _channel_node(node_id: str, row: int, channel: int, t: int) -> dict[str, Any]:
    return {
        "node_id": node_id,
        "feature": cantor(row, channel),
        "layer": str(row),
        "ctx_idx": t,
        "feature_type": FEATURE_TYPE,
        "jsNodeId": f"{row}_{channel}-0",
    }


def _answer_node(node_id: str, token: int, text: str, probability: float) -> dict[str, Any]:
    # The viewers read the token between the first two quotes, so a quote in it is written as a typographic one.
    shown = text.replace('"', "”")
    return {
        "node_id": node_id,
        "feature": token,
        "feature_type": "logit",
        "token_prob": probability,
        "clerp": f'Output "{shown}" (p={probability:.3f})',
    }


def given_names(values: Mapping[str, Any], circuit: Circuit) -> tuple[dict[Node, str], dict[str, list[Node]]]:
    """Names and groups of a circuit's nodes from what a run's ``names.json`` holds.

    Args:
        values: ``{"names": {node: name}, "groups": {group: [nodes]}}``, a node written as ``2.mlp_neuron:242``, with
            ``dense/`` before it where it is one of the dense model.
        circuit: whose nodes are wanted; others are left out.
    """

    def node(text: str) -> Node | None:
        model, _, name = text.rpartition("/")
        point, _, channel = name.rpartition(":")
        if (model or "sparse") != circuit.model or point not in circuit.nodes or not channel.isdecimal():
            return None
        kept = circuit.nodes[point]
        return (point, int(channel)) if int(channel) < len(kept) and kept[int(channel)] else None

    names = {n: name for text, name in values.get("names", {}).items() if (n := node(text))}
    groups = {g: [n for text in members if (n := node(text))] for g, members in values.get("groups", {}).items()}
    return names, {group: members for group, members in groups.items() if members}


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "circuit"


def save_attribution_graph(graph: Mapping[str, Any], folder: str | Path) -> Path:
    """Write ``<slug>.json`` and name it in ``graph-metadata.json``, the list of graphs that circuit-tracer's server
    shows (``circuit-tracer start-server --graph_file_dir <folder>``).

    Returns:
        the graph's file.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    listed = folder / "graph-metadata.json"
    graphs = read_json(listed).get("graphs", []) if listed.exists() else []
    graphs = [g for g in graphs if g["slug"] != graph["metadata"]["slug"]] + [graph["metadata"]]
    listed.write_text(json.dumps({"graphs": graphs}, indent=2, allow_nan=False) + "\n")
    path = folder / f"{graph['metadata']['slug']}.json"
    path.write_text(json.dumps(graph, allow_nan=False) + "\n")
    return path
