"""``bridges bench --scaling``: how a training step's time and memory grow with width, depth, vocabulary, context and
batch, one at a time from a small base, and how well the memory was foreseen.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from bridges.errors import BridgesError

BASE = {"d-sparse": 256, "d-dense": 128, "layers": 2, "vocab": 1024, "context": 128, "batch": 4}
VARIED: dict[str, tuple[int, ...]] = {
    "d-sparse": (128, 256, 512, 1024),
    "layers": (1, 2, 4, 8),
    "vocab": (512, 1024, 4096, 16384),
    "context": (64, 128, 256, 512),
    "batch": (2, 4, 8, 16),
}


def measured(shape: Mapping[str, int], arguments: Sequence[str]) -> dict[str, dict[str, float]]:
    """The rows of one `bridges bench` of this shape, in a process of its own: what one has held it does not give back.

    Raises:
        BridgesError: it failed, with its last line.
    """
    sizes = [text for name, value in shape.items() for text in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "bridges", "bench", "--skip-plain", *sizes, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise BridgesError(f"`bridges bench {' '.join(sizes)}` failed: {last}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def scaling_table(arguments: Sequence[str], varied: Mapping[str, Sequence[int]] = VARIED) -> pd.DataFrame:
    """One row for each size that is tried.

    Args:
        arguments: further ones of `bridges bench`, such as ``--precision fp32``.
        varied: the values of each size; the others stay as in ``BASE``.
    """
    rows = []
    for name, values in varied.items():
        for value in values:
            found = measured(BASE | {name: value}, arguments)
            every, one = found["bridges, all sites"], found["bridges, 1 sampled site"]
            rows.append(
                {
                    "varied": name,
                    "value": value,
                    "seconds": every["s/step"],
                    "seconds_one_site": one["s/step"],
                    "tokens_per_second": every["tokens/s"],
                    "gib": every["GiB of the step"],
                    "gib_estimated": every["GiB estimated"],
                }
            )
    return pd.DataFrame(rows)


def exponents(table: pd.DataFrame) -> pd.Series:
    """By what power of each size a step's seconds grow, between its two largest values."""
    found = {}
    for name, rows in table.groupby("varied", sort=False):
        last = rows.sort_values("value").tail(2)
        found[str(name)] = float(np.diff(np.log(last["seconds"]))[0] / np.diff(np.log(last["value"]))[0])
    return pd.Series(found, name="exponent")


def report(table: pd.DataFrame) -> str:
    """The table as text, with the exponents below it."""
    shown = table.to_string(index=False, float_format=lambda v: f"{v:,.3g}" if abs(v) < 1000 else f"{v:,.0f}")
    base = ", ".join(f"{name} {value}" for name, value in BASE.items())
    powers = ", ".join(f"{name} {power:.2f}" for name, power in exponents(table).items())
    growth = f"Seconds grow, between the two largest values, with the power: {powers}."
    return f"{shown}\n\nThe others stay at: {base}.\n{growth}"
