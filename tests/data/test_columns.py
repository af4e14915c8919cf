"""Columns of a data set that are not what they should be, and splits that do not depend on how a folder is spelt."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bridges.config import DataConfig
from bridges.data.blocks import token_blocks
from bridges.data.reading import read_documents
from bridges.data.tokenizer import train_tokenizer
from bridges.errors import DataError


@pytest.fixture
def datasets(monkeypatch) -> None:
    """The package ``datasets`` with the one function that is used: rows of the parquet files of a folder."""

    def load_dataset(path, subset, split, streaming):
        assert split == "train" and streaming
        for file in sorted(Path(path).glob("*.parquet")):
            yield from pq.read_table(file).to_pylist()

    module = ModuleType("datasets")
    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)


def _folder(path: Path, **columns: pa.Array) -> DataConfig:
    path.mkdir()
    pq.write_table(pa.table(columns), path / "a.parquet")
    return DataConfig(source="hub", path=str(path))


def test_nulls_are_left_out_and_counted(tmp_path, datasets, caplog):
    texts = [None if i % 10 == 3 else f"def f{i}(x):\n    return x + {i}\n" for i in range(300)]
    config = _folder(tmp_path / "data", text=pa.array(texts))
    tokenizer = train_tokenizer(["def f(x):\n    return x\n"] * 3, vocab_size=280, context=8)
    data = token_blocks(config, tokenizer, 8)
    assert data.skipped == {"null": 30} and sum(data.documents.values()) == 270
    assert "30 × null" in caplog.text


def test_rows_that_are_no_unicode_are_left_out_and_counted(datasets, monkeypatch):
    # Of JSON lines with half a character; parquet can hold none.
    rows = [{"text": f"def f{i}(x):\n    return x{chr(0xD800) if i % 10 == 3 else ''}\n"} for i in range(300)]
    monkeypatch.setattr(sys.modules["datasets"], "load_dataset", lambda *args, **options: rows)
    tokenizer = train_tokenizer(["def f(x):\n    return x\n"] * 3, vocab_size=280, context=8)
    data = token_blocks(DataConfig(source="hub", path="owner/data"), tokenizer, 8)
    assert data.skipped == {"no Unicode": 30} and sum(data.documents.values()) == 270


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array([1, 2]), "int"),
        (pa.array([1.5, None]), "float"),
        (pa.array([["a"], ["b"]]), "list"),
        (pa.array([b"a", b"b"]), "bytes"),
        (pa.array([{"a": "b"}] * 2), "dict"),
    ],
    ids=["integers", "floats", "lists", "bytes", "structs"],
)
def test_other_values_are_an_error_that_names_column_and_type(tmp_path, datasets, column, kind):
    config = _folder(tmp_path / "data", text=column, body=pa.array(["x", "y"]))
    with pytest.raises(DataError) as caught:
        list(read_documents(config))
    assert f"data.column=text of {config.path} holds values of type {kind}" in str(caught.value)
    assert "Columns of text: body." in str(caught.value) and "\n" not in str(caught.value)


def test_a_column_that_is_not_there(tmp_path, datasets):
    config = _folder(tmp_path / "data", body=pa.array(["x"]))
    with pytest.raises(DataError, match=r"data\.column=text is not in .*Columns: body"):
        list(read_documents(config))


def test_a_split_does_not_depend_on_how_the_folder_is_spelt(tmp_path, datasets, monkeypatch):
    _folder(tmp_path / "data", text=pa.array([f"text {i}" for i in range(200)]))
    monkeypatch.chdir(tmp_path)
    spelt = ("data", "./data", "data/", str(tmp_path / "data"), "../" + tmp_path.name + "/data")
    splits = [[d.split for d in read_documents(DataConfig(source="hub", path=path))] for path in spelt]
    assert all(other == splits[0] for other in splits) and len(set(splits[0])) == 3
    for i in range(40):
        (tmp_path / "data" / f"{i}.txt").write_text(f"text {i}")
    files = [
        {d.name: d.split for d in read_documents(DataConfig(source="files", path=path, pattern="*.txt"))}
        for path in spelt
    ]
    assert all(other == files[0] for other in files) and len(files[0]) == 40
