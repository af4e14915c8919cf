"""Both suites: grammars with many frames, splits that share no prompt, and pairs whose last token says nothing."""

from __future__ import annotations

import random
import re
from itertools import islice

import pytest
import torch

from bridges.behaviours import (
    ENGLISH,
    PYTHON,
    SPLITS,
    SUITES,
    BehaviourError,
    NotExpressible,
    encode,
    get_behaviour,
    get_suite,
    two_way,
)

ALL = [name for suite in SUITES.values() for name in suite]
CASES = [("bundled", name) for name in PYTHON] + [("words", name) for name in ENGLISH]


def drawn(name: str, split: str, seeds: range, count: int = 250) -> list[tuple[str, str]]:
    """Prompts of so many draws a seed."""
    behaviour = get_behaviour(name)
    drafts = (islice(behaviour.drafts(random.Random(seed), split), count) for seed in seeds)
    return [(d.clean, d.counterfactual) for each in drafts for d in each]


@pytest.mark.parametrize("name", ALL)
def test_a_behaviour_is_a_grammar(name):
    behaviour = get_behaviour(name)
    texts = [
        [frame.text + str(frame.cue) for frame in frames.values()] for frames in (behaviour.frames, behaviour.reach)
    ]
    assert len(set(texts[0])) >= 12 and len(set(texts[1])) >= 4 and not set(texts[0]) & set(texts[1])
    assert len(set(behaviour.contexts)) >= 4 and "" in behaviour.contexts
    assert behaviour.templates("train") == behaviour.templates("heldout")
    assert not set(behaviour.templates("train")) & set(behaviour.templates("reach"))
    # Hundreds of combinations: hardly any of 250 draws occurs twice.
    assert len(set(drawn(name, "train", range(1)))) > 150


@pytest.mark.parametrize("name", ALL)
def test_the_splits_share_no_prompt_whatever_the_seeds(name):
    prompts = {split: {p for pair in drawn(name, split, range(3)) for p in pair} for split in SPLITS}
    assert not prompts["train"] & prompts["heldout"]
    assert not prompts["reach"] & (prompts["train"] | prompts["heldout"])


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_pairs_are_aligned_and_every_frame_gives_some(encoded_of, tokenizer_of, kind, name):
    tokenizer = tokenizer_of(kind)
    for split in SPLITS:
        encoded = encoded_of(kind, name, split)
        assert 64 <= len(encoded) <= 96
        assert encoded.ids.shape[:2] == encoded.lengths.shape == encoded.candidates.shape == (len(encoded), 2)
        assert encoded.equal_length.all() and encoded.shared_last.all()
        assert (encoded.candidates[:, 0] != encoded.candidates[:, 1]).all()
        assert encoded.lengths.max() == encoded.ids.shape[2] <= 100
        assert {p.template for p in encoded.pairs} == set(get_behaviour(name).templates(split)), encoded.note
        seen = [p for pair in encoded.pairs for p in (pair.clean, pair.counterfactual)]
        assert len(set(seen)) == len(seen)
        for i, pair in enumerate(encoded.pairs):
            tokens = (pair.clean_token, pair.counterfactual_token)
            for side, prompt in enumerate((pair.clean, pair.counterfactual)):
                assert not prompt.endswith(" ")
                base = tokenizer(prompt, add_special_tokens=False)["input_ids"]
                assert encoded.ids[i, side, 1 : encoded.lengths[i, side]].tolist() == base
                for other in (side, 1 - side):  # the right and the wrong candidate
                    longer = tokenizer(prompt + tokens[other], add_special_tokens=False)["input_ids"]
                    assert longer == [*base, int(encoded.candidates[i, other])]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_bigram_table_is_at_chance(encoded_of, kind, name):
    table = torch.randn(5000, 5000, generator=torch.Generator().manual_seed(0))
    for split in SPLITS:
        rows = two_way(lambda ids: table[ids], encoded_of(kind, name, split))
        assert rows.groupby("pair")["correct"].mean().eq(0.5).all()


def test_what_a_tokenizer_cannot_express_is_reported(encoded_of, tokenizer_of):
    for name, reason in (("set_or_string", "the prompts are not equally long"), ("var_swap", "more than one token")):
        with pytest.raises(
            NotExpressible, match=rf"0 of \d+ train pairs tried could be used \(\d+ x .*{reason}"
        ) as caught:
            encode(get_behaviour(name), tokenizer_of("bytes"), "train", 8)
        error = caught.value
        assert error.kept == 0 and error.tried == sum(error.reasons.values()) and error.example
    with pytest.raises(NotExpressible, match="more than one token"):
        encode(get_behaviour("ioi"), tokenizer_of("trained"), "train", 8)


def test_two_way_answers_of_the_indirect_object(encoded_of):
    for name in ("ioi", "ioi_abba", "ioi_baba"):
        for pair in encoded_of("words", name, "heldout").pairs:
            sides = ((pair.clean, pair.clean_token), (pair.counterfactual, pair.counterfactual_token))
            for prompt, right in sides:
                assert len(re.findall(rf"\b{right.strip()}\b", prompt)) == 1
            first = re.search(r"([A-Z][a-z]+) and ([A-Z][a-z]+)", pair.clean)
            if name == "ioi_abba":
                assert first[1] == pair.clean_token.strip()
            if name == "ioi_baba":
                assert first[2] == pair.clean_token.strip()


def test_years_are_later_or_earlier(encoded_of):
    for pair in encoded_of("words", "greater_than", "train").pairs:
        year = int(re.search(r"\d{4}", pair.clean)[0][2:])
        assert int(pair.clean_token) > year > int(pair.counterfactual_token)


def test_names_are_checked():
    assert get_suite("python") is PYTHON
    with pytest.raises(BehaviourError, match="Did you mean 'python'"):
        get_suite("pyhton")
    with pytest.raises(BehaviourError, match="Did you mean 'var_swap'"):
        get_behaviour("varswap")


def test_the_same_seed_gives_the_same_pairs(encoded_of, tokenizer_of):
    first = encoded_of("trained", "var_swap", "train")
    encoded_of.cache_clear()
    again = encoded_of("trained", "var_swap", "train")
    assert again is not first and again.pairs == first.pairs and torch.equal(again.ids, first.ids)
    assert encoded_of("trained", "var_swap", "train", 1).pairs != first.pairs
