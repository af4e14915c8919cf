"""Write the report of runs, finished or not: ``python -m bridges report runs/<folder> [runs/<other> …]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from bridges.errors import BridgesError
from bridges.report.page import write_report


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bridges report", description=__doc__)
    parser.add_argument("runs", nargs="+", help="run folders")
    given = parser.parse_args(arguments)
    for folder in given.runs:
        try:
            print(write_report(folder))
        except BridgesError as error:
            print(error, file=sys.stderr)
            return 1
    return 0
