"""Write the report of runs, finished or not: ``bridges report runs/<folder> [runs/<other> …]``."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from bridges.errors import BridgesError
from bridges.report import write_report
from bridges.report.names import FILE, read_names
from bridges.report.picture import write_picture


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="bridges report", description=__doc__)
    parser.add_argument("runs", nargs="+", help="run folders")
    parser.add_argument("--names", help="names of nodes that the page saved: kept in the run's folder from now on")
    parser.add_argument("--picture", metavar="FILE.svg", help="draw models, bridges and one circuit's core as well")
    parser.add_argument(
        "--graphs", metavar="FOLDER", help="write circuits as attribution graphs, for circuit-tracer's viewer, as well"
    )
    parser.add_argument("--behaviour", help="whose circuit (default: of the picture the report's first, of graphs all)")
    given = parser.parse_args(arguments)
    try:
        if given.picture is not None and len(given.runs) != 1:
            raise BridgesError("--picture goes with one run.")
        if given.graphs is not None and len(given.runs) != 1:
            raise BridgesError("--graphs goes with one run.")
        if given.behaviour is not None and given.picture is None and given.graphs is None:
            raise BridgesError("--behaviour says whose circuit; give --picture FILE.svg or --graphs FOLDER as well.")
        if given.names is not None:
            if len(given.runs) != 1:
                raise BridgesError("--names goes with one run: names of nodes are of one run's models.")
            read_names(given.names)
            if not (Path(given.runs[0]) / "config.yaml").is_file():
                raise BridgesError(f"{given.runs[0]} is no run folder: it has no config.yaml.")
            if Path(given.names).resolve() != (Path(given.runs[0]) / FILE).resolve():
                shutil.copyfile(given.names, Path(given.runs[0]) / FILE)
        for folder in given.runs:
            print(write_report(folder))
        if given.picture is not None:
            print(write_picture(given.runs[0], given.picture, given.behaviour))
        if given.graphs is not None:
            for path in _graphs(given.runs[0], given.graphs, given.behaviour):
                print(path)
    except BridgesError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _graphs(folder: str, target: str, behaviour: str | None) -> Iterator[Path]:
    """Write the sparse model's circuits, or that of one behaviour, as attribution graphs."""
    # Only here are models loaded.
    from bridges.runs.notebook import load

    run = load(folder)
    found = run.table("circuits")
    names = list(found[(found["model"] == "sparse") & (found["method"] == "learned") & found["reached"]]["behaviour"])
    if behaviour is None and not names:
        raise BridgesError(f"{folder} has found no circuit that could be written as a graph.")
    for name in names if behaviour is None else [behaviour]:
        yield run.circuit(name).save_graph(target)
