"""Circuits in the graph format of the MIB benchmark, as the loader of EAP-IG (``Graph.from_json``) reads it.

MIB's graph has the embedding (``input``), attention heads (``a<layer>.h<head>``), MLPs (``m<layer>``) and ``logits``;
its edges run from what a part writes to what a later part reads (``m0->a1.h2<q>``). A circuit of channels becomes one
of these by what it holds. What the loader does with the file decides what is written:

- It begins with nothing in the graph. As soon as one node has ``neurons``, all are measured by them, and a node without
  counts as removed whole. So every node that is kept has them, heads and ``input`` too.
- The ``neurons`` of a head are set for all heads of its layer at once. That does no harm here: the nodes of
  ``attn_out`` are shared by the heads of a layer, so their lists are equal, and heads that are not in the graph have no
  edges, for which the loader removes them.
- A part is removed if it has no edge in or no edge out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bridges.circuits.circuit import Circuit, kept_edges
from bridges.circuits.weights import edge_matrices
from bridges.stack import ResidualStack


@dataclass(frozen=True)
class _Part:
    """One end of an edge.

    Attributes:
        name: of the node, with ``<q>``, ``<k>`` or ``<v>`` where a head reads.
        time: when it acts; a layer's MLP comes after its heads, or with them where blocks are parallel.
        carries: sum of the magnitudes of its kept weights by channel of the stream, ``[d_model]``.
        channels: channels of the stream it writes to, bool ``[d_model]``. Of a reader: those it reads.
        whole: whether the circuit keeps all of its nodes and weights.
    """

    name: str
    time: int
    carries: Tensor
    channels: Tensor
    whole: bool


def _n_heads(stack: Any) -> int:
    return stack.config.n_head if hasattr(stack, "config") else stack.model.config.num_attention_heads


def _parts(stack: ResidualStack, circuit: Circuit) -> tuple[list[_Part], list[_Part]]:
    """Writers and readers of the stream."""
    heads, d, kept, nodes = _n_heads(stack), stack.d_model, kept_edges(stack, circuit), circuit.nodes
    matrices = {w.name: w for w in edge_matrices(stack) if w.name in kept}
    magnitudes = {name: w.weight.detach().abs().cpu() for name, w in matrices.items()}

    def share(length: int, head: int | None, of: int) -> slice:
        """The channels of a head among ``of``."""
        return slice(None) if head is None else slice(head * length // of, (head + 1) * length // of)

    def part(name: str, time: int, named: list[str], head: int | None = None, of: int = heads) -> _Part:
        """The part whose weights are those of some matrices, or a head's share of them."""
        writes = named[0].split(".")[1] in ("out", "down")
        carries, whole = torch.zeros(d), True
        for matrix in named:
            source, target = nodes[matrices[matrix].source], nodes[matrices[matrix].target]
            rows = slice(None) if writes else share(len(target), head, of)
            columns = share(len(source), head, of) if writes else slice(None)
            every = magnitudes[matrix][rows, columns]
            left = every * kept[matrix][rows, columns]
            whole = whole and bool(source[columns].all() and target[rows].all() and (every == left).all())
            carries = carries + (left.sum(1) if writes else left[:, :d].sum(0))
        ends = nodes[matrices[named[0]].target] if writes else nodes[matrices[named[0]].source][:d]
        return _Part(name, time, carries, ends, whole)

    everything = torch.ones(d, dtype=torch.bool)
    writers, readers = [_Part("input", -1, torch.ones(d), everything, True)], []
    for layer in range(stack.n_layers):
        # Heads that share keys and values are set apart, as EAP-IG does: each has those of its group.
        mixing = [m for m in matrices if m.split(".")[:2] == [str(layer), "out"]]
        groups, hidden = heads // len(mixing), [f"{layer}.gate", f"{layer}.up"]
        for head in range(heads):
            name, (group, at) = f"a{layer}.h{head}", divmod(head, len(mixing))
            readers.append(part(f"{name}<q>", 2 * layer, [f"{layer}.q"], head))
            readers += [part(f"{name}<{kind}>", 2 * layer, [f"{layer}.{kind}"], group, groups) for kind in "kv"]
            writers.append(part(name, 2 * layer, [mixing[at]], group, groups))
        time = 2 * layer + (not stack.parallel)
        readers.append(part(f"m{layer}", time, [m for m in hidden if m in matrices]))
        writers.append(part(f"m{layer}", time, [f"{layer}.down"]))
    readers.append(_Part("logits", 2 * stack.n_layers, torch.ones(d), everything, True))
    return writers, readers


def mib_graph(stack: ResidualStack, circuit: Circuit) -> dict[str, Any]:
    """``{"cfg", "nodes", "edges"}`` as ``Graph.from_json`` of EAP-IG reads them.

    An edge is in the graph where its writer writes, through kept weights, at least one channel that its reader reads
    through kept weights; and where the circuit removes nothing of either end, for what is written always reaches a
    reader's norm. So a circuit of all nodes and weights has every edge, and its faithfulness f is 1. Other edges are
    left out: the loader counts them as outside the circuit.

    The ``score`` of an edge is the sum over the stream's channels of the magnitudes written times the magnitudes read.
    ``neurons`` are the channels of the stream (0 or 1, ``d_model`` of them) that the circuit keeps of what a node
    writes: all of ``input``, those of ``mlp_out`` of an MLP, those of ``attn_out`` of a head.

    Raises:
        BridgesError: the edges of this architecture cannot be listed (`bridges.circuits.weights`).
    """
    writers, readers = _parts(stack, circuit)
    edges: dict[str, dict[str, Any]] = {}
    used: set[str] = {"input", "logits"}
    for writer in writers:
        for reader in readers:
            score = float(writer.carries @ reader.carries)
            if writer.time < reader.time and (score > 0 or (writer.whole and reader.whole)):
                # Between embedding and unembedding there are no weights of the blocks to give a score.
                outer = (writer.name, reader.name) == ("input", "logits")
                edges[f"{writer.name}->{reader.name}"] = {"score": 0.0 if outer else score, "in_graph": True}
                used |= {writer.name, reader.name.split("<")[0]}
    nodes: dict[str, dict[str, Any]] = {}
    for writer in writers:
        nodes[writer.name] = {"in_graph": writer.name in used}
        if writer.name in used:
            nodes[writer.name]["neurons"] = writer.channels.int().tolist()
    nodes["logits"] = {"in_graph": True}
    cfg = {
        "n_layers": stack.n_layers,
        "n_heads": _n_heads(stack),
        "parallel_attn_mlp": stack.parallel,
        "d_model": stack.d_model,
    }
    return {"cfg": cfg, "nodes": nodes, "edges": edges}


def save_mib(stack: ResidualStack, circuit: Circuit, path: str | Path) -> Path:
    """Write `mib_graph` as JSON."""
    Path(path).write_text(json.dumps(mib_graph(stack, circuit)) + "\n")
    return Path(path)
