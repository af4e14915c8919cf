"""What text a run has read, in a form that two runs can compare."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from bridges.data.corpus import STANDARD_LIBRARY, Document


@dataclass(frozen=True)
class TextFingerprint:
    """Identity of a text.

    Attributes:
        documents: how many. characters: in all of them.
        blake2b: hash of every name and text in order.
        python: minor version, such as ``3.12``, of the Python whose standard library is among them: its sources differ
            between minor versions, and so do text and hash. None where none of it was read.
    """

    documents: int
    characters: int
    blake2b: str
    python: str | None = None

    def as_dict(self) -> dict[str, int | str | None]:
        """The four values, for a JSON file; ``TextFingerprint(**values)`` reads them back."""
        return asdict(self)

    def difference(self, other: TextFingerprint) -> str:
        """How another text differs from this one, in words; empty where it is the same."""
        if self == other:
            return ""
        if self.python != other.python and self.python and other.python:
            return (
                f"it was read with the standard library of Python {self.python} and now with that of "
                f"Python {other.python}"
            )
        if (self.documents, self.characters) != (other.documents, other.characters):
            return (
                f"it had {self.documents:,} documents with {self.characters:,} characters and now has "
                f"{other.documents:,} with {other.characters:,}"
            )
        return f"it has as many documents and characters, but other ones (hash {self.blake2b}, now {other.blake2b})"


def text_fingerprint(documents: Iterable[Document]) -> TextFingerprint:
    """Count and hash documents.

    The same documents in the same order give the same fingerprint on every machine. Text of the standard library is the
    same where the minor version of Python is the same, but for what a patch release mends; the fingerprint names that
    version, and its hash tells every difference.

    Args:
        documents: as a run reads them, all splits together.
    """
    digest = hashlib.blake2b(digest_size=16)
    count = characters = 0
    python = None
    for document in documents:
        for part in (document.name, document.text):
            # Lengths in front, so that no two lists of documents run together to the same bytes.
            raw = part.encode("utf-8", "surrogateescape")
            digest.update(len(raw).to_bytes(8, "big") + raw)
        count, characters = count + 1, characters + len(document.text)
        if document.name.startswith(STANDARD_LIBRARY):
            python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return TextFingerprint(count, characters, digest.hexdigest(), python)
