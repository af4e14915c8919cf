"""The default text is the same wherever the minor version of Python is, and blocks tell how much text they hold."""

from __future__ import annotations

import itertools
import sysconfig

import pytest

from bridges.config import DataConfig
from bridges.data import corpus
from bridges.data.blocks import token_blocks
from bridges.data.corpus import standard_library
from bridges.data.reading import read_documents
from bridges.data.tokenizer import train_tokenizer


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


def test_blocks_count_their_documents_and_hash_their_tokens(tmp_path):
    for i in range(200):
        (tmp_path / f"doc-{i}").write_text(f"def f{i}(x):\n    return x + {i}\n")
    tokenizer = train_tokenizer(["def f(x):\n    return x\n"] * 3, vocab_size=280, context=8)

    def blocks_of(**more):
        return token_blocks(DataConfig(source="files", path=str(tmp_path), pattern="**/*", **more), tokenizer, 8)

    data = blocks_of()
    assert sum(data.documents.values()) == 200
    part = blocks_of(max_chars=5000)
    assert 0 < sum(part.documents.values()) < 200 and part.fingerprint != data.fingerprint
    (tmp_path / "doc-7").write_text("def f7(x):\n    return x + 8\n")
    assert blocks_of().fingerprint != data.fingerprint
