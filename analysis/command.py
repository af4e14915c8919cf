"""The command line that the analyses share: load, print a table, write a figure and its rows beside the runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from bridges.errors import BridgesError

from .advice import program
from .load import Runs, load
from .style import save


@dataclass(frozen=True)
class Result:
    """What one analysis shows.

    Attributes:
        text: for the terminal.
        frame: the rows behind the figure, written as CSV.
        figure: written as PNG.
        file: name of both without its ending (None: the analysis's own).
        further: results that are written beside it; their texts are printed after its own.
    """

    text: str
    frame: pd.DataFrame
    figure: Figure
    file: str | None = None
    further: tuple[Result, ...] = ()


def run_command(
    name: str,
    about: str | None,
    make: Callable[[Runs, argparse.Namespace], Result],
    arguments: Sequence[str] | None = None,
    extend: Callable[[argparse.ArgumentParser], object] | None = None,
) -> int:
    """Read the arguments, make the result, print and write it.

    Args:
        name: of the module in ``analysis``, and of the files written unless the result says otherwise.
        about: its docstring, shown by ``--help``.
        make: the analysis.
        arguments: as on the command line (default: those of the process).
        extend: adds the analysis's own arguments.

    Returns:
        the exit status: 1 where there is nothing to show, after one sentence that says why.
    """
    parser = argparse.ArgumentParser(prog=program(name), description=about)
    parser.add_argument("runs", nargs="*", default=["runs"], help="folders that hold runs (default: runs)")
    parser.add_argument("--out", type=Path, help="where the PNG and the CSV go (default: the first folder)")
    if extend is not None:
        extend(parser)
    given = parser.parse_args(arguments)
    return show(name, lambda: make(load(*given.runs), given), given.out or Path(given.runs[0]))


def show(name: str, make: Callable[[], Result], out: Path) -> int:
    """Print the result and write ``out/<name>.png`` and ``.csv``; returns the exit status."""
    try:
        result = make()
    except BridgesError as error:
        print(error, file=sys.stderr)
        return 1
    results = (result, *result.further)
    print("\n\n".join(each.text for each in results))
    print()
    for each in results:
        png = save(each.figure, out / f"{each.file or name}.png")
        each.frame.to_csv(png.with_suffix(".csv"), index=False)
        print(f"{png} and {png.with_suffix('.csv')}")
    return 0


@contextmanager
def plainly() -> Iterator[None]:
    """In a notebook: where an analysis has nothing to show, print its sentence instead of a traceback."""
    try:
        yield
    except BridgesError as error:
        print(error)


def table_text(frame: pd.DataFrame, formats: Mapping[str, str] | None = None) -> str:
    """The frame for the terminal: numbers as in ``formats`` (default ``.3f``), a dash where there is none."""
    shown = frame.astype(object).copy()
    for column in frame.columns:
        numeric = pd.api.types.is_float_dtype(frame[column])
        form = (formats or {}).get(column, ".3f" if numeric else "")
        shown[column] = ["-" if pd.isna(value) else format(value, form) for value in frame[column]]
    return shown.to_string(index=False)


def unfinished_text(runs: Runs) -> str:
    """The runs that an analysis left out or read in part, empty where there are none."""
    if not len(runs.problems):
        return ""
    lines = [f"  {run}: {reason}" for run, reason in runs.problems.itertuples(index=False)]
    return "\n".join(["Unfinished or unreadable:", *lines])
