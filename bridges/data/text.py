"""Text files as people write them."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from bridges.errors import DataError

# UTF-32 is looked for first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: Path) -> str:
    r"""Read a text file: UTF-8, or whatever its byte-order mark says, which is no part of the text.

    Line ends become ``\n``. Other separators, such as U+2028, U+2029 and U+0085, are characters like any other.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is no text in that encoding.
    """
    raw = path.read_bytes()
    encoding = next((name for mark, name in _MARKS if raw.startswith(mark)), "utf-8")
    return raw.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    r"""The lines of a text file that are not blank, with their numbers from 1; a line ends at ``\n`` alone.

    ``str.splitlines`` would also end one at the separators that a JSON text may hold as they are.

    Raises:
        DataError: the file cannot be read, or a line is no UTF-8; the message names the line.
    """
    try:
        text = read_text(path)
    except UnicodeDecodeError as error:
        at = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {at}: this is no {error.encoding.upper()} text ({error.reason}).") from None
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror or error}.") from None
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line


def lone_surrogate(text: str) -> str | None:
    r"""The first half of a surrogate pair that stands alone, as it is written in JSON (``\ud800``); None if none does.

    Such a text is no Unicode: tokenizers refuse it and it cannot be written to a file.
    """
    return next((f"\\u{ord(c):04x}" for c in text if "\ud800" <= c <= "\udfff"), None)
