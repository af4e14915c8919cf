"""A circuit: the nodes and edges of a stack that stay while everything else is replaced by its mean."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bridges.circuits.patch import patch
from bridges.circuits.weights import EMBEDDING, LOGITS, EdgeMatrix, edge_matrices, with_biases
from bridges.errors import CheckpointError
from bridges.nodes import NodeFunction, intervene
from bridges.stack import ResidualStack


@dataclass(frozen=True)
class Circuit:
    """What was cut out of one stack for one behaviour.

    Attributes:
        behaviour: name. model: ``sparse`` or ``dense``. method: how the nodes were chosen. seed: of the search.
        objective: what was asked of it. ablation: what replaced a removed node in the search: ``mean``, ``zero``,
            ``resample`` or ``mixed``.
        nodes: ``{point: bool [channels]}`` of every point of the stack.
        scores: ``{point: float [channels]}`` by which nodes were ranked.
        edges: ``{matrix: bool [target, source]}``, false where a weight between kept nodes was removed; None: none was.
            Weights of other nodes stay, since those still compete in AbsTopK.
        reference: ``{point: float [channels]}``, the value of a removed node.
        target: of the objective (unexplained variance, or nats of two-way loss). reached: whether it was.
        train_loss: the objective's value on the training pairs. carried: that across the bridges; NaN without any.
        scale, shift: the calibration of the logits; 1 and 0 where the objective fits none.
        meta: what else should be kept.
    """

    behaviour: str
    model: str
    method: str
    seed: int
    ablation: str
    nodes: dict[str, Tensor]
    scores: dict[str, Tensor]
    edges: dict[str, Tensor] | None
    reference: dict[str, Tensor]
    target: float
    reached: bool
    train_loss: float
    scale: float = 1.0
    shift: float = 0.0
    carried: float = math.nan
    objective: str = "task_loss"
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Kept nodes."""
        return int(sum(kept.sum() for kept in self.nodes.values()))

    @property
    def protected(self) -> dict[str, Tensor]:
        """Nodes that adversarial pruning added, since the whole model needs them, ``{point: bool [channels]}``."""
        found = {p: torch.zeros_like(kept) for p, kept in self.nodes.items()}
        for point, channels in self.meta.get("protected", {}).items():
            found[point][channels] = True
        return {p: found[p] & kept for p, kept in self.nodes.items()}

    def without_edges(self) -> Circuit:
        """The same nodes with every weight between them."""
        return replace(self, edges=None)

    def save(self, path: str | Path, edges: list[dict[str, Any]] | None = None) -> None:
        """Write one JSON file: kept channels and removed edges as index lists, means and scores exactly.

        Args:
            edges: the graph's edges with their weights, for other readers of the file.
        """
        values = {
            k: getattr(self, k)
            for k in ("behaviour", "model", "method", "seed", "ablation", "objective", "target", "reached")
        }
        values |= {k: getattr(self, k) for k in ("train_loss", "carried", "scale", "shift", "meta")}
        values["nodes"] = {p: kept.nonzero()[:, 0].tolist() for p, kept in self.nodes.items()}
        values["widths"] = {p: len(kept) for p, kept in self.nodes.items()}
        values["scores"] = {p: s.double().tolist() for p, s in self.scores.items()}
        values["reference"] = {p: s.double().tolist() for p, s in self.reference.items()}
        if self.edges is not None:
            values["removed_edges"] = {
                m: {"shape": list(e.shape), "at": (~e).nonzero().tolist()} for m, e in self.edges.items()
            }
        if edges is not None:
            values["edges"] = edges
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(values) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Circuit:
        """Read what `save` wrote.

        Raises:
            CheckpointError: the file is missing or damaged.
        """
        try:
            values = json.loads(Path(path).read_text())
            widths = values.pop("widths")
            values.pop("edges", None)

            def mask(shape: list[int], kept: list) -> Tensor:
                out = torch.zeros(shape, dtype=torch.bool)
                if kept:
                    out[tuple(torch.tensor(kept).view(len(kept), -1).T)] = True
                return out

            nodes = {p: mask([widths[p]], kept) for p, kept in values.pop("nodes").items()}
            edges = values.pop("removed_edges", None)
            if edges is not None:
                edges = {m: ~mask(e["shape"], e["at"]) for m, e in edges.items()}
            scores, reference = (
                {p: torch.tensor(v, dtype=torch.float32) for p, v in values.pop(k).items()}
                for k in ("scores", "reference")
            )
            return cls(nodes=nodes, edges=edges, scores=scores, reference=reference, **values)
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise CheckpointError(f"{path} holds no readable circuit: {error}") from error


def replaced(kept: Tensor, value: Tensor) -> NodeFunction:
    """A node function that keeps the channels in ``kept`` and puts ``value`` (``[channels]`` or ``[B, T, channels]``)
    in the others."""

    return lambda x: patch(x, kept, value)


def removal(
    circuit: Circuit, keep: str = "circuit", values: Mapping[str, Tensor] | None = None
) -> dict[str, NodeFunction]:
    """Node functions for `bridges.nodes.intervene`.

    Args:
        keep: ``circuit`` replaces everything outside the circuit (sufficiency), ``complement`` the circuit itself
            (necessity).
        values: ``{point: [B, T, channels]}`` from other text (resample ablation); None takes the circuit's reference.
    """
    replacement = circuit.reference if values is None else values
    wanted = {p: kept if keep == "circuit" else ~kept for p, kept in circuit.nodes.items()}
    return {p: replaced(kept, replacement[p]) for p, kept in wanted.items() if not bool(kept.all())}


@contextmanager
def edges_ablated(stack: ResidualStack, circuit: Circuit) -> Iterator[None]:
    """Zero the weights that the circuit dropped while the block runs; their sources give their mean instead.

    The weights are put back whatever happens inside.
    """
    if circuit.edges is None:
        yield
        return
    with with_biases(stack), ExitStack() as undo:
        for matrix in edge_matrices(stack):
            kept = circuit.edges.get(matrix.name)
            if kept is not None and not bool(kept.all()):
                undo.callback(_put_back(matrix, kept.to(matrix.weight.device), circuit.reference))
        yield


@torch.no_grad()
def _put_back(matrix: EdgeMatrix, kept: Tensor, reference: Mapping[str, Tensor]) -> Callable[[], None]:
    """Zero the weights that are not kept and give their sources' means instead; returns what undoes that."""
    weight, bias = matrix.weight.clone(), None if matrix.bias is None else matrix.bias.clone()
    mean, gone = reference[matrix.source].to(weight), weight * ~kept
    if matrix.attention is not None:
        # What a head mixes of constant values is less than the constant where attention has a sink.
        matrix.attention.constant = (gone, mean)
    matrix.put(weight - gone, None if bias is None or matrix.attention is not None else bias + gone @ mean)

    def back() -> None:
        matrix.put(weight, bias)
        if matrix.attention is not None:
            matrix.attention.constant = None

    return back


@contextmanager
def only(stack: ResidualStack, circuit: Circuit, values: Mapping[str, Tensor] | None = None) -> Iterator[None]:
    """The stack reduced to the circuit while the block runs: other nodes replaced, dropped edges removed."""
    with edges_ablated(stack, circuit), intervene(stack, removal(circuit, "circuit", values)):
        yield


@contextmanager
def ablated(stack: ResidualStack, circuit: Circuit) -> Iterator[None]:
    """The stack without the circuit's nodes while the block runs."""
    with intervene(stack, removal(circuit, "complement")):
        yield


def circuit_logits(
    stack: ResidualStack, circuit: Circuit, ids: Tensor, values: Mapping[str, Tensor] | None = None
) -> Tensor:
    """Logits ``[B, T, V]`` of the circuit alone over token ids ``[B, T]``."""
    with only(stack, circuit, values):
        return stack.logits(ids)


@dataclass(frozen=True)
class EdgeCount:
    """Edges of a circuit.

    Attributes:
        inside: kept nonzero weights between kept nodes of the blocks.
        with_embeddings: the same and those weights of embedding and unembedding that the behaviour's own tokens and
            candidates use in channels that a kept node reads or writes.
        node_level: `inside` with every nonzero weight between kept nodes.
    """

    inside: int
    with_embeddings: int
    node_level: int


def kept_edges(stack: ResidualStack, circuit: Circuit) -> dict[str, Tensor]:
    """``{matrix: bool [target, source]}`` of the nonzero weights between kept nodes that the circuit keeps."""
    found = {}
    for matrix in edge_matrices(stack):
        if matrix.source in circuit.nodes and matrix.target in circuit.nodes:
            between = circuit.nodes[matrix.target][:, None] & circuit.nodes[matrix.source][None, :]
            between = between & (matrix.weight != 0).cpu()
            if circuit.edges is not None and matrix.name in circuit.edges:
                between = between & circuit.edges[matrix.name]
            found[matrix.name] = between
    return found


def count_edges(stack: ResidualStack, circuit: Circuit, tokens: Tensor | None = None, candidates: Tensor | None = None):
    """`EdgeCount` of a circuit.

    Args:
        tokens: ids that occur in the behaviour's prompts. candidates: ids it chooses between. Without them no weight
            of embedding and unembedding is counted.
    """
    inside = sum(int(e.sum()) for e in kept_edges(stack, circuit).values())
    node_level = sum(int(e.sum()) for e in kept_edges(stack, circuit.without_edges()).values())
    reads = _stream_channels(circuit, ("attn_in", "mlp_in"))
    writes = _stream_channels(circuit, ("attn_out", "mlp_out"))
    outer = 0
    for matrix in edge_matrices(stack):
        if matrix.source == EMBEDDING and tokens is not None:
            outer += int((matrix.weight[:, tokens.unique().to(matrix.weight.device)] != 0).cpu()[reads].sum())
        if matrix.target == LOGITS and candidates is not None:
            outer += int((matrix.weight[candidates.unique().to(matrix.weight.device)] != 0).cpu()[:, writes].sum())
    return EdgeCount(inside, inside + outer, node_level)


def _stream_channels(circuit: Circuit, kinds: tuple[str, ...]) -> Tensor:
    """Channels of the stream that kept nodes of these kinds read or write; channels beside the stream are left out."""
    chosen = [kept for point, kept in circuit.nodes.items() if point.split(".")[1] in kinds]
    width = min(len(kept) for kept in chosen)
    return torch.stack([kept[:width] for kept in chosen]).any(0)
