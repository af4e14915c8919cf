"""Write the report of runs, finished or not: ``bridges report runs/<folder> [runs/<other> …]``."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
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
    parser.add_argument("--behaviour", help="whose circuit the picture shows (default: the one the report opens with)")
    given = parser.parse_args(arguments)
    try:
        if given.picture is not None and len(given.runs) != 1:
            raise BridgesError("--picture goes with one run.")
        if given.behaviour is not None and given.picture is None:
            raise BridgesError("--behaviour says whose circuit --picture draws; give --picture FILE.svg as well.")
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
    except BridgesError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
