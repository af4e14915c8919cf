"""Behaviour by sparsity: ``python -m analysis.heatmap runs/ [--measure edges]`` shows where behaviours are lost."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bridges.errors import BridgesError, nearest

from .cells import UNKNOWN, VERDICT_SIGNS, Cell, Sign, draw_grid, key
from .circuits import geometric_mean, selected_circuits
from .command import Result, run_command, unfinished_text
from .load import Runs
from .settings import arranged, finished_rows
from .style import new_figure
from .verdicts import claim_rank, modal_verdict, robust, verdict_counts

# Letter of a cell whose every `reproduced` is robust too.
ROBUST = "R+"


@dataclass(frozen=True)
class Measure:
    """What a cell shows.

    Attributes:
        table: where it stands. column: its column there.
        label: in words, with the unit.
        best: ``high``, ``low``, or ``one`` where 1 is best. form: of the number in the cell.
    """

    table: str
    column: str
    label: str
    best: Literal["high", "low", "one"] = "high"
    form: str = ".2f"


MEASURES = {
    "verdict": Measure("verdicts", "verdict", "verdict"),
    "sparse_accuracy": Measure("behaviours", "accuracy", "held-out accuracy of the sparse model"),
    "circuit_accuracy": Measure("circuits", "heldout_accuracy", "held-out accuracy of the sparse circuit alone"),
    "fvu": Measure(
        "circuits", "heldout_fvu", "variance of the sparse model's logit difference that its circuit misses", "low"
    ),
    "faithfulness": Measure(
        "verdicts", "faithfulness", "mean logit difference of the circuit over the sparse model's", "one"
    ),
    "accuracy_without": Measure(
        "verdicts", "accuracy_without", "accuracy of the sparse model without the circuit", "low"
    ),
    "share_moved": Measure("verdicts", "share_moved", "share of the dense logit difference moved by the circuit"),
    "ceiling": Measure("verdicts", "ceiling", "share of it moved by the dense model's own exchange"),
    "share_back": Measure("verdicts", "share_back", "share of the circuit's logit difference moved by the dense model"),
    "reach_fvu": Measure("verdicts", "reach_fvu", "unexplained variance on frames that no search has seen", "low"),
    "edges": Measure("circuits", "edges", "edges of the sparse circuit that reached the target", "low", ".0f"),
}
COLUMNS = [
    "model",
    "settings",
    "sparsity",
    "width",
    "behaviour",
    "measure",
    "verdict",
    "value",
    "n",
    "share",
    "verdicts",
    "robust",
]


def heatmap(runs: Runs, measure: str = "verdict") -> pd.DataFrame:
    """One row per cell: a behaviour at one sparsity and width, over the seeds there.

    Columns: model, settings (what else differs between runs), sparsity, width (d_model of the sparse model),
    behaviour, measure, verdict (the most frequent; of several the one that claims less; empty for numbers), value
    (mean over seeds, geometric for edges, of which circuits without any are left out; NaN for verdicts), n (seeds),
    share (of seeds with that verdict), verdicts (``{verdict: seeds}``; empty for numbers), robust (seeds that reproduce
    it with every robustness criterion held).

    Args:
        measure: one of `MEASURES`.

    Raises:
        BridgesError: an unknown measure, or no finished run has it.
    """
    if measure not in MEASURES:
        raise BridgesError(f"There is no measure {measure!r}. {nearest(measure, MEASURES)}")
    frame = _values(runs, MEASURES[measure])
    frame = frame.merge(arranged(runs, frame["run"].unique().tolist()), on="run")
    rows = []
    keys = ["model", "settings", "sparsity", "width", "behaviour"]
    # The same seed twice is no second opinion.
    frame = frame.sort_values("run", kind="stable").drop_duplicates([*keys, "seed"], keep="last")
    for place, part in frame.groupby(keys, dropna=False, sort=True):
        row: dict[str, object] = dict(zip(keys, place, strict=True)) | {"measure": measure, "n": len(part)}
        if measure == "verdict":
            verdict, share = modal_verdict(part["value"])
            row |= {"verdict": verdict, "value": np.nan, "share": share, "verdicts": verdict_counts(part["value"])}
            row["robust"] = int(part["robust"].sum())
        else:
            values = part["value"].astype(float)
            mean = geometric_mean(values) if measure == "edges" else float(values.mean())
            row |= {"verdict": "", "value": mean, "share": np.nan, "verdicts": {}, "robust": 0}
        rows.append(row)
    return pd.DataFrame(rows)[COLUMNS]


def _values(runs: Runs, measure: Measure) -> pd.DataFrame:
    """Run, behaviour, value and robust, one row each."""
    if measure.table == "circuits":
        frame = selected_circuits(runs)
        frame = frame[frame["model"] == "sparse"]
        if measure.column == "edges":
            # A circuit that misses the target has no size at it; one without edges has none at all.
            frame = frame[frame["reached"] & (frame["edges"] > 0)]
    else:
        frame = finished_rows(runs, measure.table)
        if measure.table == "behaviours":
            frame = frame[(frame["model"] == "sparse") & (frame["split"] == "heldout")]
    frame = frame.assign(robust=robust(frame) if measure.column == "verdict" else False)
    frame = frame[["run", "behaviour", measure.column, "robust"]].rename(columns={measure.column: "value"})
    frame = frame.dropna(subset="value").drop_duplicates(["run", "behaviour"])
    if frame.empty:
        raise BridgesError(f"No finished run has measured this: {measure.label}.")
    return frame


def heatmap_table(frame: pd.DataFrame) -> pd.DataFrame:
    """`heatmap` as it is drawn: behaviours down, model, settings, width and sparsity across, cells as text."""
    texts = frame.assign(cell=[_cell(row, words=True) for row in frame.to_dict("records")])
    keys = [name for name in ("model", "settings", "width") if frame[name].nunique(dropna=False) > 1]
    # As text: a missing width would drop its column from the pivot.
    texts = texts.astype(dict.fromkeys(keys, str))
    table = texts.pivot(index="behaviour", columns=[*keys, "sparsity"], values="cell").fillna("")
    return table.reindex(_order(frame))


def _order(frame: pd.DataFrame) -> list[str]:
    """Behaviours from the one that holds best: by mean claim of its verdicts, or by mean value."""
    measure = str(frame["measure"].iloc[0])
    rank = frame["verdict"].map(claim_rank) if measure == "verdict" else _distance(frame["value"], MEASURES[measure])
    mean = rank.groupby(frame["behaviour"]).mean()
    return [str(name) for name in mean.sort_index().sort_values(kind="stable").index]


def _distance(values: pd.Series, measure: Measure) -> pd.Series:
    """The larger, the further from what is best."""
    if measure.best == "one":
        return (values - 1).abs()
    return values if measure.best == "low" else -values


def _cell(row: Mapping[Any, Any], words: bool = False) -> str:
    if row["measure"] != "verdict":
        return format(row["value"], MEASURES[row["measure"]].form)
    sign = {v: v if words else VERDICT_SIGNS[v].letter if v in VERDICT_SIGNS else "?" for v in row["verdicts"]}
    if row["robust"] and row["robust"] == row["verdicts"].get("reproduced"):
        sign["reproduced"] = "reproduced, robust" if words else ROBUST
    if len(sign) == 1:
        return next(iter(sign.values()))
    return (", " if words else "  ").join(f"{sign[verdict]} {seeds}" for verdict, seeds in row["verdicts"].items())


def heatmap_figure(frame: pd.DataFrame) -> Figure:
    """Draw `heatmap`: one panel per model and settings, its columns by sparsity and, where it varies, width.

    A verdict is a letter on a colour; ``R 2  N 1`` says that two seeds came to one and one to another, on the colour of
    the most frequent (of equally frequent ones of that which claims less). Of numbers the darker is the better one.
    """
    measure = str(frame["measure"].iloc[0])
    order = _order(frame)
    groups = list(frame.groupby(["model", "settings"], sort=True, dropna=False))
    wide = frame["width"].nunique(dropna=False) > 1
    most = max(len(part[["sparsity", "width"]].drop_duplicates()) for _, part in groups)
    letters = 0.075 * max(len(name) for name in order)
    size = (max(2.6, letters + 0.62 * most + 0.4), 1.5 + 0.27 * len(order))
    figure, axes = new_figure(*size, 1, len(groups), right=1.8)
    shades = None if measure == "verdict" else _shades(frame)
    for i, (axis, ((model, settings), part)) in enumerate(zip(axes, groups, strict=True)):
        _panel(axis, part, order, shades, wide, named=i == 0)
        axis.set_title("\n".join(filter(None, [str(model), str(settings)])), loc="left", fontsize=10)
    if shades is None:
        handles = key(VERDICT_SIGNS, set().union(*frame["verdicts"]))
        if frame["robust"].any():
            look = VERDICT_SIGNS["reproduced"].colour
            handles.insert(0, Patch(facecolor=look, edgecolor="#999999", label=f"{ROBUST}  reproduced, robust"))
        figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=8)
    else:
        figure.suptitle(f"{MEASURES[measure].label} (darker: better)", fontsize=9, x=0.02, ha="left")
    return figure


def _shades(frame: pd.DataFrame) -> Callable[[float], str]:
    """Value to colour, the darker the better."""
    measure = MEASURES[str(frame["measure"].iloc[0])]
    values = frame["value"].astype(float)
    if measure.column == "edges":
        scale: Normalize = LogNorm(values.min(), max(10.0, values.max()))
    elif measure.best == "one":
        scale = Normalize(0.0, 1.0, clip=True)
    else:
        scale = Normalize(min(0.0, values.min()), max(1.0, values.max()))

    def shade(value: float) -> str:
        best = float(scale(value)) if measure.best == "high" else 1 - float(scale(value))
        if measure.best == "one":
            best = 1 - float(scale(abs(value - 1)))
        # The palest end is left out, so that a cell stands out from the paper.
        return matplotlib.colors.to_hex(matplotlib.colormaps["Blues"](0.08 + 0.87 * best))

    return shade


def _panel(
    axis: Axes, part: pd.DataFrame, order: list[str], shades: Callable[[float], str] | None, wide: bool, named: bool
) -> None:
    places = part[["sparsity", "width"]].drop_duplicates().sort_values(["width", "sparsity"], ascending=[True, False])
    keys = [(float(s), float(w)) for s, w in places.itertuples(index=False)]
    columns = {str(place): x for x, place in enumerate(keys)}  # as text, so that a missing width equals itself
    cells = []
    for row in part.to_dict("records"):
        x = columns[str((float(row["sparsity"]), float(row["width"])))]
        sign = VERDICT_SIGNS.get(row["verdict"], Sign("?", UNKNOWN))
        colour, hatch = (sign.colour, sign.hatch) if shades is None else (shades(row["value"]), None)
        cells.append(Cell(x, order.index(row["behaviour"]), _cell(row), colour, hatch))
    labels = [f"{100 * s:g} %" + (f"\n{w:g} wide" if wide else "") for s, w in keys]
    draw_grid(axis, cells, labels, order if named else [])
    axis.set_ylim(len(order) - 0.5, -0.5)
    axis.set_xlabel("nonzero weights")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""

    def measures(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--measure", default="verdict", help=f"what a cell shows: {', '.join(MEASURES)}")

    def make(runs: Runs, given: argparse.Namespace) -> Result:
        frame = heatmap(runs, given.measure)
        what = f"{MEASURES[given.measure].label}; columns are fractions of nonzero weights"
        text = "\n\n".join(filter(None, [what, heatmap_table(frame).to_string(), unfinished_text(runs)]))
        return Result(text, frame, heatmap_figure(frame), f"heatmap-{given.measure}")

    return run_command("heatmap", __doc__, make, arguments, measures)


if __name__ == "__main__":
    sys.exit(main())
