"""One token before every document and every prompt: the one that the model was trained with."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from bridges.behaviours import encode
from bridges.behaviours.pair import Answer, Behaviour, Draft
from bridges.config import DataConfig
from bridges.data.blocks import token_blocks
from bridges.data.tokenizer import leading_token, train_tokenizer


def _words(adds: str | None = None, at_the_end: str | None = None, **special: str) -> PreTrainedTokenizerFast:
    vocabulary = ["<unk>", "<s>", "</s>", "[CLS]", "a", "b", "c", ":", ";"]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if adds or at_the_end:
        pieces = [piece for piece in (adds, "$A", at_the_end) if piece]
        ids = [(piece, vocabulary.index(piece)) for piece in pieces if piece != "$A"]
        made.post_processor = processors.TemplateProcessing(single=" ".join(pieces), special_tokens=ids)
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", **special)


@pytest.mark.parametrize(
    ("tokenizer", "token"),
    [
        (_words(bos_token="<s>", eos_token="</s>"), "<s>"),
        (_words(adds="<s>", bos_token="<s>", eos_token="</s>"), "<s>"),
        (_words(adds="[CLS]", bos_token="<s>", eos_token="</s>"), "[CLS]"),
        (_words(at_the_end="</s>", eos_token="</s>"), "</s>"),
        (_words(at_the_end="</s>", bos_token="<s>", eos_token="</s>"), "<s>"),
        (_words(eos_token="</s>"), "</s>"),
        (_words(), None),
    ],
)
def test_the_token_that_the_model_was_trained_with(tokenizer, token):
    expected = None if token is None else tokenizer.convert_tokens_to_ids(token)
    assert leading_token(tokenizer) == expected


class _Ten(Behaviour):
    """Ten pairs, so that there is something to encode."""

    name, description, min_pairs, strict = "ten", "", 1, True

    def templates(self, split):
        return ("t",)

    def drafts(self, rng, split):
        for i in range(10):
            yield Draft("a " * (i + 1), Answer(":", 1), "b " * (i + 1), Answer(";", 1), "t")


@pytest.mark.parametrize("special", [{"bos_token": "<s>", "eos_token": "</s>"}, {"eos_token": "</s>"}])
def test_documents_and_prompts_begin_alike(tmp_path, special):
    tokenizer = _words(**special)
    for i in range(200):
        (tmp_path / f"{i}.txt").write_text("a b c")
    data = token_blocks(DataConfig(source="files", path=str(tmp_path), pattern="*.txt"), tokenizer, 4)
    prompts = encode(_Ten(), tokenizer, "train", 10).ids[:, :, 0]
    first = set(data.blocks["train"][:, 0].tolist())
    assert first == set(prompts.flatten().tolist()) == {leading_token(tokenizer)}


def test_the_bundled_recipe_has_one_token_for_both():
    tokenizer = train_tokenizer(["def f(x):\n    return x\n"] * 3, vocab_size=280, context=64)
    assert leading_token(tokenizer) == tokenizer.eos_token_id == tokenizer.bos_token_id
