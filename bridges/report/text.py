"""Text and numbers as the report prints them: the same quantity looks the same everywhere."""

from __future__ import annotations

import html
import math
import unicodedata
from typing import Any

import pandas as pd

DASH = "–"  # what is not known
SPACE = "\u00a0"  # between a number and its unit
_PICTURES = {"\n": "⏎", "\t": "⇥", "\r": "␍"}


def visible(text: str, lines: bool = False) -> str:
    """The text with every control, format and unpaired character made visible.

    Args:
        lines: a newline is shown and also breaks the line.
    """
    out = []
    for c in text:
        if c == "\n" and lines:
            out.append("⏎\n")
        elif c in _PICTURES:
            out.append(_PICTURES[c])
        elif unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
            out.append(f"⟨U+{ord(c):04X}⟩")
        else:
            out.append(c)
    return "".join(out)


def escape(text: Any) -> str:
    """Text that is safe between tags and in quoted attributes, its control characters visible."""
    shown = visible(str(text)).replace("95 %", f"95{SPACE}%")
    return html.escape(shown, quote=True)


def known(value: Any) -> bool:
    """Whether the value of a table is there: neither None nor NaN."""
    return not bool(pd.isna(value))


def number(value: Any, digits: int = 3) -> str:
    """A measured number with ``digits`` decimals; very small or very large ones with as many significant digits."""
    if not known(value):
        return DASH
    value = float(value)
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    size = abs(value)
    if size and not 10**-digits <= size < 1e5:
        mantissa, exponent = f"{value:.{max(digits - 1, 1)}e}".split("e")
        text = f"{mantissa}·10{_raised(int(exponent))}"
    elif size >= 1000:
        text = f"{value:,.0f}".replace(",", "\u202f")
    else:
        text = f"{value:.{digits}f}"
    return text.replace("-", "−")


def _raised(exponent: int) -> str:
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def brief(value: Any) -> str:
    """A measured number in as few characters as a comparison needs: two decimals, or a whole number from 10 up."""
    if not known(value) or not math.isfinite(value):
        return number(value)
    if abs(value) >= 10:
        return count(round(float(value)))
    return number(value, 2 if abs(value) >= 0.01 else 3)


def count(value: Any) -> str:
    """A whole number, thousands apart."""
    return f"{int(value):,}".replace(",", "\u202f").replace("-", "−") if known(value) else DASH


def counted(value: Any, noun: str) -> str:
    """``1 node``, ``12 nodes``."""
    return f"{count(value)}{SPACE}{noun}{'' if known(value) and int(value) == 1 else 's'}"


def percent(value: Any, decimals: int = 1) -> str:
    """A share as per cent."""
    if not known(value) or math.isinf(float(value)):
        return DASH
    return f"{100 * float(value):.{decimals}f}{SPACE}%".replace("-", "−")


def interval(low: Any, high: Any, share: bool = False, short: bool = False) -> str:
    """``[0.71, 0.84]``, or nothing where an end is not known."""
    if not known(low) or not known(high):
        return ""
    if short:
        return f"[{brief(low)},{SPACE}{brief(high)}]"
    if share:
        return f"[{percent(low).split(SPACE)[0]},{SPACE}{percent(high)}]"
    return f"[{number(low)},{SPACE}{number(high)}]"


def measured(row: dict[str, Any], name: str, share: bool = False) -> str:
    """The value ``name`` of a row with the interval beside it."""
    value = percent(row.get(name)) if share else number(row.get(name))
    ends = interval(row.get(f"{name}_low"), row.get(f"{name}_high"), share)
    return f"{value} {ends}".rstrip()


def words(name: str) -> str:
    """A name of the tables in words: ``share_moved`` becomes ``share moved``."""
    return name.replace("_", " ")
