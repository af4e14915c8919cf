"""A circuit's core as a graph for a picture: its largest nodes, tokens at both ends, and what joins them.

The same as ``core.js`` works out in the page, from the same data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bridges.report.names import node_key

STAGES = {"attn_in": 0, "q": 1, "k": 1, "v": 1, "attn_out": 2, "mlp_in": 3, "mlp_neuron": 4, "mlp_out": 5}
KINDS = {
    "attn_in": "attn in",
    "q": "query",
    "k": "key",
    "v": "value",
    "attn_out": "attn out",
    "mlp_in": "mlp in",
    "mlp_neuron": "neuron",
    "mlp_out": "mlp out",
}
PROMPT, ANSWER = -1, 1_000_000  # depths of the tokens at both ends
TOKENS = 3  # at either end


@dataclass(frozen=True)
class Item:
    """A node, or a token at one end (without a kind)."""

    text: str
    depth: int
    kind: str = ""
    layer: int = 0
    key: str = ""
    attribution: float = 0.0


@dataclass(frozen=True)
class Link:
    """What joins two items, by their places: one weight (``direct``), or a channel of the stream or other nodes."""

    source: int
    target: int
    direct: bool
    attribution: float = 0.0


@dataclass(frozen=True)
class Core:
    """Items and links, and how many nodes the whole circuit has."""

    items: list[Item]
    links: list[Link]
    total: int


def core_graph(circuit: dict[str, Any], size: int) -> Core:
    """The first ``size`` nodes of a circuit as the page holds it (`bridges.report.circuits.graph`)."""
    nodes = [_node(circuit, row) for row in circuit["nodes"]]
    direct: dict[tuple[int, int], float] = {}
    for a, b, weight, attribution, _ in circuit["edges"]:
        direct[a, b] = weight if attribution is None else attribution
    channels = [row[1] for row in circuit["nodes"]]
    writes = [i for i, node in enumerate(nodes) if node.kind.endswith("_out")]
    reads = [i for i, node in enumerate(nodes) if node.kind.endswith("_in")]
    stream = [(a, b) for a in writes for b in reads if channels[a] == channels[b] and nodes[a].depth < nodes[b].depth]
    shown = list(range(min(size, len(nodes))))
    items = [nodes[i] for i in shown]
    links = [Link(a, b, True, value) for (a, b), value in direct.items() if a < size and b < size]
    links += [Link(a, b, False) for a, b in stream if a < size and b < size]

    # Vertices beyond the nodes are tokens.
    follows: list[list[int]] = [[] for _ in nodes]
    for a, b in (*direct, *stream):
        follows[a].append(b)
    place = {i: i for i in shown}
    for rows, text_at, channel_at, depth, ends in (
        (circuit["reads"], 0, 1, PROMPT, reads),
        (circuit["writes"], 1, 0, ANSWER, writes),
    ):
        sums: dict[str, float] = {}
        for row in rows:
            sums[row[text_at]] = sums.get(row[text_at], 0.0) + abs(row[3] or 0.0)
        # The pair's two answers, or else those tokens whose weights count most.
        asked = [t for t in circuit["answers"] if t in sums] if depth == ANSWER else []
        for text in (asked + sorted((t for t in sums if t not in asked), key=lambda t: -sums[t]))[:TOKENS]:
            vertex = len(follows)
            follows.append([])
            place[vertex] = len(items)
            items.append(Item(text, depth))
            for row in rows:
                if row[text_at] != text:
                    continue
                for i in (i for i in ends if channels[i] == row[channel_at]):
                    pair = (vertex, i) if depth == PROMPT else (i, vertex)
                    follows[pair[0]].append(pair[1])
                    if i < size:
                        links.append(Link(place[pair[0]], place[pair[1]], True, row[3] or row[2]))
    return Core(items, links + _hidden(follows, place, items, links, nodes), len(nodes) + circuit["left"]["nodes"])


def _node(circuit: dict[str, Any], row: list[Any]) -> Item:
    point, channel = circuit["points"][row[0]], row[1]
    first, _, kind = point.partition(".")
    layer = int(first) if first.isdigit() else 0
    text = f"{KINDS.get(kind, kind)} {channel}"
    key = node_key(circuit["model"], point, channel)
    return Item(text, 6 * layer + STAGES.get(kind, 5), kind, layer, key, float(row[2] or 0.0))


def _hidden(
    follows: list[list[int]], place: dict[int, int], items: list[Item], links: list[Link], nodes: list[Item]
) -> list[Link]:
    """For every item without a link on one side, the strongest way through nodes that are not shown to one that is."""
    leads: list[list[int]] = [[] for _ in follows]
    for a, after in enumerate(follows):
        for b in after:
            leads[b].append(a)
    found: dict[tuple[int, int], Link] = {}
    for vertex, at in place.items():
        for forward, steps in ((True, follows), (False, leads)):
            if items[at].depth == (ANSWER if forward else PROMPT):
                continue
            if any((link.source if forward else link.target) == at for link in links):
                continue
            end = _widest(vertex, steps, place, nodes)
            if end is not None:
                pair = (at, place[end]) if forward else (place[end], at)
                found[pair] = Link(*pair, direct=False)
    return list(found.values())


def _widest(start: int, steps: list[list[int]], place: dict[int, int], nodes: list[Item]) -> int | None:
    """The shown vertex at the end of the way whose weakest hidden node is the largest; None where there is no way."""
    best, done = {start: float("inf")}, set()
    while waiting := [v for v in best if v not in done]:
        vertex = max(waiting, key=lambda v: best[v])
        if vertex != start and vertex in place:
            return vertex
        done.add(vertex)
        for after in steps[vertex]:
            width = min(best[vertex], float("inf") if after in place else abs(nodes[after].attribution))
            if after not in done and width > best.get(after, -1.0):
                best[after] = width
    return None
