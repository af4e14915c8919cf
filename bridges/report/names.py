"""Names and groups that a reader gave to nodes, as the page saves them: ``names.json`` in the run's folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from bridges.errors import CheckpointError

FILE = "names.json"


@dataclass(frozen=True)
class Names:
    """What a reader calls the nodes of a run.

    Attributes:
        names: ``{node: name}``; a node is written as point and channel, ``2.mlp_neuron:242``, in the dense model with
            ``dense/`` before that.
        groups: ``{group: [nodes]}``.
    """

    names: dict[str, str] = field(default_factory=dict)
    groups: dict[str, list[str]] = field(default_factory=dict)

    def of(self, point: str, channel: int, model: str = "sparse") -> str:
        """The name of one node; empty where it has none."""
        return self.names.get(node_key(model, point, channel), "")

    def group(self, point: str, channel: int, model: str = "sparse") -> str:
        """The group of one node, the last that holds it; empty where none does."""
        key = node_key(model, point, channel)
        return next((group for group, nodes in reversed(self.groups.items()) if key in nodes), "")


def node_key(model: str, point: str, channel: int) -> str:
    """A node as names are kept under."""
    return f"{'' if model == 'sparse' else f'{model}/'}{point}:{int(channel)}"


def read_names(path: str | Path) -> Names:
    """Read a file that the page saved.

    Args:
        path: the file, or a run's folder that may hold ``names.json``; without one there are no names.

    Raises:
        CheckpointError: it is missing, or holds something else.
    """
    path = Path(path)
    if path.is_dir():
        path = path / FILE
        if not path.is_file():
            return Names()
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        names, groups = dict(given.get("names", {})), dict(given.get("groups", {}))
        lists = [nodes for nodes in groups.values() if isinstance(nodes, list)]
        whole = all(isinstance(text, str) for text in (*names.values(), *(node for nodes in lists for node in nodes)))
        if not whole or len(lists) < len(groups):
            raise ValueError("a name or a node is no text")
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} holds no names of nodes ({error}). It must be what the report saves: "
            '{"names": {"2.mlp_neuron:242": "…"}, "groups": {"…": ["2.mlp_neuron:242"]}}.'
        ) from error
    return Names(names, groups)
