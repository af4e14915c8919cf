"""The page's style sheet and scripts."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest

from bridges.report.page import SCRIPTS, STYLES


def _luminance(colour: str) -> float:
    digits = colour if len(colour) == 6 else "".join(2 * c for c in colour)
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("mode", [0, 1])
def test_colours_stand_out_from_the_paper(mode):
    style = files("bridges.report").joinpath("web", "base.css").read_text(encoding="utf-8")
    colours = dict(re.findall(r"--(\w+): #([0-9a-f]{3,6})", re.findall(r":root \{(.*?)\}", style, flags=re.S)[mode]))
    for ground in ("paper", "sheet"):
        for name in (
            "ink",
            "quiet",
            "accent",
            "good",
            "bad",
            "plus",
            "minus",
            "c0",
            "c1",
            "c2",
            "c3",
            "c4",
            "c5",
            "c6",
        ):
            high, low = sorted((_luminance(colours[ground]), _luminance(colours[name])), reverse=True)
            # Text needs 4.5, what is only drawn needs 3 (WCAG 2.2, 1.4.3 and 1.4.11).
            assert (high + 0.05) / (low + 0.05) >= (3 if re.match(r"c\d", name) else 4.5), (ground, name)


def test_assets_are_part_of_the_package():
    for name in ("page.html", *STYLES, *SCRIPTS):
        assert Path(str(files("bridges.report").joinpath("web", name))).is_file()
