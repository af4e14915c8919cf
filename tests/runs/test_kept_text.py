"""A text from the Hub: tokenized once, in constant memory, by one process, and not read again by a run that goes on."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
from accelerate import Accelerator

import bridges.data.blocks as blocks
from bridges.config import Config, DataConfig, from_dict
from bridges.data.corpus import SPLITS, Document
from bridges.data.tokenizer import train_tokenizer
from bridges.errors import BridgesError, DataError
from bridges.runs import pipeline
from bridges.runs.kept_text import kept_blocks
from bridges.storage.folder import RunFolder

CONFIG = DataConfig(source="hub", path="owner/data", context=8)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["def f(x):\n    return x\n"] * 3, vocab_size=280, context=8)


@pytest.fixture
def rows(monkeypatch) -> list[dict[str, str]]:
    """What the package ``datasets`` gives, as lines of a data set that were asked for."""
    found = [{"text": f"def f{i}(x):\n    return x + {i}\n"} for i in range(600)]
    module = ModuleType("datasets")
    module.load_dataset = lambda *args, **options: iter(found)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    return found


def test_files_hold_what_memory_would(rows, tokenizer, tmp_path):
    kept, plain = kept_blocks(CONFIG, tokenizer, 8, tmp_path), blocks.token_blocks(CONFIG, tokenizer, 8)
    assert (kept.fingerprint, kept.documents, kept.skipped) == (plain.fingerprint, plain.documents, plain.skipped)
    for split in SPLITS:
        assert isinstance(kept.blocks[split], np.memmap) and kept.blocks[split].shape == plain.blocks[split].shape
        assert (kept.blocks[split] == plain.blocks[split]).all()
    assert (kept.batch(3, 4, 0) == plain.batch(3, 4, 0)).all() and kept.constant_prefix == plain.constant_prefix
    assert (kept.bigram(300) == plain.bigram(300)).all()


def test_the_text_is_read_once_for_each_way_of_reading_it(rows, tokenizer, tmp_path):
    first = kept_blocks(CONFIG, tokenizer, 8, tmp_path)
    rows.clear()
    assert kept_blocks(CONFIG, tokenizer, 8, tmp_path).fingerprint == first.fingerprint
    with pytest.raises(DataError, match="less than one block of 16"):
        kept_blocks(CONFIG, tokenizer, 16, tmp_path)
    # What broke off is not taken for a text.
    with pytest.raises(DataError, match="less than one block of 16"):
        kept_blocks(CONFIG, tokenizer, 16, tmp_path)


def test_other_processes_wait_for_the_one_that_reads(rows, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("bridges.runs.kept_text._WAIT", 0.01)
    found = []
    waiting = threading.Thread(
        target=lambda: found.append(kept_blocks(CONFIG, tokenizer, 8, tmp_path, write=False)), daemon=True
    )
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive() and not found
    written = kept_blocks(CONFIG, tokenizer, 8, tmp_path)
    waiting.join(20)
    assert found[0].fingerprint == written.fingerprint


def test_documents_are_let_go_as_they_are_tokenized(tokenizer, tmp_path, monkeypatch):
    alive: weakref.WeakSet[Document] = weakref.WeakSet()
    most = 0

    def documents(config, skipped=None) -> Iterator[Document]:
        nonlocal most
        for i in range(5000):
            document = Document(f"rows/{i}", f"x = {i}\n")
            alive.add(document)
            yield document
            del document
            most = max(most, len(alive))

    monkeypatch.setattr(blocks, "read_documents", documents)
    data = blocks.token_blocks(CONFIG, tokenizer, 8, tmp_path)
    assert sum(data.documents.values()) == 5000 and most < 10


def test_a_run_that_goes_on_does_not_read_the_text_again(rows, workplace, tmp_path, monkeypatch):
    accelerator, path = Accelerator(cpu=True), tmp_path / "run"
    rows += [{"text": f"y{i} = {i}\n" * 40} for i in range(200)]
    config: Config = from_dict(
        {
            "model": {"name": str(workplace / "dense"), "label": "dense"},
            "data": {"source": "hub", "path": "owner/data", "context": 32},
            "sparse": {"d_model": 16, "d_head": 4},
            "train": {"tokens": 128, "batch": 2},
            "eval": {"sequences": 4, "bootstrap": 20, "ridge_tokens": 256},
            "behaviours": {"suite": "none"},
        }
    )
    with monkeypatch.context() as broken:
        broken.setattr(pipeline, "check_inputs", lambda *args, **options: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pipeline.run(config, path, accelerator, lambda text: None)
    folder = RunFolder(path)
    assert folder.computed and len(list(folder.text.iterdir())) == 1
    rows.clear()
    pipeline.run(config, path, accelerator, lambda text: None)
    assert folder.status["status"] == "finished" and not folder.text.exists()


def test_a_run_whose_text_cannot_be_read_leaves_nothing(rows, workplace, tmp_path):
    rows.clear()
    config = from_dict(
        {
            "model": {"name": str(workplace / "dense"), "label": "dense"},
            "data": {"source": "hub", "path": "owner/data", "context": 32},
            "behaviours": {"suite": "none"},
        }
    )
    with pytest.raises(BridgesError, match="less than one block"):
        pipeline.run(config, tmp_path / "run", Accelerator(cpu=True), lambda text: None)
    assert not (tmp_path / "run").exists()
