"""Export of a circuit in the graph format of the MIB benchmark: one JSON file that its evaluation reads.

MIB's graph has the embedding (``input``), attention heads (``a<layer>.h<head>``), MLPs (``m<layer>``) and ``logits``.
A circuit of channels becomes one of these by what it holds: an edge from one part to another is in the graph where the
first writes, through kept weights, at least one channel of the stream that the second reads through kept weights.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bridges.circuits.circuit import Circuit, kept_edges
from bridges.circuits.weights import wires
from bridges.stack import ResidualStack


@dataclass(frozen=True)
class _Part:
    """One end of an edge: its name, when it acts, and how much it carries by channel of the stream, ``[d]``."""

    name: str
    time: int
    carries: Tensor


def _heads(stack: Any) -> int:
    return stack.config.n_head if hasattr(stack, "config") else stack.model.config.num_attention_heads


def _parts(stack: ResidualStack, circuit: Circuit) -> tuple[list[_Part], list[_Part]]:
    """Writers and readers of the stream."""
    heads, d, kept = _heads(stack), stack.d_model, kept_edges(stack, circuit)
    weights = {w.matrix: w.weight.detach().abs().cpu() * kept[w.matrix] for w in wires(stack) if w.matrix in kept}
    writers, readers = [_Part("input", -1, torch.ones(d))], []
    for layer in range(stack.n_layers):
        for head in range(heads):
            for kind in "qkv":
                read = weights[f"{layer}.{kind}"].chunk(heads)[head]
                readers.append(_Part(f"a{layer}.h{head}<{kind}>", 2 * layer, read[:, :d].sum(0)))
            out = weights[f"{layer}.out"].chunk(heads, 1)[head]
            writers.append(_Part(f"a{layer}.h{head}", 2 * layer, out.sum(1)))
        readers.append(_Part(f"m{layer}", 2 * layer + 1, weights[f"{layer}.up"][:, :d].sum(0)))
        writers.append(_Part(f"m{layer}", 2 * layer + 1, weights[f"{layer}.down"].sum(1)))
    readers.append(_Part("logits", 2 * stack.n_layers, torch.ones(d)))
    return writers, readers


def mib_graph(stack: ResidualStack, circuit: Circuit) -> dict[str, Any]:
    """``{"cfg", "nodes", "edges"}`` as ``Graph.from_json`` of the benchmark expects them.

    The score of an edge is the sum over shared channels of the magnitudes written times the magnitudes read; the
    ``neurons`` of an MLP are the channels of the stream (0 or 1) that its kept ``mlp_out`` nodes write. Edges of score
    0 are left out: they count as outside the circuit.
    """
    writers, readers = _parts(stack, circuit)
    edges: dict[str, dict[str, Any]] = {}
    used: set[str] = {"input", "logits"}
    for writer in writers:
        for reader in readers:
            score = float(writer.carries @ reader.carries)
            # In a layer the MLP comes after the heads: time 2·layer against 2·layer + 1.
            if writer.time < reader.time and score > 0 and (writer.name, reader.name) != ("input", "logits"):
                edges[f"{writer.name}->{reader.name}"] = {"score": score, "in_graph": True}
                used |= {writer.name, reader.name.split("<")[0]}
    edges["input->logits"] = {"score": 0.0, "in_graph": True}
    nodes: dict[str, dict[str, Any]] = {w.name: {"in_graph": w.name in used} for w in writers}
    for layer in range(stack.n_layers):
        nodes[f"m{layer}"]["neurons"] = circuit.nodes[f"{layer}.mlp_out"].int().tolist()
    nodes["logits"] = {"in_graph": True}
    cfg = {"n_layers": stack.n_layers, "n_heads": _heads(stack), "parallel_attn_mlp": False, "d_model": stack.d_model}
    return {"cfg": cfg, "nodes": nodes, "edges": edges}


def save_mib(stack: ResidualStack, circuit: Circuit, path: str | Path) -> Path:
    """Write `mib_graph` as JSON."""
    Path(path).write_text(json.dumps(mib_graph(stack, circuit)) + "\n")
    return Path(path)
