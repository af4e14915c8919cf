"""The default text is the same wherever the minor version of Python is, and its fingerprint tells where it is not."""

from __future__ import annotations

import hashlib
import itertools
import sys
import sysconfig

import pytest

from bridges.config import DataConfig
from bridges.data import blocks, corpus
from bridges.data.blocks import read_documents, token_blocks
from bridges.data.corpus import Document, standard_library
from bridges.data.fingerprint import TextFingerprint, text_fingerprint
from bridges.data.tokenizer import train_tokenizer

DOCUMENTS = [Document("a", "one"), Document("b", "two\n"), Document("stdlib/abc.py", "ünï")]


def test_a_fingerprint_counts_and_hashes_names_and_texts_in_order():
    found = text_fingerprint(DOCUMENTS)
    assert (found.documents, found.characters) == (3, 10)
    raw = b"".join(
        len(part.encode()).to_bytes(8, "big") + part.encode() for d in DOCUMENTS for part in (d.name, d.text)
    )
    assert found.blake2b == hashlib.blake2b(raw, digest_size=16).hexdigest()
    assert found.python == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert text_fingerprint(DOCUMENTS[:2]).python is None
    assert TextFingerprint(**found.as_dict()) == found


@pytest.mark.parametrize(
    "other",
    [
        DOCUMENTS[::-1],
        DOCUMENTS[:2],
        [Document("a", "onet"), Document("b", "wo\n"), DOCUMENTS[2]],
        [Document("ao", "ne"), *DOCUMENTS[1:]],
        [Document("a", "One"), *DOCUMENTS[1:]],
    ],
)
def test_any_other_text_has_another_fingerprint(other):
    first, second = text_fingerprint(DOCUMENTS), text_fingerprint(other)
    assert first.blake2b != second.blake2b and first.difference(second)
    assert first.difference(text_fingerprint(DOCUMENTS)) == ""


def test_a_difference_is_told_by_its_cause():
    first = TextFingerprint(5, 1000, "aa", "3.11")
    assert "Python 3.11 and now with that of Python 3.13" in first.difference(TextFingerprint(6, 1200, "bb", "3.13"))
    assert "5 documents with 1,000 characters" in first.difference(TextFingerprint(6, 1200, "bb", "3.11"))
    assert "hash aa, now bb" in first.difference(TextFingerprint(5, 1000, "bb", "3.11"))


def test_the_default_text_does_not_depend_on_what_is_installed(monkeypatch):
    """Neither packages nor files that a system puts beside the standard library are read."""

    def refused(*_, **__):
        raise AssertionError("installed packages were looked at")

    monkeypatch.setattr(corpus.metadata, "distributions", refused)
    drawn = list(itertools.islice(read_documents(DataConfig(source="tinypython")), 4000))
    kinds = {d.name.split("/")[0] for d in drawn}
    assert kinds == {"stdlib", "idioms"}
    sizes = {kind: sum(len(d.text) for d in drawn if d.name.startswith(kind)) for kind in kinds}
    assert sizes["stdlib"] == pytest.approx(sizes["idioms"], rel=0.1)


def test_only_what_every_python_of_this_version_has_counts_as_standard_library(tmp_path, monkeypatch):
    for name in ("abc.py", "json/decoder.py", "json/tests/test_it.py", "_sysconfigdata__linux.py", "sitecustomize.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    for name in ("tkinter/__init__.py", "config-3.11-linux/python-config.py", "site-packages/numpy/core.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    assert [d.name for d in standard_library()] == ["stdlib/abc.py", "stdlib/json/decoder.py"]


def test_blocks_say_what_text_they_were_made_of(tmp_path):
    for i in range(200):
        (tmp_path / f"doc-{i}").write_text(f"def f{i}(x):\n    return x + {i}\n")
    tokenizer = train_tokenizer(["def f(x):\n    return x\n"] * 3, vocab_size=280, context=8)
    config = DataConfig(source="files", path=str(tmp_path), pattern="**/*")
    data = token_blocks(config, tokenizer, 8)
    assert data.text == text_fingerprint(read_documents(config)) and data.text.documents == 200
    part = token_blocks(DataConfig(source="files", path=str(tmp_path), pattern="**/*", max_chars=5000), tokenizer, 4)
    assert part.text.documents == sum(part.documents.values()) < 200
    assert blocks.TokenBlocks({}, {}, "").text is None
