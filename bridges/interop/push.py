"""``python -m bridges.interop.push runs/<folder> user/name``: upload a run to the Hugging Face Hub."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from bridges.errors import BridgesError


def main(argv: Sequence[str] | None = None) -> int:
    """The command; arguments of the process where none are given."""
    parser = argparse.ArgumentParser(
        prog="bridges push",
        description="Upload a run to the Hugging Face Hub: models, tables, circuits, report, and a model card with its "
        "verdicts. bridges.load('user/name') gives it back.",
    )
    parser.add_argument("folder", help="the run's folder")
    parser.add_argument("repo_id", help="where it goes, user/name; made where there is none")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    given = parser.parse_args(argv)
    from bridges.interop.hub import push

    try:
        address = push(given.folder, given.repo_id, private=given.private)
    except BridgesError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{given.folder} is at {address}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
