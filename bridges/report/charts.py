"""Charts as data: what is drawn, in which look; ``chart.js`` draws it, and a table below holds the same numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bridges.report.markup import Raw, details, html, join, note
from bridges.report.text import escape, known, visible

# Look of a series: colour (a number of the page's palette), dashes and marker; no two share all three.
LOOKS: dict[str, tuple[int, str, str]] = {
    "first": (1, "", "circle"),
    "second": (2, "6 3", "square"),
    "third": (3, "2 3", "diamond"),
    "fourth": (4, "8 3 2 3", "triangle"),
    "fifth": (5, "4 2", "down"),
    "sixth": (6, "1 2", "cross"),
    "plain": (0, "", "circle"),
    "rule": (0, "7 4", ""),
    "faint": (0, "2 3", "ring"),
}
ORDER = ("first", "second", "third", "fourth", "fifth", "sixth", "plain", "faint")
Point = tuple[float, float, float | None, float | None]


def rounded(value: Any, digits: int = 5) -> float | None:
    """Significant digits enough to draw; None where there is no finite number."""
    if not known(value) or math.isinf(float(value)):
        return None
    return float(f"{float(value):.{digits}g}")


@dataclass
class Series:
    """One line or one set of markers.

    Attributes:
        name: as in the legend. look: one of `LOOKS`.
        points: x (index of the category in a chart of dots), y, lower and upper end of the interval of y or None.
        line: whether the points are joined.
    """

    name: str
    look: str
    points: list[Point] = field(default_factory=list)
    line: bool = True

    def add(self, x: Any, y: Any, low: Any = None, high: Any = None) -> None:
        """Add a point; one without a finite value is left out."""
        if rounded(x) is not None and rounded(y) is not None:
            ends = (rounded(low), rounded(high)) if None not in (rounded(low), rounded(high)) else (None, None)
            self.points.append((rounded(x) or 0.0, rounded(y) or 0.0, *ends))


@dataclass
class Chart:
    """One panel.

    Attributes:
        kind: ``lines`` over x, or ``dots`` beside categories (then y runs sideways).
        title, x, y: panel title and labels of the axes with units.
        rules: horizontal lines: name and value.
        ticks: labels of x = 0, 1, …; the categories of a chart of dots.
        log_x, log_y: logarithmic axes; dropped where a value is not above zero.
        share: y is a share and written in per cent; unit: its range is 0 to 1.
    """

    kind: Literal["lines", "dots"]
    title: str
    x: str
    y: str
    series: list[Series]
    rules: list[tuple[str, float]] = field(default_factory=list)
    ticks: list[str] | None = None
    log_x: bool = False
    log_y: bool = False
    share: bool = False
    unit: bool = False

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(series.points for series in self.series)

    def spec(self) -> dict[str, Any]:
        """What ``chart.js`` reads."""
        drawn = [s for s in self.series if s.points]
        xs = [p[0] for s in drawn for p in s.points]
        ys = [v for s in drawn for p in s.points for v in p[1:] if v is not None] + [v for _, v in self.rules]
        return {
            "kind": self.kind,
            "title": visible(self.title),
            "x": self.x,
            "y": self.y,
            "ticks": None if self.ticks is None else [visible(t) for t in self.ticks],
            "logX": self.log_x and min(xs) > 0 and max(xs) > min(xs),
            "logY": self.log_y and min(ys) > 0 and max(ys) > 4 * min(ys),
            "share": self.share,
            "unit": self.unit,
            "rules": [{"name": visible(name), "y": rounded(value)} for name, value in self.rules],
            "series": [
                {"name": visible(s.name), "colour": colour, "dash": dash, "marker": marker, "line": s.line}
                | {"points": [list(p) for p in s.points]}
                for s in drawn
                for colour, dash, marker in [LOOKS[s.look]]
            ],
        }


class Figures:
    """The charts and graphs of one page, numbered in its order, and the tokens that its examples are made of."""

    def __init__(self) -> None:
        self.charts: list[list[dict[str, Any]]] = []
        self.graphs: list[dict[str, Any]] = []
        self.texts: dict[str, int] = {}

    def text(self, token: str) -> int:
        """The number under which the page holds this token."""
        return self.texts.setdefault(token, len(self.texts))

    def figure(self, title: str, panels: Sequence[Chart], caption: str, data: Raw, columns: int = 2) -> Raw:
        """A figure of one or more panels under one legend, with its numbers as a table folded below."""
        drawn = [panel for panel in panels if not panel.empty]
        if not drawn:
            return note(f"{title}: there is nothing to draw.")
        index = len(self.charts)
        self.charts.append([panel.spec() for panel in drawn])
        number = min(columns, len(drawn))
        return join(
            [
                f'<figure class="chart"><h4>{html(title)}</h4>',
                f'<div class="panels of{number}" data-charts="{index}" role="group" '
                f'aria-label="{escape(title)}"></div>',
                f"<figcaption>{html(caption)}</figcaption>",
                details("The numbers as a table", data),
                "</figure>",
            ]
        )

    def graph(self, data: dict[str, Any], label: str) -> Raw:
        """An interactive circuit; ``graph.js`` draws it."""
        self.graphs.append(data)
        number = len(self.graphs) - 1
        return Raw(f'<div class="graph" data-graph="{number}" role="group" aria-label="{escape(label)}"></div>')
