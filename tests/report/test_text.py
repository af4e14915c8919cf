"""How figures and text of a run are written on its page."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bridges.report.text import count, escape, interval, number, percent, visible


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.12345, "0.123"),
        (-2.5, "−2.500"),
        (0, "0.000"),
        (12345.6, "12\u202f346"),
        (4e-4, "4.00·10⁻⁴"),
        (-1.5e7, "−1.50·10⁷"),
        (float("nan"), "–"),
        (None, "–"),
        (float("inf"), "∞"),
        (pd.NA, "–"),
    ],
)
def test_numbers(value, text):
    assert number(value) == text


def test_other_text():
    assert (percent(0.1234), percent(-0.02), percent(None)) == ("12.3\u00a0%", "−2.0\u00a0%", "–")
    assert (count(1234567), count(np.nan)) == ("1\u202f234\u202f567", "–")
    assert interval(0.1, 0.2, share=True) == "[10.0,\u00a020.0\u00a0%]" and interval(None, 1.0) == ""
    assert visible("a\tb\nc\r\x00\x7f\u202e\ufeff\ud800") == "a⇥b⏎c␍⟨U+0000⟩⟨U+007F⟩⟨U+202E⟩⟨U+FEFF⟩⟨U+D800⟩"
    assert escape("<a href=\"x\" b='y'>&") == "&lt;a href=&quot;x&quot; b=&#x27;y&#x27;&gt;&amp;"
