"""Tokenizers of several kinds, and behaviours encoded with them."""

from __future__ import annotations

import random
from functools import cache
from importlib import resources
from itertools import islice

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from bridges.behaviours import SPLITS, SUITES, encode, get_behaviour
from bridges.data.idioms import documents
from bridges.data.tokenizer import train_tokenizer

N = 96


@cache
def make_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    if kind == "trained":  # the recipe of the bundled one, on a little generated code
        return train_tokenizer(documents(400_000, seed=0))
    if kind == "bundled":
        folder = resources.files("bridges") / "assets" / "tinypython"
        if not (folder / "tokenizer.json").is_file():
            pytest.skip("the bundled model is not in this checkout")
        return PreTrainedTokenizerFast.from_pretrained(str(folder))
    if kind == "bytes":
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        made = Tokenizer(models.BPE({char: i for i, char in enumerate(alphabet)}, []))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        made.decoder = decoders.ByteLevel()
        return PreTrainedTokenizerFast(tokenizer_object=made)
    assert kind == "words"  # whole English words with their space, and years cut in two, as GPT-2 has them
    cut = pre_tokenizers.Split(Regex(r" ?[A-Za-z]+|\d\d|[^A-Za-z\d]"), behavior="isolated")
    vocab = {"<s>": 0, "<unk>": 1}
    for behaviour in SUITES["english"].values():
        for split in SPLITS:
            for draft in islice(behaviour.drafts(random.Random(1), split), 800):
                for text in (
                    draft.clean + draft.clean_answer.text,
                    draft.counterfactual + draft.counterfactual_answer.text,
                ):
                    for word, _ in cut.pre_tokenize_str(text):
                        vocab.setdefault(word, len(vocab))
    made = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    made.pre_tokenizer = cut
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", unk_token="<unk>")


@cache
def make_encoded(kind: str, name: str, split: str, seed: int = 0):
    return encode(get_behaviour(name), make_tokenizer(kind), split, n=N, seed=seed)


@pytest.fixture
def tokenizer_of():
    return make_tokenizer


@pytest.fixture
def encoded_of():
    """`encoded_of(kind, behaviour, split)`: N pairs, made once."""
    return make_encoded
