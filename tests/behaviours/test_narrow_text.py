"""The text of a narrow run: whose prompts, in which split, in batches of one length."""

from __future__ import annotations

import copy
import json
import random
from importlib import resources
from itertools import islice

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from bridges.behaviours import encode, get_behaviour, get_suite
from bridges.behaviours.from_file import load
from bridges.behaviours.narrow_text import prompt_blocks, split_prompts, split_texts, tokens_needed
from bridges.behaviours.stage import express
from bridges.config import DataConfig
from bridges.data.blocks import TokenBlocks, bigram_log_probabilities
from bridges.data.tokenizer import leading_token, set_leading_token, vocabulary_size
from bridges.dense.narrow import narrow_tokenizer
from bridges.errors import DataError
from bridges.fidelity.scope import readable

NAMES = ("while_return_true", "bracket_brace", "if_equals")
BEHAVIOURS = {name: get_behaviour(name) for name in NAMES}
ONLY = DataConfig(focus=1.0, prompts=128, context=32)
SIZE = 8


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(str(resources.files("bridges") / "assets" / "tinypython"))


@pytest.fixture(scope="module")
def data(tokenizer) -> TokenBlocks:
    return prompt_blocks(ONLY, BEHAVIOURS, tokenizer, 0)


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    for i in range(120):
        (folder / f"{i}.txt").write_text(f"The value of x{i} is {i}, and that of y is not known to them.\n" * 20)
    return folder


def _rows(data: TokenBlocks, split: str) -> list[tuple[int, ...]]:
    assert data.lengths is not None
    return [tuple(row[:n].tolist()) for row, n in zip(data.blocks[split], data.lengths[split], strict=True)]


def _pair(name: str, i: int, **more: str) -> dict[str, str]:
    """A line of a file of prompt pairs."""
    pair = {"clean": f"{name} = [{i}", "counterfactual": f"{name} = ({i}"}
    return pair | {"clean_token": "]", "counterfactual_token": ")"} | more


# --- splits -----------------------------------------------------------------------------------------------------------


def test_no_prompt_is_in_two_splits_or_from_reach(data, tokenizer):
    prompts = {split: {row[:-1] for row in _rows(data, split)} for split in ("train", "validation", "test")}
    assert all(len(some) > 20 for some in prompts.values())
    assert not prompts["train"] & prompts["validation"]
    assert not (prompts["train"] | prompts["validation"]) & prompts["test"]
    for name, behaviour in BEHAVIOURS.items():
        drawn = express(behaviour, tokenizer, 64, 0)
        for judged in (drawn.heldout, drawn.reach):
            assert judged is not None, name
            texts = {
                tuple(judged.ids[i, side, : judged.lengths[i, side]].tolist())
                for i in range(len(judged))
                for side in (0, 1)
            }
            assert not texts & (prompts["train"] | prompts["validation"])
    reach = {
        text
        for behaviour in BEHAVIOURS.values()
        for draft in islice(behaviour.drafts(random.Random(3), "reach"), 200)
        for text in (draft.clean, draft.counterfactual)
    }
    assert not reach & {tokenizer.decode(row[1:]) for some in prompts.values() for row in some}


def test_each_row_is_the_lead_a_prompt_and_its_answer(data, tokenizer):
    right: dict[tuple[int, ...], int] = {}
    for behaviour in BEHAVIOURS.values():
        pairs = encode(behaviour, tokenizer, "train", 64, 0)
        for i in range(len(pairs)):
            for side, text in enumerate((pairs.pairs[i].clean, pairs.pairs[i].counterfactual)):
                prompt = (leading_token(tokenizer), *tokenizer(text, add_special_tokens=False)["input_ids"])
                right[prompt] = int(pairs.candidates[i, side])
    rows = _rows(data, "train") + _rows(data, "validation")
    assert sorted(rows) == sorted((*prompt, answer) for prompt, answer in right.items())
    assert all(data.answered[split].all() for split in data.blocks)
    assert data.constant_prefix == 1


def test_validation_holds_both_prompts_and_several_frames(data, tokenizer):
    pairs = encode(BEHAVIOURS[NAMES[0]], tokenizer, "train", 64, 0)
    frame = {}
    for i, pair in enumerate(pairs.pairs):
        for side in (0, 1):
            frame[tuple(pairs.ids[i, side, : pairs.lengths[i, side]].tolist())] = (pair.template, side)
    held = [frame[row[:-1]] for row in _rows(data, "validation") if row[:-1] in frame]
    assert len(held) == 8
    assert len({template for template, _ in held}) > 2 and {side for _, side in held} == {0, 1}


def test_a_prompt_that_a_file_keeps_for_judging_is_not_trained_on(tokenizer, tmp_path):
    lines = [_pair("x", i, split=split) for split in ("train", "heldout") for i in range(20)]
    for i in range(20, 30):
        lines += [_pair("x", i, split="train"), _pair("y", i, split="heldout")]
    # Twenty pairs that one behaviour trains on are those that the other is judged on.
    for i, line in enumerate(lines):
        line["behaviour"] = "second" if 20 <= i < 40 else "first"
    lines += [_pair("z", i, split="train", behaviour="second") for i in range(20, 30)]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = prompt_blocks(ONLY, load(file, tokenizer), tokenizer, 0)
    shown, judged = (
        {tokenizer.decode(row[1:-1]) for split in splits for row in _rows(data, split)}
        for splits in (("train", "validation"), ("test",))
    )
    assert {f"x = [{i}" for i in range(20)} <= judged
    assert shown == {f"{name} = {bracket}{i}" for name in "xz" for bracket in "[(" for i in range(20, 30)}


# --- batches ----------------------------------------------------------------------------------------------------------


def _mixed(seed: int = 0) -> TokenBlocks:
    """Rows of 5, 7 and 9 tokens, whose first token is the row's number; those of 9 and some of 7 are ordinary text."""
    lengths = np.array([5] * 10 + [7] * 13 + [9] * 6)
    ids = np.full((29, 9), 50, dtype=np.int32)
    rng = np.random.default_rng(seed)
    for i, n in enumerate(lengths):
        ids[i, :n] = [i, *rng.integers(30, 49, n - 1)]
    answered = np.array([True] * 18 + [False] * 11)
    split = {"train": ids, "validation": ids[:3], "test": ids[::2]}
    return TokenBlocks(
        split,
        {"train": 29},
        "x",
        lengths={"train": lengths, "validation": lengths[:3], "test": lengths[::2]},
        answered={"train": answered, "validation": answered[:3], "test": answered[::2]},
    )


def test_a_batch_has_one_length_and_one_kind_and_no_padding():
    data = _mixed()
    for step in range(40):
        rows = data.rows(step, 4, seed=1)
        assert len(rows) == 4
        assert len({int(data.lengths["train"][r]) for r in rows}) == 1
        assert len({bool(data.answered["train"][r]) for r in rows}) == 1
        ids = data.batch(step, 4, seed=1)
        assert ids.shape == (4, data.lengths["train"][rows[0]]) and not (ids == 50).any()
        assert ids[:, 0].tolist() == rows.tolist()
        assert data.answers(step, 4, seed=1) == bool(data.answered["train"][rows[0]])


def test_a_batch_is_a_function_of_seed_and_step_alone():
    used = _mixed()
    forward = [used.batch(step, 4, seed=1) for step in range(30)]
    for step in (17, 0, 29, 3, 3, 11):
        assert torch.equal(_mixed().batch(step, 4, seed=1), forward[step])
        assert torch.equal(used.batch(step, 4, seed=1), forward[step])
    first, second = ([used.rows(step, 4, seed).tolist() for step in range(9)] for seed in (1, 2))
    assert first != second


def test_each_row_is_met_once_an_epoch_but_for_filling_up():
    data = _mixed()
    # 10 of five tokens, 8 prompts and 5 pieces of text of seven, 6 of nine: in fours 3 + 2 + 2 + 2 batches.
    epochs = [[data.rows(9 * epoch + i, 4, seed=0) for i in range(9)] for epoch in range(3)]
    for batches in epochs:
        met = np.bincount(np.concatenate(batches), minlength=29)
        assert met.min() == 1 and met.sum() == 36
        # The eight prompts of seven tokens fill two batches to the last row.
        assert (met[10:18] == 1).all() and met[:10].sum() == 12 and met[18:23].sum() == 8 and met[23:].sum() == 8
    assert len({str(batches) for batches in epochs}) == 3


def test_more_rows_are_wanted_than_a_length_has():
    rows = [_mixed().rows(step, 16, seed=0) for step in range(4)]
    assert all(len(some) == 16 for some in rows)
    assert set(np.concatenate(rows).tolist()) == set(range(29))


def test_chunks_are_the_rows_of_take_without_padding():
    data = _mixed()
    for count in (1, 7, 15, 100):
        taken = data.take("test", count)
        chunks = data.chunks("test", count, 3)
        assert all(len(ids) <= 3 and not (ids == 50).any() for ids in chunks)
        assert sorted(int(row[0]) for ids in chunks for row in ids) == sorted(taken[:, 0].tolist())
        by_number = {int(row[0]): row for row in taken}
        for row in (row for ids in chunks for row in ids):
            full = by_number[int(row[0])]
            assert torch.equal(full[: len(row)], row) and (full[len(row) :] == 50).all()


def test_the_constant_prefix_ends_before_the_shortest_row_does():
    data = _mixed()
    assert data.constant_prefix == 0
    for ids in data.blocks.values():
        ids[:, :3] = [1, 2, 3]
    data.blocks["test"][0, 2] = 4
    assert data.constant_prefix == 2
    for ids in data.blocks.values():
        ids[:] = 7
    assert data.constant_prefix == 4
    assert data.mean_length == pytest.approx((50 + 91 + 54) / 29)


def test_a_bigram_table_does_not_count_padding():
    data, vocab, smoothing = _mixed(), 51, 4.0
    pairs = [
        (int(row[i]), int(row[i + 1]))
        for row, n in zip(data.blocks["train"], data.lengths["train"], strict=True)
        for i in range(n - 1)
    ]
    unigram = np.full(vocab, 0.5)
    for _, b in pairs:
        unigram[b] += 1
    unigram /= unigram.sum()
    expected = np.tile(smoothing * unigram, (vocab, 1))
    for a, b in pairs:
        expected[a, b] += 1
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(data.bigram(vocab).exp().numpy(), expected, rtol=1e-5)
    padded = bigram_log_probabilities(data.blocks["train"], vocab)
    assert float(padded[50, 50].exp()) > 0.8 > 0.2 > float(data.bigram(vocab)[50, 50].exp())


# --- ordinary text ----------------------------------------------------------------------------------------------------


def test_half_of_the_rows_are_ordinary_text(tokenizer, text_folder):
    config = DataConfig(source="files", path=str(text_folder), focus=0.5, prompts=64, context=24)
    data = prompt_blocks(config, {"while_return_true": BEHAVIOURS["while_return_true"]}, tokenizer, 0)
    kinds = data.answered["train"]
    assert 0.45 < kinds.mean() < 0.55
    assert (data.lengths["train"][~kinds] == 24).all()
    texts = [tokenizer.decode(row[1:]) for row, kind in zip(_rows(data, "train"), kinds, strict=True) if not kind]
    assert all(" of " in text for text in texts)
    assert {row[0] for row in _rows(data, "train")} == {leading_token(tokenizer)}
    assert {data.answers(step, SIZE, 0) for step in range(40)} == {True, False}


def test_focus_without_text_of_a_split_says_so(tokenizer, tmp_path):
    (tmp_path / "a.txt").write_text("too short")
    config = DataConfig(source="files", path=str(tmp_path), focus=0.5, prompts=64, context=24)
    with pytest.raises(DataError, match=r"data\.focus=0\.5: data\.source=files has no text of the train split"):
        prompt_blocks(config, {NAMES[0]: BEHAVIOURS[NAMES[0]]}, tokenizer, 0)


def test_a_tokenizer_that_expresses_nothing_says_so():
    # One token for all letters: no answer can be told from another.
    made = Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1}, unk_token="<unk>"))
    blind = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", unk_token="<unk>")
    some = {NAMES[2]: BEHAVIOURS[NAMES[2]]}
    for call in (lambda: prompt_blocks(ONLY, some, blind, 0), lambda: tokens_needed(ONLY, some, blind, 0, 16)):
        with pytest.raises(DataError, match=r"expresses none of the behaviours .* behaviours\.names"):
            call()


# --- the narrowed vocabulary ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("focus", [1.0, 0.3])
def test_a_narrowed_tokenizer_gives_the_same_text_and_pairs(tokenizer, text_folder, focus):
    config = DataConfig(source="files", path=str(text_folder), focus=focus, prompts=64, context=24, vocabulary="seen")
    tokens = tokens_needed(config, BEHAVIOURS, tokenizer, 0, 96)
    assert tokens == sorted(set(tokens)) and len(tokens) < len(tokenizer)
    narrowed = narrow_tokenizer(tokenizer, tokens)
    full, small = (prompt_blocks(config, BEHAVIOURS, t, 0) for t in (tokenizer, narrowed))
    for split, ids in small.blocks.items():
        assert ids.max() < vocabulary_size(narrowed)
        assert np.array_equal(np.array(tokens)[ids], full.blocks[split])
        assert np.array_equal(small.lengths[split], full.lengths[split])
    for behaviour in BEHAVIOURS.values():
        before, after = (express(behaviour, t, 96, 0) for t in (tokenizer, narrowed))
        for a, b in zip(
            (before.train, before.heldout, before.reach), (after.train, after.heldout, after.reach), strict=True
        ):
            assert a.pairs == b.pairs and len(a) >= 64
            assert torch.equal(torch.tensor(tokens)[b.ids], a.ids)
            assert torch.equal(torch.tensor(tokens)[b.candidates], a.candidates)


def test_every_pair_of_a_long_file_stays_readable(tokenizer, tmp_path):
    names = [name for name in tokenizer.get_vocab() if name.isascii() and name.isalpha() and len(name) > 2][:300]
    pairs = [_pair(name, 1) for name in names]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    behaviours = load(file, tokenizer)
    tokens = tokens_needed(DataConfig(focus=1.0, prompts=64, context=24), behaviours, tokenizer, 0, 16)
    again = load(file, narrow_tokenizer(tokenizer, tokens))
    for split in ("train", "heldout"):
        assert split_texts(again["mine"], split, 1000, 0) == split_texts(behaviours["mine"], split, 1000, 0)
        assert len(encode(again["mine"], narrow_tokenizer(tokenizer, tokens), split, 1000, 0)) > 100


def test_prompts_begin_with_the_token_that_was_chosen(tokenizer):
    other = copy.deepcopy(tokenizer)
    some = {NAMES[0]: BEHAVIOURS[NAMES[0]]}
    set_leading_token(other, None)
    bare = prompt_blocks(ONLY, some, other, 0)
    plain = prompt_blocks(ONLY, some, tokenizer, 0)
    assert [row[1:] for row in _rows(plain, "train")] == _rows(bare, "train")


@pytest.mark.parametrize("behaviour", [*NAMES, "quote_closing"])
def test_what_is_measured_of_a_prompt_ends_with_its_answer_as_what_is_trained_on_does(tokenizer, behaviour):
    mine = get_behaviour(behaviour) if behaviour in NAMES else get_suite("english")[behaviour]
    trained = set(_rows(prompt_blocks(ONLY, {behaviour: mine}, tokenizer, 0), "train"))
    prompts = split_prompts(mine, "train", 2000, 0)
    measured = [tuple(row[0].tolist()) for row in readable(prompts, tokenizer, limit=1000).ids]
    ends = {row[-1] for row in trained}
    assert len(measured) == len(prompts) and {row[-1] for row in measured} <= ends
    assert trained & set(measured), "the same prompts are drawn"
    # Where a behaviour's text goes on after its answer, that is neither trained on nor measured.
    if behaviour == "quote_closing":
        whole = [len(tokenizer(prompt + answer)["input_ids"]) for prompt, answer in prompts]
        assert any(len(row) < full for row, full in zip(measured, whole, strict=True))


def test_ordinary_text_is_measured_to_its_limit_or_the_first_unknown_token(tokenizer):
    text = "def f(x):\\n    return x\\n"
    ids = tokenizer(text)["input_ids"]
    (row,) = readable([(text, "")], tokenizer).ids
    lead = leading_token(tokenizer)
    assert row[0].tolist() == [lead, *ids]
    (short,) = readable([(text, "")], tokenizer, limit=4).ids
    assert short[0].tolist() == [lead, *ids[:4]]
