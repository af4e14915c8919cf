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
    "ceiling": (0, "5 4", "ring"),
    "plain": (0, "", "circle"),
    "rule": (0, "7 4", ""),
    "faint": (0, "2 3", "ring"),
}
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
        marked: an x with a vertical line, and what it is.
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
    marked: tuple[float, str] | None = None

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
            "marked": None if self.marked is None else {"x": self.marked[0], "name": self.marked[1]},
            "rules": [{"name": visible(name), "y": rounded(value)} for name, value in self.rules],
            "series": [
                {"name": visible(s.name), "colour": colour, "dash": dash, "marker": marker, "line": s.line}
                | {"points": [list(p) for p in s.points]}
                for s in drawn
                for colour, dash, marker in [LOOKS[s.look]]
            ],
        }


class Figures:
    """The charts and circuits of one page, numbered in its order."""

    def __init__(self) -> None:
        self.charts: list[list[dict[str, Any]]] = []
        self.graphs: list[dict[str, Any]] = []

    def panels(self, panels: Sequence[Chart], label: str, columns: int = 2) -> Raw:
        """Charts under one legend; ``chart.js`` draws them."""
        self.charts.append([panel.spec() for panel in panels])
        return Raw(
            f'<div class="panels of{min(columns, len(panels))}" data-charts="{len(self.charts) - 1}" role="group" '
            f'aria-label="{escape(label)}"></div>'
        )

    def figure(self, title: str, panels: Sequence[Chart], caption: str, data: Raw, columns: int = 2) -> Raw:
        """A figure of one or more panels, with its numbers as a table folded below."""
        drawn = [panel for panel in panels if not panel.empty]
        if not drawn:
            return note(f"{title}: there is nothing to draw.")
        return join(
            [
                f'<figure class="chart"><h4>{html(title)}</h4>',
                self.panels(drawn, title, columns),
                f"<figcaption>{html(caption)}</figcaption>",
                details("The numbers as a table", data),
                "</figure>",
            ]
        )

    def add_graph(self, data: dict[str, Any]) -> int:
        """The number under which the page holds a circuit."""
        self.graphs.append(data)
        return len(self.graphs) - 1
