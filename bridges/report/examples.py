"""When nodes are active: the places in text where they peak, and the behaviour's example pair.

Each node's peaks and each stretch of text are held once for the whole page.
"""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from bridges.errors import CheckpointError
from bridges.report.charts import rounded
from bridges.report.names import node_key
from bridges.report.source import Source
from bridges.report.text import visible
from bridges.storage.tables.circuits import PROMPTS

PLACES = 3  # in text, of one node
# Activations are shaded in this many steps above and below zero, written as one letter each: Z is zero.
STEPS = 25
# Beyond the limits of what a page should weigh, only nodes of higher attribution have examples.
FULL, SINGLE = 80, 200


class Examples:
    """What the page says about when a node is active.

    Args:
        source: of table ``activations``; nodes are the same in every circuit of a model, so that what one behaviour's
            rows say holds for all.
    """

    def __init__(self, source: Source) -> None:
        self._rows: dict[str, list[tuple[Any, ...]]] = {}
        self._texts: dict[str, int] = {}
        self._windows: dict[str, int] = {}
        self._tokens: list[list[int]] = []
        self._places: dict[str, list[list[Any]]] = {}
        self._pairs = source.table("prompt_activations")
        frame = source.table("activations")
        if frame is not None:
            self._read(frame)

    def _read(self, frame: pd.DataFrame) -> None:
        kept = frame[frame["rank"] < PLACES].drop_duplicates(["model", "point", "channel", "rank"])
        kept = kept.sort_values(["model", "point", "channel", "rank"], kind="stable")
        columns = ("model", "point", "channel", "value", "token", "tokens", "values")
        for model, point, channel, *place in kept[list(columns)].itertuples(index=False):
            self._rows.setdefault(node_key(model, visible(point), channel), []).append(tuple(place))

    def add(self, key: str, rank: int) -> None:
        """Hold the examples of one node.

        Args:
            rank: of the node by attribution in its circuit; far down there is one place, further down none.
        """
        number = PLACES if rank < FULL else 1 if rank < SINGLE else 0
        places = self._rows.get(key, [])[:number]
        if places and len(self._places.get(key, [])) < len(places):
            self._places[key] = [self._place(*place) for place in places]

    def _place(self, value: float, marked: int, tokens: str, values: str) -> list[Any]:
        return [rounded(value, 3), int(marked), self._window(tokens), _shades(_list(values, "values"))]

    def _window(self, tokens: str) -> int:
        """The number of a stretch of text."""
        if tokens not in self._windows:
            shown = [visible(str(token)) for token in _list(tokens, "tokens")]
            self._windows[tokens] = len(self._tokens)
            self._tokens.append([self._texts.setdefault(text, len(self._texts)) for text in shown])
        return self._windows[tokens]

    def peaks(self, key: str) -> list[str]:
        """The tokens that a node is most active on, the strongest first, each once."""
        marked = (_list(tokens, "tokens")[at] for _, at, tokens, _ in self._rows.get(key, []))
        return list(dict.fromkeys(text for text in (visible(str(token)).strip() for token in marked) if text))

    def pair(self, name: str, model: str, nodes: list[tuple[str, int]]) -> tuple[list[int], list[Any]]:
        """The example pair of a behaviour as nodes of one of its circuits see it.

        Args:
            nodes: point and channel, the largest attribution first.

        Returns:
            the stretches of text of its two prompts, none where nothing was measured; and for each node but those far
            down the largest absolute activation and both prompts' shades relative to it, or None.
        """
        frame = self._pairs
        if frame is not None:
            frame = frame[(frame["behaviour"] == name) & (frame["model"] == model)]
        if frame is None or frame.empty:
            return [], []
        first = frame.drop_duplicates("prompt").set_index("prompt")["tokens"]
        prompts = [self._window(first[side]) for side in PROMPTS]
        columns = (frame[c] for c in ("point", "channel", "prompt", "values"))
        found = {(str(p), int(c), str(side)): values for p, c, side, values in zip(*columns, strict=True)}
        return prompts, [self._seen([found.get((*node, side)) for side in PROMPTS]) for node in nodes[:SINGLE]]

    @staticmethod
    def _seen(values: list[str | None]) -> list[Any] | None:
        if None in values:
            return None
        numbers = [[rounded(v) or 0.0 for v in _list(str(text), "values")] for text in values]
        most = max((abs(v) for side in numbers for v in side), default=0.0)
        return [rounded(most, 3), *(_shades(side, most) for side in numbers)]

    def data(self) -> dict[str, Any]:
        """``texts`` of tokens, ``windows`` of indices into them, and per node places: value, marked token, window,
        shades."""
        return {"texts": list(self._texts), "windows": self._tokens, "places": self._places}


def _shades(values: list[Any], most: float | None = None) -> str:
    """Each value as a letter: A the most negative, Z zero, a to y up to the largest.

    Args:
        most: the largest absolute value that they are relative to; None: of these.
    """
    numbers = [rounded(v) or 0.0 for v in values]
    most = (max((abs(v) for v in numbers), default=0.0) if most is None else most) or 1.0
    steps = [round(STEPS * v / most) for v in numbers]
    return "".join(chr(ord("a") + s - 1) if s > 0 else "Z" if s == 0 else chr(ord("A") + STEPS + s) for s in steps)


def _list(text: str, column: str) -> list[Any]:
    try:
        values = json.loads(text)
        assert isinstance(values, list)
    except (ValueError, TypeError, AssertionError) as error:
        raise CheckpointError(f"Table 'activations' is damaged: its column {column!r} holds no JSON list.") from error
    return values
