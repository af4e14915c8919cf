"""The documents that a data config names, from packages, folders or the Hub."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bridges.config import DataConfig
from bridges.data.corpus import SOURCES, Document, mixed, python_manual, read_files, standard_library
from bridges.data.idioms import documents as idiom_documents
from bridges.data.text import lone_surrogate
from bridges.errors import DataError, in_brief


def read_documents(config: DataConfig, skipped: Counter[str] | None = None) -> Iterator[Document]:
    """The documents a data config names.

    Args:
        skipped: counts what is left out, by reason.

    Raises:
        DataError: there are none, or they cannot be read.
    """
    skipped = Counter() if skipped is None else skipped
    if config.source == "python":
        yield from standard_library()
    elif config.source == "english":
        yield from python_manual()
    elif config.source == "tinypython":
        yield from mixed(
            [
                (0.5, standard_library()),
                (0.5, (Document(f"idioms/0/{i}", text) for i, text in enumerate(idiom_documents(60_000_000, 0)))),
            ]
        )
    elif config.source == "files":
        yield from _file_documents(config, skipped)
    elif config.source in SOURCES:
        yield from SOURCES[config.source](config)
    else:
        yield from _hub_documents(config, skipped)


def _file_documents(config: DataConfig, skipped: Counter[str]) -> Iterator[Document]:
    path = Path(str(config.path)).expanduser()
    if not path.exists():
        raise DataError(f"data.path={config.path} does not exist.")
    if path.is_file():
        raise DataError(
            f"data.path={config.path} is a file. Text is split into training and held-out parts by document: give "
            "a folder of several files, and data.pattern='**/*.txt' for what they are called."
        )
    found = False
    for document in read_files(path, config.pattern, skipped=skipped):
        found = True
        yield document
    if not found:
        left_out = "".join(f" {count} files that match are {reason}." for reason, count in skipped.items())
        raise DataError(
            f"data.path={config.path} holds no text in files that match data.pattern={config.pattern!r}.{left_out}"
        )


def _hub_documents(config: DataConfig, skipped: Counter[str]) -> Iterator[Document]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise DataError("data.source=hub needs the extra package: pip install 'bridges-interp[hub]'.") from None
    path = str(config.path)
    local = Path(path).expanduser()
    # A document's name decides its split, which must not depend on how the way to a folder is written.
    path, prefix = (str(local), "rows") if local.exists() else (path, path)
    try:
        rows = load_dataset(path, config.subset, split="train", streaming=True)
        for i, row in enumerate(rows):
            text = _text_of(row, config)
            if text is None:
                skipped["null"] += 1
            elif lone_surrogate(text):
                skipped["no Unicode"] += 1
            else:
                yield Document(f"{prefix}/{i}", text)
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"Dataset {path!r} could not be read ({in_brief(error)}). "
            "Check its name and the network, or use data=files data.path=<folder>."
        ) from error


def _text_of(row: Mapping[str, Any], config: DataConfig) -> str | None:
    """The text of one row of a data set; None where it is null.

    Raises:
        DataError: there is no such column, or it holds something else than text.
    """
    if config.column not in row:
        raise DataError(f"data.column={config.column} is not in {config.path}. Columns: {', '.join(row)}.")
    text = row[config.column]
    if text is None or isinstance(text, str):
        return text
    texts = [name for name, value in row.items() if isinstance(value, str)]
    known = f"Columns of text: {', '.join(texts)}." if texts else "It has no column of text."
    raise DataError(
        f"data.column={config.column} of {config.path} holds values of type {type(text).__name__}, not text. {known}"
    )


def limited(documents: Iterable[Document], max_chars: int | None) -> Iterator[Document]:
    """The documents until together they have so many characters (None: all)."""
    taken = 0
    for document in documents:
        yield document
        taken += len(document.text)
        if max_chars is not None and taken >= max_chars:
            return
