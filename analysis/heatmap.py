"""Behaviour by sparsity: ``python -m analysis.heatmap runs/ [--measure edges]`` shows where behaviours are lost."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from bridges.errors import BridgesError, nearest
from bridges.storage.tables.verdicts import VERDICTS

from .circuits import chosen_circuits, geometric_mean
from .command import Result, run_command, unfinished_text
from .load import Runs
from .seeds import modal_verdict, verdict_counts
from .settings import arranged, finished_rows
from .style import BLACK, new_figure

# verdict -> letter, colour of the cell: darker claims more; what could not be asked is grey and hatched
SIGNS = {
    "reproduced": ("R", "#08519C"),
    "partial": ("P", "#6BAED6"),
    "not": ("N", "#EFF3FF"),
    "dense model cannot": ("–", "#D9D9D9"),
    "not expressible": ("∅", "#D9D9D9"),
}
HATCHED = ("dense model cannot", "not expressible")


@dataclass(frozen=True)
class Measure:
    """What a cell shows.

    Attributes:
        table: where it stands. column: its column there.
        label: in words, with the unit.
        form: of the number in the cell.
    """

    table: str
    column: str
    label: str
    form: str = ".2f"


MEASURES = {
    "verdict": Measure("verdicts", "verdict", "verdict"),
    "sparse_accuracy": Measure("behaviours", "accuracy", "held-out accuracy of the sparse model"),
    "share_moved": Measure("verdicts", "share_moved", "share of the dense logit difference moved by the circuit"),
    "edges": Measure("circuits", "edges", "edges of the sparse circuit that reached the target", ".0f"),
    "circuit_accuracy": Measure("circuits", "heldout_accuracy", "held-out accuracy of the sparse circuit alone"),
    "agreement": Measure("verdicts", "agreement", "share of prompts that circuit and dense model decide alike"),
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
]


def heatmap(runs: Runs, measure: str = "verdict") -> pd.DataFrame:
    """One row per cell: a behaviour at one sparsity and width, over the seeds there.

    Columns: model, settings (what else differs between runs), sparsity, width (d_model of the sparse model),
    behaviour, measure, verdict (the most frequent; of several the one that claims less; empty for numbers), value
    (mean over seeds, geometric for edges; NaN for verdicts), n (seeds), share (of seeds with that verdict), verdicts
    (``{verdict: seeds}``; empty for numbers).

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
    for key, part in frame.groupby(keys, dropna=False, sort=True):
        row: dict[str, object] = dict(zip(keys, key, strict=True)) | {"measure": measure, "n": len(part)}
        if measure == "verdict":
            verdict, share = modal_verdict(part["value"])
            row |= {"verdict": verdict, "value": np.nan, "share": share, "verdicts": verdict_counts(part["value"])}
        else:
            values = part["value"].astype(float)
            mean = geometric_mean(values) if measure == "edges" else float(values.mean())
            row |= {"verdict": "", "value": mean, "share": np.nan, "verdicts": {}}
        rows.append(row)
    return pd.DataFrame(rows)[COLUMNS]


def _values(runs: Runs, measure: Measure) -> pd.DataFrame:
    """Run, behaviour and value, one row each."""
    if measure.table == "circuits":
        frame = chosen_circuits(runs)
        # A circuit that misses the target has no size at it; its accuracy is as good as any.
        frame = frame[(frame["model"] == "sparse") & (frame["reached"] | (measure.column != "edges"))]
    else:
        frame = finished_rows(runs, measure.table)
        if measure.table == "behaviours":
            frame = frame[(frame["model"] == "sparse") & (frame["split"] == "heldout")]
    frame = frame[["run", "behaviour", measure.column]].rename(columns={measure.column: "value"})
    frame = frame.dropna(subset="value").drop_duplicates(["run", "behaviour"])
    if frame.empty:
        raise BridgesError(f"No finished run has measured this: {measure.label}.")
    return frame


def heatmap_table(frame: pd.DataFrame) -> pd.DataFrame:
    """`heatmap` as it is drawn: behaviours down, model, settings, width and sparsity across, cells as text."""
    texts = frame.assign(cell=[_cell(row, words=True) for row in frame.to_dict("records")])
    keys = [key for key in ("model", "settings", "width") if frame[key].nunique(dropna=False) > 1]
    # As text: a missing width would drop its column from the pivot.
    texts = texts.astype(dict.fromkeys(keys, str))
    table = texts.pivot(index="behaviour", columns=[*keys, "sparsity"], values="cell").fillna("")
    return table.reindex(_order(frame))


def _order(frame: pd.DataFrame) -> list[str]:
    """Behaviours from the one that holds best: by mean claim of its verdicts, or by mean value."""
    if frame["measure"].iloc[0] == "verdict":
        rank = frame["verdict"].map({verdict: float(i) for i, verdict in enumerate(VERDICTS)})
    else:
        # Few edges are good, of everything else more is.
        rank = frame["value"] if frame["measure"].iloc[0] == "edges" else -frame["value"]
    mean = rank.groupby(frame["behaviour"]).mean()
    return [str(name) for name in mean.sort_index().sort_values(kind="stable").index]


def _cell(row: Mapping[Any, Any], words: bool = False) -> str:
    if row["measure"] != "verdict":
        return format(row["value"], MEASURES[row["measure"]].form)
    sign = {verdict: verdict if words else SIGNS.get(verdict, ("?", ""))[0] for verdict in row["verdicts"]}
    if len(sign) == 1:
        return next(iter(sign.values()))
    return (", " if words else "  ").join(f"{sign[verdict]} {seeds}" for verdict, seeds in row["verdicts"].items())


def heatmap_figure(frame: pd.DataFrame) -> Figure:
    """Draw `heatmap`: one panel per model and settings, its columns by sparsity and, where it varies, width.

    A verdict is a letter on a colour; ``R 2  N 1`` says that two seeds came to one and one to another, on the colour of
    the most frequent (of equally frequent ones of that which claims less).
    """
    measure = str(frame["measure"].iloc[0])
    order = _order(frame)
    groups = list(frame.groupby(["model", "settings"], sort=True, dropna=False))
    wide = frame["width"].nunique(dropna=False) > 1
    most = max(len(part[["sparsity", "width"]].drop_duplicates()) for _, part in groups)
    letters = 0.075 * max(len(name) for name in order)
    size = (max(2.6, letters + 0.62 * most + 0.4), 1.5 + 0.27 * len(order))
    figure, axes = new_figure(*size, 1, len(groups), right=1.7)
    norm = _norm(frame) if measure != "verdict" else None
    for i, (axis, ((model, settings), part)) in enumerate(zip(axes, groups, strict=True)):
        _panel(axis, part, order, norm, wide)
        axis.set_yticks(range(len(order)), order if i == 0 else [], fontsize=8)
        axis.set_title("\n".join(filter(None, [str(model), str(settings)])), loc="left", fontsize=10)
    if norm is None:
        present = set().union(*frame["verdicts"])
        handles = [
            Patch(facecolor=colour, edgecolor="#999999", hatch="///" if v in HATCHED else None, label=f"{letter}  {v}")
            for v, (letter, colour) in SIGNS.items()
            if v in present
        ]
        figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=8)
    else:
        figure.suptitle(MEASURES[measure].label, fontsize=9, x=0.02, ha="left")
    return figure


def _norm(frame: pd.DataFrame) -> Normalize:
    values = frame["value"].astype(float)
    if frame["measure"].iloc[0] == "edges":
        return LogNorm(max(1.0, values.min()), max(10.0, values.max()))
    return Normalize(min(0.0, values.min()), max(1.0, values.max()))


def _panel(axis: Axes, part: pd.DataFrame, order: list[str], norm: Normalize | None, wide: bool) -> None:
    places = part[["sparsity", "width"]].drop_duplicates().sort_values(["width", "sparsity"], ascending=[True, False])
    keys = [(float(s), float(w)) for s, w in places.itertuples(index=False)]
    columns = {str(key): x for x, key in enumerate(keys)}  # as text, so that a missing width equals itself
    axis.grid(False)
    axis.spines[:].set_visible(False)
    for row in part.to_dict("records"):
        x = columns[str((float(row["sparsity"]), float(row["width"])))]
        y = order.index(row["behaviour"])
        hatch = None
        if norm is None:
            _, colour = SIGNS.get(row["verdict"], ("?", "#FFFFFF"))
            hatch = "///" if row["verdict"] in HATCHED else None
        else:
            # The palest end is left out, so that a cell stands out from the paper.
            colour = matplotlib.colors.to_hex(matplotlib.colormaps["Blues"](0.08 + 0.87 * float(norm(row["value"]))))
        box = Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor="white", linewidth=1.2, hatch=hatch)
        axis.add_patch(box)
        axis.text(x, y, _cell(row), ha="center", va="center", fontsize=8, color=_ink(colour))
    axis.set_xlim(-0.5, len(keys) - 0.5)
    axis.set_ylim(len(order) - 0.5, -0.5)
    labels = [f"{100 * s:g} %" + (f"\n{w:g} wide" if wide else "") for s, w in keys]
    axis.set_xticks(range(len(keys)), labels, fontsize=8)
    axis.tick_params(length=0)
    axis.set_xlabel("nonzero weights")


def _ink(background: str) -> str:
    """Black or white, whichever stands out more (WCAG relative luminance)."""
    channels = np.array(matplotlib.colors.to_rgb(background))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ np.array([0.2126, 0.7152, 0.0722]))
    return "white" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else BLACK


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
