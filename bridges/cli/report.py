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


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="bridges report", description=__doc__)
    parser.add_argument("runs", nargs="+", help="run folders")
    parser.add_argument("--names", help="names of nodes that the page saved: kept in the run's folder from now on")
    given = parser.parse_args(arguments)
    try:
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
    except BridgesError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
