"""Grids of coloured cells: what a verdict looks like, and how a grid is drawn."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import matplotlib.colors
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

from .style import BLACK

UNKNOWN = "#FFFFFF"


@dataclass(frozen=True)
class Sign:
    """How one answer looks: its letter, the colour of its cell, and the hatching of what could not be asked."""

    letter: str
    colour: str
    hatch: str | None = None


# Darker claims more; what is undecided has a hue of its own; what was not put to a circuit is grey and hatched.
VERDICT_SIGNS = {
    "reproduced": Sign("R", "#08519C"),
    "partial": Sign("P", "#6BAED6"),
    "undecided": Sign("U", "#FDD0A2"),
    "not": Sign("N", "#EFF3FF"),
    "last token suffices": Sign("L", "#D9D9D9", "///"),
    "dense model cannot": Sign("–", "#D9D9D9", "///"),
    "not expressible": Sign("∅", "#D9D9D9", "///"),
}


@dataclass(frozen=True)
class Cell:
    """One cell of a grid: its column and row from the upper left, and what stands in it."""

    x: int
    y: int
    text: str
    colour: str
    hatch: str | None = None


def draw_grid(
    axis: Axes, cells: Iterable[Cell], columns: Sequence[str], rows: Sequence[str], size: float = 8, slant: bool = False
) -> None:
    """Draw cells under the names of their columns and beside those of their rows (none: no names, the same rows).

    Args:
        size: of the letters in the cells, in points. slant: write the names of the columns upwards.
    """
    cells = list(cells)
    axis.grid(False)
    axis.spines[:].set_visible(False)
    for cell in cells:
        place = (cell.x - 0.5, cell.y - 0.5)
        box = Rectangle(place, 1, 1, facecolor=cell.colour, edgecolor="white", linewidth=1.2, hatch=cell.hatch)
        axis.add_patch(box)
        text = axis.text(cell.x, cell.y, cell.text, ha="center", va="center", fontsize=size, color=ink(cell.colour))
        if cell.hatch:
            text.set_bbox({"facecolor": cell.colour, "edgecolor": "none", "pad": 0.8})
    axis.set_xlim(-0.5, len(columns) - 0.5)
    axis.set_ylim(max([len(rows), *(cell.y + 1 for cell in cells)]) - 0.5, -0.5)
    axis.set_xticks(range(len(columns)), columns, fontsize=8, rotation=90 if slant else 0)
    axis.set_yticks(range(len(rows)), rows, fontsize=8)
    axis.tick_params(length=0)


def key(signs: dict[str, Sign], present: Collection[str]) -> list[Patch]:
    """Entries of a legend for those signs that are present."""
    return [
        Patch(facecolor=sign.colour, edgecolor="#999999", hatch=sign.hatch, label=f"{sign.letter}  {name}".strip())
        for name, sign in signs.items()
        if name in present
    ]


def ink(background: str) -> str:
    """Black or white, whichever stands out more (WCAG relative luminance)."""
    channels = np.array(matplotlib.colors.to_rgb(background))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ np.array([0.2126, 0.7152, 0.0722]))
    return "white" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else BLACK
