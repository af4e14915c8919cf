"""Narrowed models and tokenizers: other numbers, the same cuts and the same logits."""

from __future__ import annotations

import json

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from bridges.data.tokenizer import leading_token, own_leading_token, set_leading_token, vocabulary_size
from bridges.dense import wrap_dense
from bridges.dense.narrow import narrow, narrow_alike, narrow_dense, narrow_tokenizer
from bridges.errors import CheckpointError, ModelError
from bridges.planted import world_named

KEPT = [5, 90, 3, 41, 1, 2, 77]
TEXT = [f"She put the {thing} on the {place}, and left." for thing in ("cup", "book") for place in ("sill", "bed")]


# --- models -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_logits_of_a_narrowed_stack_are_the_columns_of_the_full_one(case):
    new = torch.randint(len(KEPT), (2, 9), generator=torch.Generator().manual_seed(0))
    streams, full = case.stack.run(torch.tensor(KEPT)[new]).sites, case.stack.logits(torch.tensor(KEPT)[new])
    narrow_dense(case.stack, KEPT)
    # Gemma multiplies its embeddings: that must not be lost.
    assert all(torch.equal(h, streams[site]) for site, h in case.stack.run(new).sites.items())
    assert case.stack.vocab_size == len(KEPT)
    # A product of another width may be summed in another order.
    torch.testing.assert_close(case.stack.logits(new), full[..., KEPT], rtol=1e-5, atol=1e-5)
    assert not any(p.requires_grad for p in case.stack.parameters())


@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_tied_matrices_and_their_own_are_both_cut(tiny_model, tied):
    stack = wrap_dense(tiny_model("gpt2", tie_word_embeddings=tied), check=False)
    into, out = (get().weight for get in (stack.model.get_input_embeddings, stack.model.get_output_embeddings))
    assert (into is out) == tied
    before = into[KEPT].clone(), out[KEPT].clone()
    narrow_dense(stack, KEPT)
    assert torch.equal(stack.model.get_input_embeddings().weight, before[0])
    assert torch.equal(stack.model.get_output_embeddings().weight, before[1])


@torch.no_grad()
def test_the_bias_of_a_head_is_cut_with_it(tiny_model):
    stack = wrap_dense(tiny_model("gpt_neox"), check=False)
    head = stack.model.get_output_embeddings()
    head.bias = nn.Parameter(torch.linspace(-3, 3, 97), requires_grad=False)
    ids = torch.tensor([[0, 4, 2, 2, 6, 1]])
    full = stack.logits(torch.tensor(KEPT)[ids])
    narrow_dense(stack, KEPT)
    torch.testing.assert_close(stack.logits(ids), full[..., KEPT], rtol=1e-5, atol=1e-5)


def test_a_stack_that_cannot_be_narrowed_says_so(tiny_sparse, tiny_model):
    # A sparse transformer is what a model of OpenAI's format is as well.
    for stack in (tiny_sparse(), world_named("0").dense):
        with pytest.raises(ModelError, match=r"needs a Hugging Face model\. Use data\.vocabulary=all"):
            narrow_dense(stack, [0, 1])
    with pytest.raises(ModelError, match="no embedding of: token 97 of 97"):
        narrow_dense(wrap_dense(tiny_model("gpt2"), check=False), [3, 97])


# --- tokenizers -------------------------------------------------------------------------------------------------------


def _byte_pairs(bos: bool = True, chat: bool = True) -> PreTrainedTokenizerFast:
    """A byte-level BPE: ``<pad>`` and ``<s>`` inside its table, ``</s>`` and a token that is not special behind it."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=360, special_tokens=["<pad>", "<s>"], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(TEXT * 5, trainer)
    made.add_special_tokens(["</s>"])
    if chat:
        made.add_tokens(["[the end]"])
    if bos:
        made.post_processor = processors.Sequence(
            [
                processors.ByteLevel(trim_offsets=False),
                processors.TemplateProcessing(
                    single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", made.token_to_id("<s>"))]
                ),
            ]
        )
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def _unigrams() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=60, special_tokens=["<s>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator(TEXT * 5, trainer)
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", made.token_to_id("<s>")), ("</s>", made.token_to_id("</s>"))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def _pieces() -> PreTrainedTokenizerFast:
    """A SentencePiece BPE that falls back to bytes, as Gemma and Llama 2 have it; BOS by a BERT-like processor."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=80, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    made.train_from_iterator(TEXT * 5, trainer)
    vocab = made.get_vocab()
    vocab |= {f"<0x{byte:02X}>": len(vocab) + byte for byte in range(256)}
    merges = [tuple(pair) for pair in json.loads(made.to_str())["model"]["merges"]]
    made = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(), decoders.Fuse()])
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    made.post_processor = processors.BertProcessing(("</s>", vocab["</s>"]), ("<s>", vocab["<s>"]))
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


KINDS = {"byte pairs": _byte_pairs, "unigrams": _unigrams, "pieces": _pieces}
OTHERS = ["A dog, 3 cats — and <s>the</s> rest[the end] of it", "hats hats\n\nhats", "ünï"]


@pytest.fixture(params=list(KINDS))
def tokenizer(request) -> PreTrainedTokenizerFast:
    return KINDS[request.param]()


def _seen(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens of the text and the special ones, in no natural order."""
    found = {i for text in TEXT for i in tokenizer(text)["input_ids"]} | set(tokenizer.all_special_ids)
    return sorted(found, key=lambda i: (i * 37) % 101)


def _assert_renumbered(old: PreTrainedTokenizerBase, new: PreTrainedTokenizerBase, kept: list[int]) -> None:
    assert vocabulary_size(new) == len(kept)
    number = {i: n for n, i in enumerate(kept)}
    for text in [*TEXT, *OTHERS]:
        for special in (True, False):
            before = old(text, add_special_tokens=special)["input_ids"]
            after = new(text, add_special_tokens=special)["input_ids"]
            assert old.convert_ids_to_tokens(before) == new.convert_ids_to_tokens(after)
            assert [number.get(i) for i in before] == [i if i < len(kept) else None for i in after]
            assert old.decode(before) == new.decode(after)
            assert old.decode(before, skip_special_tokens=True) == new.decode(after, skip_special_tokens=True)
    for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
        assert getattr(new, name) == getattr(old, name)
        if getattr(old, name) is not None:
            assert getattr(new, f"{name}_id") == number[getattr(old, f"{name}_id")]
    assert sorted(new.all_special_ids) == sorted(number[i] for i in old.all_special_ids)
    assert sorted(new.get_vocab().values()) == list(range(len(old)))
    own = own_leading_token(old)
    assert own_leading_token(new) == (None if own is None else number[own])


def test_a_narrowed_tokenizer_cuts_as_before_and_numbers_anew(tokenizer):
    before = {text: tokenizer(text)["input_ids"] for text in TEXT}
    kept = _seen(tokenizer)
    _assert_renumbered(tokenizer, narrow_tokenizer(tokenizer, kept), kept)
    assert vocabulary_size(tokenizer) is None
    assert before == {text: tokenizer(text)["input_ids"] for text in TEXT}


def test_a_narrowed_tokenizer_is_saved_and_read(tokenizer, tmp_path):
    kept = _seen(tokenizer)
    narrowed = narrow_tokenizer(tokenizer, kept)
    set_leading_token(narrowed, "</s>")
    narrowed.save_pretrained(tmp_path)
    read = AutoTokenizer.from_pretrained(tmp_path)
    _assert_renumbered(tokenizer, read, kept)
    assert leading_token(read) == kept.index(tokenizer.eos_token_id)


def test_a_tokenizer_class_that_builds_itself_anew_keeps_the_numbers(tmp_path):
    from transformers import GPT2Tokenizer

    plain = _byte_pairs(bos=False, chat=False)
    state = json.loads(plain.backend_tokenizer.to_str())["model"]
    merges = [tuple(pair) for pair in state["merges"]]
    old = GPT2Tokenizer(vocab=state["vocab"], merges=merges, bos_token="<s>", eos_token="</s>", unk_token="</s>")
    kept = _seen(old)
    new = narrow_tokenizer(old, kept)
    new.save_pretrained(tmp_path)
    for one in (new, AutoTokenizer.from_pretrained(tmp_path)):
        for text in TEXT:
            assert [kept[i] for i in one(text)["input_ids"]] == old(text)["input_ids"]
            assert one.decode(one(text)["input_ids"]) == text
        assert (one.bos_token_id, one.eos_token_id) == (kept.index(old.bos_token_id), kept.index(old.eos_token_id))


def test_padding_that_a_tokenizer_file_asks_for_is_renumbered():
    tokenizer = _byte_pairs()
    kept = _seen(tokenizer)
    tokenizer.backend_tokenizer.enable_padding(pad_id=tokenizer.pad_token_id, pad_token="<pad>")
    narrowed = narrow_tokenizer(tokenizer, kept)
    assert narrowed.backend_tokenizer.padding["pad_id"] == kept.index(tokenizer.pad_token_id)
    both = narrowed([TEXT[0], "She"], padding=True)["input_ids"]
    assert both[1][-1] == kept.index(tokenizer.pad_token_id)


def test_a_tokenizer_that_cannot_be_narrowed_says_so():
    class Slow:
        """A tokenizer without a backend of the tokenizers library."""

    with pytest.raises(ModelError, match=r"Slow is no fast tokenizer .* Use data\.vocabulary=all"):
        narrow_tokenizer(Slow(), [0, 1])  # type: ignore[arg-type]
    unigrams = _unigrams()
    unigrams.add_special_tokens({"pad_token": "<pad>"})
    with pytest.raises(ModelError, match=r"outside its table of unigrams.* Use data\.vocabulary=all"):
        narrow_tokenizer(unigrams, [0, 1])


# --- both -------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_saved_tokenizer_narrows_a_model_alike(tiny_model, tmp_path):
    tokenizer = _unigrams()
    make = lambda: wrap_dense(tiny_model("gemma2", vocab_size=len(tokenizer) + 3), tokenizer, check=False)  # noqa: E731
    first, kept = make(), _seen(tokenizer)
    narrowed = narrow(first, tokenizer, kept)
    assert first.tokenizer is narrowed
    narrowed.save_pretrained(tmp_path)
    second = make()
    again = narrow_alike(second, tokenizer, AutoTokenizer.from_pretrained(tmp_path))
    assert again.get_vocab() == narrowed.get_vocab() and vocabulary_size(again) == len(kept)
    ids = torch.tensor([narrowed(TEXT[0])["input_ids"]])
    assert torch.equal(first.logits(ids), second.logits(ids))
    full = make().logits(torch.tensor([tokenizer(TEXT[0])["input_ids"]]))
    torch.testing.assert_close(first.logits(ids), full[..., kept], rtol=1e-5, atol=1e-5)


def test_a_tokenizer_of_another_model_is_refused(tiny_model):
    mine, other = _byte_pairs(), _unigrams()
    stack = wrap_dense(tiny_model("gpt2", vocab_size=len(mine)), mine, check=False)
    with pytest.raises(CheckpointError, match="belongs to another model"):
        narrow_alike(stack, mine, narrow_tokenizer(other, _seen(other)))
    assert stack.vocab_size == len(mine)
