"""The token before every text: chosen by loss where a tokenizer leaves it open, the same for documents and prompts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from bridges.behaviours import encode
from bridges.behaviours.from_file import load
from bridges.config import DataConfig
from bridges.data.blocks import token_blocks
from bridges.data.tokenizer import END_OF_TEXT, LEADING, leading_token, set_leading_token
from bridges.dense.leading import candidates, choose_leading_token
from bridges.errors import ConfigError
from bridges.stack import ResidualStack

WORDS = ["<s>", "</s>", END_OF_TEXT, "[", "]", "(", ")", "x", "y", "=", *map(str, range(10))]
TEXTS = ["x = [ 1 2 3 4 ]", "y = ( 5 6 )", "x = ( 7 8 9 ) y", "x x y y = ="]


class After(nn.Module, ResidualStack):
    """A model of no layers that knows each next token where the first one is ``wanted``, and guesses elsewhere.

    What it knows it reads off the ids, two ahead of the place that it is asked at; ``wanted`` None is an ordinary
    token in front.
    """

    def __init__(self, wanted: int | None, context: int = 64) -> None:
        super().__init__()
        self.d_model, self.n_sublayers, self.n_layers = 1 + len(WORDS), 0, 0
        self.vocab_size, self.context, self.wanted = len(WORDS), context, wanted
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)
        self.nodes: Any = type("Nodes", (), {"stream": staticmethod(lambda site, h: h)})
        self.longest = 0

    def embed(self, ids: Tensor) -> Tensor:
        assert ids.shape[1] <= self.context
        self.longest = max(self.longest, ids.shape[1])
        known = ids[:, :1] == self.wanted if self.wanted is not None else ids[:, :1] > 2
        following = nn.functional.one_hot(ids.roll(-1, 1), len(WORDS)).float()
        return torch.cat([known.expand_as(ids).unsqueeze(-1).float(), following], -1)

    def sublayer(self, index: int, h: Tensor) -> Tensor:
        raise AssertionError

    def unembed(self, h: Tensor, ids: Tensor) -> Tensor:
        return 5 * h[..., :1] * h[..., 1:] * self.scale


def _tokenizer(own: bool = False, **special: str) -> PreTrainedTokenizerFast:
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="y"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if own:
        made.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=made, **special)


BOTH = {"bos_token": "<s>", "eos_token": "</s>"}


def test_candidates():
    assert candidates(_tokenizer(**BOTH)) == ["<s>", "</s>", END_OF_TEXT, None]
    assert candidates(_tokenizer(bos_token=END_OF_TEXT, eos_token=END_OF_TEXT)) == [END_OF_TEXT, None]


@pytest.mark.parametrize(("wanted", "chosen"), [(0, 0), (1, 1), (2, 2), (None, None)])
def test_the_token_after_which_the_loss_is_least_is_chosen(wanted, chosen):
    tokenizer = _tokenizer(**BOTH)
    note = choose_leading_token(After(wanted), tokenizer, lambda: TEXTS)
    assert leading_token(tokenizer) == chosen
    name = "no token of its own" if chosen is None else WORDS[chosen]
    assert note.startswith(f"Every text begins with {name} (nats per token after <s> ")
    # Twenty tokens alike are ln 20 nats; a known one is 5 above nineteen others.
    assert "3.00" in note and f"{torch.tensor(5.0).exp().add(19).log().item() - 5:.2f}" in note


def test_a_text_longer_than_the_model_takes_is_cut():
    tokenizer, stack = _tokenizer(**BOTH), After(1, context=8)
    choose_leading_token(stack, tokenizer, lambda: ["x = [ 1 2 3 4 5 6 7 8 9 ] y = ( 1 2 )"])
    assert leading_token(tokenizer) == 1 and stack.longest == 8


def test_the_token_that_a_tokenizer_puts_there_stays():
    tokenizer, stack = _tokenizer(own=True, **BOTH), After(0)
    assert choose_leading_token(stack, tokenizer, lambda: TEXTS) == ""
    assert leading_token(tokenizer) == 1 and stack.longest == 0


def test_one_token_for_both_ends_leaves_nothing_to_measure():
    tokenizer, stack = _tokenizer(bos_token=END_OF_TEXT, eos_token=END_OF_TEXT), After(None)
    assert choose_leading_token(stack, tokenizer, lambda: TEXTS) == ""
    assert leading_token(tokenizer) == 2 and stack.longest == 0


@pytest.mark.parametrize(("asked", "found"), [("none", None), ("</s>", 1), ("x", 7)])
def test_a_token_that_is_asked_for(asked, found):
    for own in (False, True):
        tokenizer, stack = _tokenizer(own=own, **BOTH), After(0)
        assert choose_leading_token(stack, tokenizer, lambda: TEXTS, asked) == ""
        assert leading_token(tokenizer) == found and stack.longest == 0


def test_a_token_that_there_is_not():
    with pytest.raises(ConfigError, match=r"model\.leading_token='<bos>' is no token of this model\. Tokens: .*<s>"):
        choose_leading_token(After(0), _tokenizer(**BOTH), lambda: TEXTS, "<bos>")


@pytest.mark.parametrize("token", [None, "<s>", "</s>", END_OF_TEXT])
def test_documents_and_prompts_begin_alike_and_what_is_saved_does_too(tmp_path, token):
    made = _tokenizer(**BOTH)
    set_leading_token(made, token)
    made.save_pretrained(tmp_path / "tokenizer")
    read = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert read.init_kwargs[LEADING] == (token or "none") and read.get_vocab() == made.get_vocab()
    (tmp_path / "text").mkdir()
    for i in range(120):
        (tmp_path / "text" / f"{i}.txt").write_text("x = [ 1 2 ] = y")
    pair = '{"clean": "x = [ 1", "counterfactual": "x = ( 1", "clean_token": " ]", "counterfactual_token": " )"}\n'
    (tmp_path / "mine.jsonl").write_text(pair + pair.replace("x", "y"))
    first = [] if token is None else [WORDS.index(token)]
    for tokenizer in (made, read):
        config = DataConfig(source="files", path=str(tmp_path / "text"), context=8 + len(first))
        blocks = token_blocks(config, tokenizer, config.context).blocks["train"]
        words = [WORDS.index(word) for word in ["x", "=", "[", "1", "2", "]", "=", "y"]]
        assert (blocks == [*first, *words]).all()
        pairs = encode(load(tmp_path / "mine.jsonl", tokenizer)["mine"], tokenizer, "train", 8, 0)
        assert pairs.ids[0, 0, : len(first)].tolist() == first
        assert pairs.ids[0, 0, len(first) :].tolist()[1:] == [WORDS.index(word) for word in ["=", "[", "1"]]
