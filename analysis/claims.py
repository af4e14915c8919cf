"""What decides verdicts: ``python -m analysis.claims runs/`` shows each claim's criteria, behaviour by behaviour.

A verdict claims five things: the dense model does the behaviour (*done*), the circuit alone explains the sparse model
(*sufficient*), without it the behaviour is lost (*necessary*), it has fewer edges than the dense model's (*small*), and
its computation is the dense model's, both ways across a bridge (*same computation*). Robustness stands beside them.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bridges.storage.tables.verdicts import CLAIMS, STATES

from .cells import Cell, Sign, draw_grid, key
from .command import Result, run_command, table_text, unfinished_text
from .load import Runs
from .settings import finished_rows
from .style import BLACK, new_figure
from .verdicts import claim_rank, robust

ROBUSTNESS = "robustness"
# Whole interval on the right side of the bar, on the wrong side, across it, or not measured.
STATE_SIGNS = {
    "held": Sign("", "#6BAED6"),
    "missed": Sign("", "#E6803C"),
    "open": Sign("", "#FEE6C4"),
    "not measured": Sign("", "#E6E6E6", "///"),
}
COLUMNS = [
    "run",
    "behaviour",
    "verdict",
    "claim",
    "criterion",
    "state",
    "value",
    "value_low",
    "value_high",
    "bar",
    "at_least",
    "short",
    "meaning",
]


def claims(runs: Runs) -> pd.DataFrame:
    """Every criterion of every behaviour of the finished runs, with the verdict it belongs to.

    Columns: run, behaviour, verdict, claim, criterion, state (``held``, ``missed``, ``open`` where the interval lies
    across the bar, ``not measured``), value, value_low, value_high, bar, at_least (whether the value has to reach the
    bar, else to stay at or below it), short, meaning. Behaviours come in the order of their verdicts, the one that
    claims most first, criteria in that of the claims.

    Raises:
        BridgesError: no finished run has claims.
    """
    frame = finished_rows(runs, "claims")
    verdicts = finished_rows(runs, "verdicts")[["run", "behaviour", "verdict"]]
    frame = frame.merge(verdicts, on=["run", "behaviour"])
    frame["rank"] = frame["verdict"].map(claim_rank)
    frame["place"] = frame["claim"].map(CLAIMS.index)
    frame = frame.sort_values(["run", "rank", "behaviour", "place"], kind="stable")
    return frame[COLUMNS].reset_index(drop=True)


def decisive(frame: pd.DataFrame) -> pd.DataFrame:
    """How often each criterion of `claims` held, and how often it alone stood in the way.

    Columns: claim, criterion, one for each state (behaviours, over all runs), alone (behaviours of which nothing else
    was missed; a criterion of robustness decides nothing, so it is always 0 there).
    """
    counts = frame.groupby(["claim", "criterion", "state"], sort=False).size().unstack(fill_value=0)
    counts = counts.reindex(columns=list(STATES), fill_value=0)
    missed = frame[(frame["state"] == "missed") & (frame["claim"] != ROBUSTNESS)]
    single = missed[missed.groupby(["run", "behaviour"])["criterion"].transform("size") == 1]
    alone = single.groupby(["claim", "criterion"]).size()
    counts["alone"] = alone.reindex(counts.index, fill_value=0)
    counts = counts.rename_axis(columns=None).reset_index()
    order = counts["claim"].map(CLAIMS.index).sort_values(kind="stable").index
    return counts.loc[order].reset_index(drop=True)


def claims_figure(frame: pd.DataFrame) -> Figure:
    """Draw `claims`: of one run each criterion's value by behaviour, of several how often each was held or missed."""
    criteria = decisive(frame)
    if frame["run"].nunique() == 1:
        behaviours = frame["behaviour"].drop_duplicates().tolist()
        longest = max(map(len, behaviours))
        size = (0.08 * longest + 0.52 * len(criteria) + 0.6, 2.0 + 0.27 * len(behaviours))
        figure, axes = new_figure(*size, right=1.4)
        _grid(axes[0], frame, criteria, behaviours)
    else:
        figure, axes = new_figure(6.4, 1.2 + 0.25 * len(criteria), right=1.4)
        _bars(axes[0], criteria)
    handles = key(STATE_SIGNS, set(frame["state"]))
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=8)
    return figure


def _grid(axis: Axes, frame: pd.DataFrame, criteria: pd.DataFrame, behaviours: list[str]) -> None:
    columns = list(zip(criteria["claim"], criteria["criterion"], strict=True))
    cells = []
    for row in frame.to_dict("records"):
        sign = STATE_SIGNS[row["state"]]
        place = columns.index((row["claim"], row["criterion"])), behaviours.index(row["behaviour"])
        cells.append(Cell(*place, "" if sign.hatch else _figure(row["value"]), sign.colour, sign.hatch))
    verdict = frame.drop_duplicates("behaviour").set_index("behaviour")["verdict"]
    names = [name for _, name in columns]
    draw_grid(axis, cells, names, [f"{name}: {verdict[name]}" for name in behaviours], size=7, slant=True)
    for claim, places in criteria.groupby("claim", sort=False).indices.items():
        axis.text(min(places) - 0.45, -0.6, str(claim).replace(" ", "\n"), fontsize=7.5, fontweight="bold", va="bottom")
        if min(places):
            axis.axvline(min(places) - 0.5, color=BLACK, linewidth=1)


def _bars(axis: Axes, criteria: pd.DataFrame) -> None:
    axis.grid(False)
    y = range(len(criteria))
    start = pd.Series(0, index=criteria.index)
    for state, sign in STATE_SIGNS.items():
        axis.barh(y, criteria[state], left=start, color=sign.colour, hatch=sign.hatch, edgecolor="white", height=0.8)
        start = start + criteria[state]
    axis.set_yticks(y, criteria["claim"] + ": " + criteria["criterion"], fontsize=8)
    axis.set_ylim(len(criteria) - 0.4, -0.6)
    axis.set_xlabel("behaviours, over all runs")


def _figure(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.2f}"


def claims_text(runs: Runs, frame: pd.DataFrame) -> str:
    """Verdicts with their reasons (of one run), and how often each criterion decided."""
    parts = []
    if frame["run"].nunique() == 1:
        rows = finished_rows(runs, "verdicts")
        rows = rows[rows["run"] == frame["run"].iloc[0]]
        rows = rows.assign(sure=robust(rows), rank=rows["verdict"].map(claim_rank))
        rows = rows.sort_values(["rank", "behaviour"], kind="stable")
        width = max(map(len, rows["behaviour"]))
        parts.append("\n".join(f"{row['behaviour']:<{width}}  {_said(row)}" for row in rows.to_dict("records")))
    parts += [
        "Criteria by state over all behaviours; alone: behaviours of which nothing else was missed:",
        table_text(decisive(frame)),
    ]
    return "\n\n".join(parts)


def _said(row: Mapping[Any, Any]) -> str:
    verdict = "reproduced, robust" if row["sure"] else row["verdict"]
    return f"{verdict:<20} {row['reason']}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""

    def make(runs: Runs, _: object) -> Result:
        frame = claims(runs)
        text = "\n\n".join(filter(None, [claims_text(runs, frame), unfinished_text(runs)]))
        return Result(text, frame, claims_figure(frame))

    return run_command("claims", __doc__, make, arguments)


if __name__ == "__main__":
    sys.exit(main())
