"""Whether seeds agree on verdicts: behaviours by seed, over runs that differ in the seed alone."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bridges.errors import BridgesError

from .cells import UNKNOWN, VERDICT_SIGNS, Cell, Sign, draw_grid, key
from .command import table_text
from .load import Runs
from .settings import finished_rows, seed_groups
from .style import new_figure
from .verdicts import claim_rank, modal_verdict, verdict_counts

CONTRADICTION = ("reproduced", "not")  # two verdicts that may not both be given to one behaviour


def verdict_stability(runs: Runs) -> pd.DataFrame:
    """How often the seeds of a group agree on each behaviour.

    Columns: group, behaviour, n (runs that judged it), modal (the most frequent verdict; of several the one that
    claims less), share (of runs with it), verdicts (each with its count), contradicts (whether one seed says
    `reproduced` and another `not`).

    Raises:
        BridgesError: no two finished runs differ in their seed alone, or none of them has verdicts.
    """
    rows = []
    for (group, behaviour), part in seed_verdicts(runs).groupby(["group", "behaviour"], sort=True):
        modal, share = modal_verdict(part["verdict"])
        counts = verdict_counts(part["verdict"])
        row = {"group": group, "behaviour": behaviour, "n": len(part), "modal": modal, "share": share}
        row["verdicts"] = ", ".join(f"{verdict} {count}" for verdict, count in counts.items())
        rows.append(row | {"contradicts": all(verdict in counts for verdict in CONTRADICTION)})
    return pd.DataFrame(rows)


def seed_verdicts(runs: Runs) -> pd.DataFrame:
    """Every verdict of runs that differ in the seed alone.

    Columns: group (the settings that its runs share), behaviour, seed, run, verdict.

    Raises:
        BridgesError: no two finished runs differ in their seed alone, or none of them has verdicts.
    """
    groups = seed_groups(runs)
    frame = finished_rows(runs, "verdicts")[["run", "behaviour", "verdict"]].merge(groups, on="run")
    if frame.empty:
        raise BridgesError("None of the runs that repeat each other has verdicts, so their stability is unknown.")
    columns = ["group", "behaviour", "seed", "run", "verdict"]
    return frame[columns].sort_values(["group", "behaviour", "seed"], kind="stable", ignore_index=True)


def stability_table(verdicts: pd.DataFrame) -> pd.DataFrame:
    """`seed_verdicts` with the behaviours down and the seeds across, the verdicts that claim most first."""
    table = verdicts.pivot(index=["group", "behaviour"], columns="seed", values="verdict")
    rank = verdicts["verdict"].map(claim_rank).groupby([verdicts["group"], verdicts["behaviour"]]).mean()
    order = rank.reset_index(name="rank").sort_values(["group", "rank", "behaviour"], kind="stable")
    table = table.reindex(pd.MultiIndex.from_frame(order[["group", "behaviour"]]))
    return table.rename(columns=lambda seed: f"seed {seed}").rename_axis(columns=None).reset_index()


def stability_text(runs: Runs) -> str:
    """Each behaviour's verdict by seed, how many all seeds agree on, and the contradictions."""
    verdicts, frame = seed_verdicts(runs), verdict_stability(runs)
    table = stability_table(verdicts)
    marks = frame.set_index(["group", "behaviour"])["contradicts"]
    places = zip(table["group"], table["behaviour"], strict=True)
    table[""] = ["contradiction" if marks[place] else "" for place in places]
    lines = []
    for group, part in table.groupby("group", sort=True):
        inside = frame[frame["group"] == group]
        agreed = f"all seeds agree on {(inside['share'] == 1).sum()} of {len(inside)} behaviours"
        seeds = part.drop(columns="group").dropna(axis=1, how="all")
        lines += [f"Verdicts over seeds, {group}: {agreed}", "", table_text(seeds), ""]
    wrong = frame.loc[frame["contradicts"], "behaviour"]
    if len(wrong):
        lines.append(
            f"Both `reproduced` and `not`: {', '.join(sorted(set(wrong)))}. Neither is to be believed before they are "
            "judged on more pairs (`behaviours.pairs`, `compare.pairs`)."
        )
    else:
        lines.append("No behaviour is both `reproduced` and `not`.")
    return "\n".join(lines)


def stability_figure(verdicts: pd.DataFrame) -> Figure:
    """Draw `seed_verdicts`: one panel per group, a letter and a colour for each behaviour and seed."""
    groups = list(verdicts.groupby("group", sort=True))
    tables = {group: stability_table(part) for group, part in groups}
    most = max(len(table) for table in tables.values())
    seeds = max(table.shape[1] - 2 for table in tables.values())
    longest = max(len(name) for name in verdicts["behaviour"])
    figure, axes = new_figure(max(2.6, 0.08 * longest + 0.5 * seeds + 0.6), 1.5 + 0.27 * most, 1, len(groups), 1.8)
    for axis, (group, table) in zip(axes, tables.items(), strict=True):
        _panel(axis, table)
        axis.set_title(str(group).replace(", ", "\n"), loc="left", fontsize=9)
    handles = key(VERDICT_SIGNS, set(verdicts["verdict"]))
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=8)
    return figure


def _panel(axis: Axes, table: pd.DataFrame) -> None:
    seeds = [column for column in table.columns if column not in ("group", "behaviour")]
    cells = []
    for y, row in enumerate(table.to_dict("records")):
        for x, seed in enumerate(seeds):
            if not pd.isna(row[seed]):
                sign = VERDICT_SIGNS.get(row[seed], Sign("?", UNKNOWN))
                cells.append(Cell(x, y, sign.letter, sign.colour, sign.hatch))
    draw_grid(axis, cells, [name.removeprefix("seed ") for name in seeds], table["behaviour"].tolist())
    axis.set_xlabel("seed")
