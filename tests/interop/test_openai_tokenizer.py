"""The byte-pair tokenizer of OpenAI's folders against one written out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import regex
import torch

from bridges.data.tokenizer import train_tokenizer
from bridges.errors import CheckpointError, ModelError
from bridges.interop.openai_tokenizer import load_tokenizer

PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEXTS = [f"def f{i}(x):\n    return [[x + {i}], ('a', \"b\")]  # é\n" for i in range(300)]
HARD = 'def g(xs):\r\n\treturn {\'k\': [1234, xs[0]]}\n\n\n  # naïve 日本 \u2028\u0085 end   \nprint("""\'""")//\n  '


def byte_letters() -> dict[int, str]:
    """GPT-2's letter for every byte: printable ones stand for themselves, the others for those from 256 on."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [b for b in range(256) if b not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(others)}


@pytest.fixture(scope="module")
def files() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges in the release's order: bytes, then merges as they were learned."""
    core = json.loads(train_tokenizer(TEXTS, 400).backend_tokenizer.to_str())["model"]
    merges = [tuple(pair) for pair in core["merges"]]
    tokens = [*byte_letters().values(), *("".join(pair) for pair in merges)]
    return {token: i for i, token in enumerate(tokens)}, merges


def write(folder: Path, vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Path:
    (folder / "encoder.json").write_text(json.dumps(vocabulary))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges), ""]
    (folder / "vocab.bpe").write_text("\n".join(lines), encoding="utf-8")
    return folder


def by_hand(text: str, vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> list[int]:
    rank, letters, ids = {pair: i for i, pair in enumerate(merges)}, byte_letters(), []
    for word in regex.findall(PATTERN, text):
        parts = [letters[b] for b in word.encode()]
        while len(parts) > 1:
            best = min(range(len(parts) - 1), key=lambda i: rank.get((parts[i], parts[i + 1]), len(rank)))
            if (parts[best], parts[best + 1]) not in rank:
                break
            parts[best : best + 2] = [parts[best] + parts[best + 1]]
        ids += [vocabulary[part] for part in parts]
    return ids


def test_text_is_cut_as_by_hand(files, tmp_path):
    tokenizer = load_tokenizer(write(tmp_path, *files), 2048, 64)
    for text in (HARD, TEXTS[7]):
        ids = tokenizer(text)["input_ids"]
        assert ids == by_hand(text, *files) and tokenizer.decode(ids) == text
    assert tokenizer.eos_token_id == tokenizer.bos_token_id == 2047 and tokenizer.is_fast
    assert tokenizer("x<|endoftext|>y")["input_ids"][1] == 2047 and tokenizer.model_max_length == 64


def test_a_vocabulary_may_hold_the_end_of_text(files, tmp_path):
    vocabulary, merges = files
    tokenizer = load_tokenizer(write(tmp_path, vocabulary | {"<|endoftext|>": len(vocabulary)}, merges), 2048, 64)
    assert tokenizer.eos_token_id == len(vocabulary) == len(tokenizer) - 1


def test_a_saved_tokenizer_serves_as_well(tmp_path):
    saved = train_tokenizer(TEXTS, 300)
    saved.save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path, 300, 8)(HARD)["input_ids"] == saved(HARD)["input_ids"]


def test_what_is_missing_or_does_not_fit_is_named(files, tmp_path):
    with pytest.raises(ModelError, match=r"no tokenizer. Put encoder.json and vocab.bpe"):
        load_tokenizer(tmp_path, 2048, 64)
    with pytest.raises(ModelError, match=r"tokens, the model's embedding only 100 rows"):
        load_tokenizer(write(tmp_path, *files), 100, 64)


@pytest.mark.parametrize(
    "name, content", [("encoder.json", "{"), ("encoder.json", "[]"), ("vocab.bpe", "a b c"), ("vocab.bpe", "日 本")]
)
def test_damaged_files_are_one_clear_error(files, name, content, tmp_path):
    (write(tmp_path, *files) / name).write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"tokenizer in .* is damaged"):
        load_tokenizer(tmp_path, 2048, 64)


def test_a_folder_loads_as_a_dense_model(files, tiny_sparse, tmp_path):
    from bridges.dense import load_dense
    from bridges.interop.openai_save import save_openai

    model = tiny_sparse(0, vocab_size=2048, bigram="none")
    save_openai(model, write(tmp_path, *files))
    dense, tokenizer = load_dense(str(tmp_path))
    ids = torch.tensor([tokenizer("def f(x):")["input_ids"]])
    torch.testing.assert_close(dense.logits(ids), model.logits(ids), atol=1e-4, rtol=1e-4)
    assert not any(p.requires_grad for p in dense.parameters())
