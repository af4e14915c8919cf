"""Documents: where text comes from, and which split each document belongs to.

A split is decided per *document* and by its name alone, so that the same file is held out in every run, on every
machine and in the pretraining of the bundled dense model.
"""

from __future__ import annotations

import hashlib
import re
import sys
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from email.message import Message
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar, cast

from bridges.data.text import read_text
from bridges.errors import DataError

SPLITS = ("train", "validation", "test")
# What the names of the standard library's documents begin with.
STANDARD_LIBRARY = "stdlib/"
# Modules of it that some systems leave out, keep in packages of their own or patch: not every machine has the same.
_NOT_EVERYWHERE = frozenset(
    ["distutils", "ensurepip", "idlelib", "lib2to3", "site", "sysconfig", "tkinter", "turtle", "turtledemo", "venv"]
)
_PERMISSIVE = re.compile(r"\b(mit|bsd|apache|psf|python software foundation|isc|zlib|0bsd|hpnd)\b", re.IGNORECASE)
_COPYLEFT = re.compile(r"\b(a?gpl|lgpl|mpl|copyleft)", re.IGNORECASE)


@dataclass(frozen=True)
class Document:
    """One text. ``name`` is stable over machines (a path relative to its corpus) and decides the split."""

    name: str
    text: str

    @property
    def split(self) -> str:
        """``train`` (92 %), ``validation`` or ``test`` (4 % each), by a hash of the name."""
        # A file's name may hold bytes that are no UTF-8.
        name = self.name.encode("utf-8", "surrogateescape")
        bucket = int.from_bytes(hashlib.blake2b(name, digest_size=4).digest(), "big") % 100
        return "test" if bucket >= 96 else "validation" if bucket >= 92 else "train"


Source = TypeVar("Source", bound="Callable[[Any], Iterator[Document]]")
# Where the text of a value of `data.source` comes from that is none of those below.
SOURCES: dict[str, Callable[[Any], Iterator[Document]]] = {}


def register_source(name: str) -> Callable[[Source], Source]:
    """Decorator: ``data.source=<name>`` reads the documents that this function of a `DataConfig` gives."""

    def add(source: Source) -> Source:
        SOURCES[name] = source
        return source

    return add


def read_files(
    root: Path,
    pattern: str = "**/*.py",
    exclude: Iterable[str] = (),
    prefix: str = "",
    skipped: Counter[str] | None = None,
) -> Iterator[Document]:
    """Every non-empty text file below ``root`` that matches ``pattern``, in sorted order.

    Args:
        root: the folder.
        pattern: a glob, ``**`` for any depth.
        exclude: names of folders that are passed over wherever they stand.
        prefix: put before each document's name.
        skipped: counts the files that are left out, by reason.
    """
    passed_over, skipped = set(exclude), Counter() if skipped is None else skipped
    try:
        found = sorted(root.glob(pattern))
    except (ValueError, NotImplementedError) as error:
        raise DataError(f"data.pattern={pattern!r} is no pattern of files: {error}. Try '**/*.txt'.") from error
    for path in found:
        relative = path.relative_to(root)
        if not path.is_file() or passed_over.intersection(relative.parts[:-1]):
            continue
        try:
            text = read_text(path)
        except (UnicodeDecodeError, OSError) as error:
            skipped["no UTF-8 text" if isinstance(error, UnicodeDecodeError) else "unreadable"] += 1
            continue
        if text.strip():
            yield Document(prefix + relative.as_posix(), text)


def standard_library() -> Iterator[Document]:
    """The sources of the running Python's standard library, without tests, generated files and optional parts (8 MB).

    They are the same on every machine with the same minor version of Python, but for what a patch release mends, and
    differ between minor versions; `bridges.data.fingerprint` names the version.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    skip = ("site-packages", "dist-packages", "test", "tests", "encodings", "pydoc_data", "__pycache__")
    modules = sys.stdlib_module_names - _NOT_EVERYWHERE
    found = False
    for document in read_files(root, exclude=skip, prefix=STANDARD_LIBRARY):
        # Beside it lie files that the build or the system's packagers have made.
        if document.name.removeprefix(STANDARD_LIBRARY).split("/")[0].removesuffix(".py") in modules:
            found = True
            yield document
    if not found:
        raise DataError(f"No Python sources below {root}. Use data=files data.path=<folder> with text of your own.")


def python_manual() -> Iterator[Document]:
    """The language reference that comes with the running Python: English prose, a document to a topic (0.7 MB).

    Raises:
        DataError: this Python came without it.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise DataError(
            "data.source=english reads the language reference in Python's package pydoc_data, which this Python came "
            "without. Use data=files data.path=<folder> with English text of your own."
        ) from error
    for name, text in sorted(topics.items()):
        yield Document(f"manual/{name}", text)


def permissive_packages(max_chars: int = 4_000_000) -> Iterator[Document]:
    """Python sources of the installed packages whose metadata names a permissive licence and no copyleft one.

    What they are differs from machine to machine: the bundled dense model was pretrained on those of one, and no run
    reads them.

    Args:
        max_chars: taken from one package at most, so that a large one does not fill the corpus.
    """
    for distribution in sorted(metadata.distributions(), key=lambda d: d.metadata["Name"] or ""):
        meta = cast(Message, distribution.metadata)
        licence = " ".join(
            [meta.get("License-Expression") or "", (meta.get("License") or "")[:200]]
            + [c for c in meta.get_all("Classifier") or [] if c.startswith("License")]
        )
        if not _PERMISSIVE.search(licence) or _COPYLEFT.search(licence):
            continue
        taken = 0
        for file in sorted(distribution.files or [], key=str):
            parts = file.parts
            if file.suffix != ".py" or {"tests", "test", "testing", "_vendor"}.intersection(parts) or ".." in parts:
                continue
            try:
                text = read_text(Path(str(file.locate())))
            except (UnicodeDecodeError, OSError):
                continue
            if not text.strip():
                continue
            if taken + len(text) > max_chars:
                break
            taken += len(text)
            yield Document(f"packages/{file.as_posix()}", text)


def mixed(sources: Sequence[tuple[float, Iterable[Document]]]) -> Iterator[Document]:
    """Documents of several sources, so that at any point their characters stand in the given shares.

    A source that runs dry gives its share to the others.

    Args:
        sources: share and documents of each.
    """
    left: list[list[Any]] = [[share, iter(documents), 0] for share, documents in sources]
    while left:
        turn = min(left, key=lambda source: source[2] / source[0])
        try:
            document = next(turn[1])
        except StopIteration:
            left.remove(turn)
            continue
        turn[2] += len(document.text)
        yield document
