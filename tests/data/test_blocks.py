"""Splits by name, blocks of tokens, the batch of each step, and the bigram counts."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from bridges.config import DataConfig
from bridges.data.blocks import TokenBlocks, bigram_log_probabilities, token_blocks
from bridges.data.corpus import Document, read_files, standard_library
from bridges.data.reading import read_documents
from bridges.data.tokenizer import train_tokenizer
from bridges.errors import DataError

SPLITS = {
    "stdlib/abc.py": "train",
    "stdlib/this.py": "test",
    "stdlib/json/decoder.py": "train",
    "stdlib/typing.py": "train",
    "doc-31": "test",
    "doc-34": "test",
    "doc-68": "validation",
    "doc-93": "validation",
    "notes/ünï.txt": "train",
}


@pytest.mark.parametrize(("name", "split"), SPLITS.items())
def test_the_split_of_a_document_never_changes(name, split):
    assert Document(name, "any text").split == split == Document(name, "another").split


def test_shares_of_the_splits():
    splits = [Document(f"file-{i}.py", "").split for i in range(20_000)]
    assert splits.count("train") / 20_000 == pytest.approx(0.92, abs=0.01)
    assert splits.count("validation") / 20_000 == pytest.approx(0.04, abs=0.005)
    assert splits.count("test") / 20_000 == pytest.approx(0.04, abs=0.005)


# --- batches ----------------------------------------------------------------------------------------------------------


def _numbered(count: int) -> TokenBlocks:
    """Blocks whose first token is their number."""
    ids = np.stack([np.arange(count), np.full(count, 7), np.full(count, 9)], axis=1).astype(np.int32)
    return TokenBlocks({"train": ids, "test": ids}, {"train": count}, "x")


def test_a_batch_is_a_function_of_seed_and_step():
    used = _numbered(10)
    forward = [used.batch(step, 4, seed=1) for step in range(12)]
    for step in (7, 0, 11, 3, 3):
        assert torch.equal(_numbered(10).batch(step, 4, seed=1), forward[step])
        assert torch.equal(used.batch(step, 4, seed=1), forward[step])
        assert not torch.equal(used.batch(step, 4, seed=2), forward[step])
    assert forward[0].dtype == torch.int64 and forward[0].shape == (4, 3)
    assert forward[0][:, 1:].tolist() == [[7, 9]] * 4


@pytest.mark.parametrize("size", [1, 3, 4, 10, 25])
def test_every_epoch_visits_every_block_once(size):
    blocks = _numbered(10)
    steps = 3 * 10 * size // math.gcd(10, size) // size
    order = torch.cat([blocks.batch(step, size, seed=0)[:, 0] for step in range(steps)]).tolist()
    epochs = [order[start : start + 10] for start in range(0, len(order), 10)]
    assert len(epochs) >= 3
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


def test_a_larger_batch_is_the_next_smaller_ones_together():
    blocks = _numbered(10)
    assert torch.equal(blocks.batch(2, 6, 0), torch.cat([blocks.batch(4, 3, 0), blocks.batch(5, 3, 0)]))


@pytest.mark.parametrize(
    ("count", "taken"),
    [(1, [0]), (2, [0, 9]), (4, [0, 3, 6, 9]), (5, [0, 2, 4, 7, 9]), (10, list(range(10))), (99, list(range(10)))],
)
def test_blocks_taken_are_spread_over_the_split(count, taken):
    assert _numbered(10).take("test", count)[:, 0].tolist() == taken


# --- from text to blocks ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["def f(x):\n    return x\n"] * 3, vocab_size=280, context=8)


@pytest.fixture
def corpus(tmp_path) -> Path:
    for i in range(200):
        (tmp_path / f"doc-{i}").write_text(f"def f{i}(x):\n    return x + {i}\n")
    return tmp_path


def _config(path: Path, **options) -> DataConfig:
    return DataConfig(source="files", path=str(path), pattern="**/*", **options)


def test_blocks_are_the_documents_joined_behind_separators(corpus, tokenizer):
    data = token_blocks(_config(corpus), tokenizer, 8)
    separator = tokenizer.eos_token_id
    for split in ("train", "validation", "test"):
        stream: list[int] = []
        names = sorted(f"doc-{i}" for i in range(200))
        of_split = [name for name in names if Document(name, "").split == split]
        for name in of_split:
            stream += [separator, *tokenizer((corpus / name).read_text())["input_ids"]]
        assert data.documents[split] == len(of_split) > 0
        assert data.blocks[split].shape == (len(stream) // 8, 8) and data.blocks[split].dtype == np.int32
        assert data.blocks[split].ravel().tolist() == stream[: len(stream) // 8 * 8]
    assert data.context == 8


def test_held_out_text_is_in_no_other_split(corpus, tokenizer):
    texts = {
        split: tokenizer.decode(blocks.ravel().tolist())
        for split, blocks in token_blocks(_config(corpus), tokenizer, 8).blocks.items()
    }
    assert "f31(x)" in texts["test"] and "f31(x)" not in texts["train"] + texts["validation"]


def test_the_fingerprint_follows_the_text(corpus, tokenizer):
    first = token_blocks(_config(corpus), tokenizer, 8).fingerprint
    assert token_blocks(_config(corpus), tokenizer, 8).fingerprint == first
    (corpus / "doc-0").write_text("something else entirely\n")
    assert token_blocks(_config(corpus), tokenizer, 8).fingerprint != first


def test_max_chars_stops_the_reading(corpus, tokenizer):
    few = token_blocks(_config(corpus, max_chars=5000), tokenizer, 4)
    assert sum(few.documents.values()) < 200
    taken = sorted(corpus.iterdir())[: sum(few.documents.values())]
    sizes = [len(path.read_text()) for path in taken]
    assert sum(sizes) >= 5000 > sum(sizes[:-1])


def test_too_little_text_is_an_error_that_says_how_little(tmp_path, tokenizer):
    (tmp_path / "doc-0").write_text("x = 1\n" * 50)
    with pytest.raises(DataError, match=r"validation split has 0 documents with 0 tokens, less than one block of 8"):
        token_blocks(_config(tmp_path), tokenizer, 8)
    with pytest.raises(DataError, match=r"train split has 1 documents .* block of 5000.*data\.max_chars"):
        token_blocks(_config(tmp_path), tokenizer, 5000)


def test_a_path_that_does_not_exist(tmp_path):
    with pytest.raises(DataError, match=r"data\.path=.*nowhere does not exist"):
        list(read_documents(_config(tmp_path / "nowhere")))


def test_reading_files(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "skip").mkdir()
    (tmp_path / "b" / "two.py").write_bytes(b"x\r\ny\r\n")
    (tmp_path / "a.py").write_text("first")
    (tmp_path / "skip" / "no.py").write_text("passed over")
    (tmp_path / "blank.py").write_text(" \n ")
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "other.txt").write_text("text")
    found = list(read_files(tmp_path, exclude=["skip"], prefix="p/"))
    assert found == [Document("p/a.py", "first"), Document("p/b/two.py", "x\ny\n")]
    assert [d.name for d in read_files(tmp_path, "*.txt")] == ["other.txt"]
    all_text = DataConfig(source="files", path=str(tmp_path), pattern="*.txt")
    assert list(read_documents(all_text)) == [Document("other.txt", "text")]
    # One file is one document, which cannot be split into training and held-out text.
    with pytest.raises(DataError, match="folder of several files"):
        list(read_documents(DataConfig(source="files", path=str(tmp_path / "other.txt"))))
    with pytest.raises(DataError, match="is no pattern of files"):
        list(read_files(tmp_path, "/*.txt"))


def test_the_standard_library_is_read_without_its_tests():
    names = [document.name for document in itertools.takewhile(lambda d: d.name != "stdlib/ast.py", standard_library())]
    assert "stdlib/abc.py" in names and "stdlib/argparse.py" in names
    assert not any("/test/" in name or "__pycache__" in name for name in names)


# --- bigrams ----------------------------------------------------------------------------------------------------------


def test_bigram_probabilities_by_hand():
    # Pairs within blocks: 0→1, 1→1 and 0→1, 1→2; the jump from block to block is none.
    table = bigram_log_probabilities(np.array([[0, 1, 1], [0, 1, 2]], dtype=np.int32), 4, smoothing=2.0).exp()
    # Following tokens are 1, 1, 1, 2; with half a count for each of four tokens.
    unigram = np.array([0.5, 3.5, 1.5, 0.5]) / 6
    expected = np.array(
        [
            (np.array([0, 2, 0, 0]) + 2 * unigram) / 4,
            (np.array([0, 1, 1, 0]) + 2 * unigram) / 4,
            unigram,
            unigram,
        ]
    )
    np.testing.assert_allclose(table.numpy(), expected, rtol=1e-6)


def test_bigram_rows_sum_to_one_and_tend_to_the_counts(tiny_blocks):
    blocks = tiny_blocks(count=4000).blocks["train"]
    table = bigram_log_probabilities(blocks, 29)
    assert table.dtype == torch.float32 and table.shape == (29, 29)
    torch.testing.assert_close(table.exp().sum(1), torch.ones(29))
    counts = np.zeros((29, 29))
    for row in blocks:
        for a, b in itertools.pairwise(row):
            counts[a, b] += 1
    np.testing.assert_allclose(table.exp().numpy(), counts / counts.sum(1, keepdims=True), atol=0.01)


def test_a_mixture_keeps_its_shares_until_a_source_runs_dry():
    from bridges.data.corpus import Document, mixed

    def source(name: str, count: int, size: int):
        return (Document(f"{name}/{i}", name * size) for i in range(count))

    drawn = list(mixed([(0.75, source("a", 60, 10)), (0.25, source("b", 30, 30))]))
    assert len(drawn) == 90 and len({d.name for d in drawn}) == 90
    early = [d.text for d in drawn[:40]]
    share = sum(len(t) for t in early if t[0] == "a") / sum(map(len, early))
    assert abs(share - 0.75) < 0.05
    assert all(d.name.startswith("b") for d in drawn[-5:])
