"""Text files as people write them: marks, separators, halves of characters, and lines that no parser likes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bridges.behaviours import BehaviourError, load
from bridges.config import DataConfig
from bridges.data.blocks import token_blocks
from bridges.data.corpus import Document, read_files
from bridges.data.reading import read_documents
from bridges.data.text import lone_surrogate, read_text, text_lines
from bridges.data.tokenizer import train_tokenizer
from bridges.errors import DataError

PAIR = {"clean": "if x", "counterfactual": "y = x", "clean_token": ":", "counterfactual_token": ";"}


def _drafts(path: Path) -> list[tuple[str, str]]:
    behaviour = load(path)[path.stem]
    return sorted((d.clean, d.counterfactual) for split in ("train", "heldout") for d in behaviour._drafts[split])


@pytest.mark.parametrize(
    ("encoding", "mark"), [("utf-8", b""), ("utf-8-sig", b""), ("utf-16", b""), ("utf-8", b"\xef\xbb\xbf")]
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_pairs_are_the_same_whatever_the_mark_and_the_line_ends(tmp_path, encoding, mark, end):
    rows = [PAIR, PAIR | {"clean": "if é"}, PAIR | {"clean": "if z"}]
    text = end.join(json.dumps(row, ensure_ascii=False) for row in rows) + end
    file = tmp_path / "pairs.jsonl"
    file.write_bytes(mark + text.encode(encoding))
    assert _drafts(file) == sorted((row["clean"], row["counterfactual"]) for row in rows)


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085"])
def test_a_separator_inside_a_string_ends_no_line(tmp_path, separator):
    rows = [PAIR | {"clean": f"if{separator}x"}, PAIR | {"clean": "if z", "counterfactual": f"{separator}z"}]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    assert _drafts(file) == sorted((row["clean"], row["counterfactual"]) for row in rows)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"clean": "a\\ud800", "counterfactual": "b", "clean_token": "c", "counterfactual_token": "d"}', "\\ud800"),
        ('{"clean": "a", "counterfactual": "b", "clean_token": "\\udfff", "counterfactual_token": "d"}', "\\udfff"),
        ("[" * 100_000, "nested too deeply"),
        ('{"clean": ' * 50_000, "nested too deeply"),
        ("9" * 5000, "a number of too many digits"),
        ('{"clean": ' + "9" * 5000 + "}", "a number of too many digits"),
    ],
    ids=["half-a-character", "half-an-answer", "brackets", "braces", "digits", "digits-in-a-row"],
)
def test_what_is_no_pair_is_an_error_with_its_line(tmp_path, line, message):
    file = tmp_path / "pairs.jsonl"
    file.write_text(f"{json.dumps(PAIR)}\n\n{line}\n", encoding="utf-8")
    with pytest.raises(BehaviourError) as caught:
        load(file)
    assert f"{file}, line 3: " in str(caught.value) and message in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_bytes_that_are_no_text_are_an_error_with_their_line(tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_bytes(json.dumps(PAIR).encode() + b"\n\n" + b'{"clean": "caf\xe9"}\n')
    with pytest.raises(BehaviourError, match=r"pairs\.jsonl, line 3: this is no UTF-8 text"):
        load(file)


def test_a_name_that_no_file_can_have_is_an_error_with_the_limit(tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps(PAIR | {"behaviour": "ü" * 150}))
    with pytest.raises(BehaviourError, match=r"line 1: .* has 300 bytes.* 200 at most"):
        load(file)


def test_lines_and_their_numbers(tmp_path):
    file = tmp_path / "lines"
    file.write_text("\ufeffa\u2028b\n\n  \nc\u0085", encoding="utf-8")
    assert list(text_lines(file)) == [(1, "a\u2028b"), (4, "c\u0085")]
    with pytest.raises(DataError, match="Cannot read"):
        list(text_lines(tmp_path / "nowhere"))
    assert lone_surrogate("whole \U0001f600") is None and lone_surrogate("a\udc00") == "\\udc00"


def test_documents_are_the_same_with_a_mark(tmp_path):
    for name, raw in {
        "plain": "é\nx\n".encode(),
        "marked": "é\nx\n".encode("utf-8-sig"),
        "windows": "é\r\nx\r\n".encode("utf-16"),
        "little": b"\xff\xfe" + "é\nx\n".encode("utf-16-le"),
        "wide": "é\nx\n".encode("utf-32"),
    }.items():
        (tmp_path / name).write_bytes(raw)
        assert read_text(tmp_path / name) == "é\nx\n", name
    assert {d.text for d in read_files(tmp_path, "*")} == {"é\nx\n"}


def test_a_file_name_that_is_no_text_has_a_split(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("text")
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    [document] = read_files(tmp_path, "*")
    assert document.split in ("train", "validation", "test")
    assert Document("notes/ünï.txt", "").split == "train"


def test_files_that_are_no_text_are_counted_and_told(tmp_path, caplog):
    for i in range(200):
        (tmp_path / f"doc-{i}").write_text(f"def f{i}(x):\n    return x + {i}\n")
    for i in range(3):
        (tmp_path / f"latin-{i}").write_bytes(b"caf\xe9")
    tokenizer = train_tokenizer(["def f(x):\n    return x\n"] * 3, vocab_size=280, context=8)
    data = token_blocks(DataConfig(source="files", path=str(tmp_path), pattern="*"), tokenizer, 8)
    assert data.skipped == {"no UTF-8 text": 3} and sum(data.documents.values()) == 200
    assert "3 × no UTF-8 text" in caplog.text


def test_a_folder_without_text_says_what_was_left_out(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    config = DataConfig(source="files", path=str(tmp_path), pattern="*.txt")
    with pytest.raises(DataError, match=r"holds no text .*'\*\.txt'.* 1 files that match are no UTF-8 text"):
        list(read_documents(config))
