"""The links of an attribution graph: edges as they are given, and what the residual stream does between them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bridges.circuits.circuit import Circuit, only
from bridges.circuits.weights import EMBEDDING, LOGITS
from bridges.errors import BridgesError
from bridges.nodes import record
from bridges.stack import ResidualStack

# A channel of a point; (EMBEDDING, token's place) and (LOGITS, token id) stand for the ends of the graph.
Node = tuple[str, int]
Edge = tuple[str, int, str, int, float]
Link = tuple[Node, Node, float]

STREAM = "stream"
_READS, _WRITES = ("attn_in", "mlp_in"), ("attn_out", "mlp_out")


@dataclass(frozen=True)
class CircuitRun:
    """The circuit alone on the prompt.

    Attributes:
        values: ``{point: [T, channels]}``. embedded: the stream at the first site, ``[T, d]``.
        final: the stream at the last site, ``[1, T, d]``. probabilities: of the next token, ``[V]``.
    """

    values: dict[str, Tensor]
    embedded: Tensor
    final: Tensor
    probabilities: Tensor


@torch.no_grad()
def run_circuit(stack: ResidualStack, circuit: Circuit, ids: Tensor) -> CircuitRun:
    """The circuit alone on one prompt, ids ``[T]``."""
    with only(stack, circuit), record(stack) as seen:
        streams = stack.run(ids[None])
        logits = stack.unembed(streams.final[0], ids[None])[0, -1]
    values = {point: x[0].float().cpu() for point, x in seen.items()}
    probabilities = logits.double().softmax(-1).cpu()
    return CircuitRun(values, streams.sites[0][0].float().cpu(), streams.final[0].detach(), probabilities)


def position(values: Tensor, circuit: Circuit, node: Node) -> int:
    """The token at which a node's values ``[T]`` are farthest from its mean."""
    return last_largest(values - circuit.reference[node[0]][node[1]].cpu())


def last_largest(x: Tensor) -> int:
    """Where ``[n]`` is largest in magnitude, the last place of equal ones."""
    return len(x) - 1 - int(x.abs().flip(0).argmax())


def given_links(edges: Iterable[Edge], node_ids: Mapping[Node, str], ids: Tensor) -> list[Link]:
    """The caller's edges. A token that stands at several places shares its weight among them."""
    links: list[Link] = []
    for source, by, target, to, weight in edges:
        if STREAM in (source, target):
            continue
        starts: list[Node] = [(source, by)]
        if source == EMBEDDING:
            starts = [(EMBEDDING, t) for t in (ids == by).nonzero()[:, 0].tolist()]
        for end in (*starts, (target, to)):
            if end not in node_ids:
                raise BridgesError(f"An edge names {end[0]}:{end[1]}, which is no node of this graph.")
        if not math.isfinite(weight):
            raise BridgesError(f"The edge from {source}:{by} to {target}:{to} has the weight {weight}.")
        links += [(start, (target, to), float(weight) / len(starts)) for start in starts]
    return links


def read_already(links: Iterable[Link]) -> set[Node]:
    """What `links` enter from a node that writes to the stream."""
    return {t for s, t, _ in links if s[0] == EMBEDDING or s[0].split(".")[-1] in _WRITES}


def into_reads(
    kept: Sequence[Node],
    order: Mapping[str, int],
    at: Mapping[Node, int],
    score: Mapping[Node, float],
    run: CircuitRun,
    parallel: bool = False,
) -> list[Link]:
    """Links into the channels that are read, from what is written to them before.

    Args:
        parallel: attention and MLP of a layer read the same stream, so that neither reads the other.
    """
    links: list[Link] = []
    writers = [node for node in kept if node[0].split(".")[1] in _WRITES]
    for point, c in kept:
        # Channels beside the stream, those of positions, are written by nothing.
        if point.split(".")[1] not in _READS or c >= run.embedded.shape[1]:
            continue
        t = at[point, c]
        written: dict[Node, float] = {(EMBEDDING, t): float(run.embedded[t, c])}
        for writer in writers:
            beside = parallel and writer[0].split(".")[0] == point.split(".")[0]
            if writer[1] == c and order[writer[0]] < order[point] and not beside:
                written[writer] = float(run.values[writer[0]][t, c])
        total = sum(map(abs, written.values()))
        links += [(w, (point, c), score[point, c] * v / total) for w, v in written.items() if v]
    return links


def answer_direction(stack: ResidualStack, final: Tensor, ids: Tensor, token: int) -> Tensor:
    """The direction of the last stream ``[d]`` that a token's logit after the prompt is read in, the last norm's scale
    held fixed: its product with the stream is the logit less what the logit is without a stream.

    The gradient lacks the part along the stream, since a norm undoes a change of length; that part follows from the
    logits themselves.

    Args:
        final: the stream at the last site, ``[1, T, d]``. ids: ``[T]``.
    """

    def logit(h: Tensor) -> Tensor:
        return stack.unembed(h, ids[None])[0, -1, token]

    with torch.enable_grad():
        h = final.clone().requires_grad_()
        value = logit(h)
        (slope,) = torch.autograd.grad(value, h)
    with torch.no_grad():
        slope, along = slope[0, -1].double(), final[0, -1].double()
        # LayerNorm takes the mean away first.
        if torch.isclose(logit(final + 1), value, rtol=1e-4, atol=1e-4):
            along = along - along.mean()
        missing = value - logit(torch.zeros_like(final)) - slope @ along
        return (slope + missing / (along @ along).clamp_min(1e-30) * along).float().cpu()


def into_answers(
    stack: ResidualStack, kept: Sequence[Node], answers: Iterable[int], ids: Tensor, run: CircuitRun
) -> list[Link]:
    """Direct effects on the answers' logits: of what each node writes at the last token, and of the token itself."""
    links: list[Link] = []
    for token in answers:
        direction = answer_direction(stack, run.final, ids, token)
        links.append(((EMBEDDING, len(ids) - 1), (LOGITS, token), float(direction @ run.embedded[-1])))
        for point, c in kept:
            if point.split(".")[1] in _WRITES:
                links.append(((point, c), (LOGITS, token), float(direction[c] * run.values[point][-1, c])))
    # What cancels to the last digits would stand in the viewer as a link of weight 0.
    least = 1e-6 * max((abs(weight) for _, _, weight in links), default=0.0)
    return [link for link in links if abs(link[2]) > least]
