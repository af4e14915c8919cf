"""How figures look: one palette that colour-blind readers can tell apart, little ink, one way to save."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from bridges.storage.folder import make_folder

# Okabe and Ito's palette, from the strongest contrast on white down.
BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"
BLACK, GREY = "#222222", "#8A8A8A"
PALETTE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, right: float = 0.0
) -> tuple[Figure, list[Axes]]:
    """A figure that belongs to no window, and its axes row by row.

    Args:
        width, height: of one panel, in inches.
        right: room for a legend beside the panels, in inches.
    """
    figure = Figure(figsize=(width * columns + right, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, [tidy(axis) for axis in axes.flat]


def tidy(axes: Axes) -> Axes:
    """Two spines, a faint horizontal grid, small ticks."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", color=GREY, labelcolor=BLACK, labelsize=9)
    return axes


def log_scale(axes: Axes, which: Literal["x", "y"], percent: bool = False) -> None:
    """A logarithmic axis with plain numbers as ticks; call it when everything is drawn.

    Args:
        percent: fractions are written as per cent.
    """
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    decades = math.log10(high / low)
    axis = axes.xaxis if which == "x" else axes.yaxis
    if decades < 0.8:
        axis.set_major_locator(MaxNLocator(4))
    else:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2.4 else (1,)))
    axis.set_minor_locator(NullLocator())
    factor, unit = (100, " %") if percent else (1, "")
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{factor * value:g}{unit}"))


def save(figure: Figure, path: Path) -> Path:
    """Write the figure, making its folder where needed."""
    make_folder(path.parent, "--out")
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a name such as `f"$x$"` is no formula
    figure.savefig(path, dpi=160)
    return path
