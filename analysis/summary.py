"""Compare runs: ``python -m analysis.summary runs/`` prints one row per run and draws the frontier."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from bridges.errors import BridgesError

from .advice import program
from .frontier import frontier, frontier_figure, more_text
from .load import Runs, load
from .overview import VERDICT_FIGURES, overview
from .settings import plural
from .style import save

__all__ = ["frontier", "frontier_figure", "overview", "summary_text"]

# heading in the terminal -> column of the overview, for what fits on a line
SHOWN = {
    "CE dense": "ce_dense",
    "CE sparse": "ce_sparse",
    "KL sparse": "kl_sparse",
    "KL d→s": "kl_d2s",
    "KL s→d": "kl_s2d",
    "KL bigram": "kl_bigram",
    "nonzero": "fraction",
    **{name: name for name in VERDICT_FIGURES},
    "seconds": "seconds",
}


def summary_text(runs: Runs) -> str:
    """The overview for the terminal: shared settings once, then one line per run, then what is wrong."""
    frame = overview(runs)
    units = "cross-entropy (CE) and KL to the dense model in nats per token of held-out text"
    if frame["judged"].notna().any():
        units += "; behaviours by verdict, of those that were put to a circuit (judged)"
    lines = [f"{plural(len(frame), 'run')}; {units}"]
    shared = [c for c in runs.settings.columns if c not in runs.varying and runs.settings[c].notna().any()]
    if shared and len(frame):
        lines.append("all: " + ", ".join(f"{c}={runs.settings[c].iloc[0]}" for c in shared))
    if len(frame):
        table = frame[["run", "status", *runs.varying]].copy()
        order = [c for c in ("model", "sparsity", "seed") if c in table.columns]
        for heading, column in SHOWN.items():
            if frame[column].notna().any():
                table[heading] = [_number(column, value) for value in frame[column]]
        table = table.sort_values([*order, "run"], kind="stable") if order else table
        lines += ["", table.to_string(index=False, na_rep="-")]
    if len(runs.problems):
        lines += ["", "Unfinished or unreadable:"]
        lines += [f"  {run}: {reason}" for run, reason in runs.problems.itertuples(index=False)]
    return "\n".join(lines)


def _number(column: str, value: float) -> str:
    if pd.isna(value):
        return "-"
    if column in ("seconds", *VERDICT_FIGURES):
        return f"{value:.0f}"
    return f"{value:.3%}" if column == "fraction" else f"{value:.3f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog=program("summary"), description=__doc__)
    parser.add_argument("runs", nargs="*", default=["runs"], help="folders that hold runs (default: runs)")
    parser.add_argument("--out", type=Path, help="where frontier.png and .csv go (default: the first folder)")
    given = parser.parse_args(arguments)
    try:
        runs = load(*given.runs)
        print(summary_text(runs))
        frame = frontier(runs) if len(runs.records) else None
        if frame is not None and (more := more_text(runs, frame)):
            print(f"\n{more}")
    except BridgesError as error:
        print(error, file=sys.stderr)
        return 1
    if frame is not None:
        out = given.out or Path(given.runs[0])
        png = save(frontier_figure(frame), out / "frontier.png")
        frame.to_csv(out / "frontier.csv", index=False)
        print(f"\n{png} and {png.with_suffix('.csv')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
