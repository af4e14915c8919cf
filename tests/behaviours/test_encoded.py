"""The encoder on behaviours small enough to see through."""

from __future__ import annotations

import random

import pytest
import torch

from bridges.behaviours import (
    Answer,
    Behaviour,
    BehaviourError,
    Draft,
    NotExpressible,
    Template,
    TemplateBehaviour,
    encode,
)


class Listed(Behaviour):
    """The given drafts, once."""

    name, description, min_pairs = "listed", "", 1

    def __init__(self, *drafts: Draft) -> None:
        self.listed = drafts

    def templates(self, split):
        return tuple(dict.fromkeys(d.template for d in self.listed))

    def drafts(self, rng, split):
        yield from self.listed


def draft(clean, clean_next, counterfactual, counterfactual_next, whole=1):
    return Draft(clean, Answer(clean_next, whole), counterfactual, Answer(counterfactual_next, whole), "t")


def test_the_token_is_what_a_document_would_have(tokenizer_of):
    lines = draft("if x", ":\n", "y = x", "\n")
    by_bytes = encode(Listed(lines), tokenizer_of("bytes")).pairs[0]
    assert (by_bytes.clean_token, by_bytes.counterfactual_token) == (":", "\n")
    by_pieces = encode(Listed(lines), tokenizer_of("trained")).pairs[0]
    assert (by_pieces.clean_token, by_pieces.counterfactual_token) == (":\n", "\n")


def test_reasons_to_refuse_a_pair(tokenizer_of):
    cases = {
        "merges with the last token of the prompt": draft("if x:", "\n", "y = x", "\n"),
        "ends in a space": draft("x = ", "y\n", "z = ", "w\n"),
        "begin with the same token": draft("if x", ":\n", "while x", ":\n"),
        "more than one token": draft("x =", " zyxwv\n", "y =", " vwxyz\n", whole=6),
        "after the other prompt": draft("with f(x)", " as y", "with z", ":\n"),
        "occurs twice": draft("x", ":\n", "x", "\n"),
    }
    for reason, bad in cases.items():
        with pytest.raises(NotExpressible) as caught:
            encode(Listed(bad), tokenizer_of("trained"))
        assert reason in str(caught.value)


def test_no_prompt_twice_and_equal_lengths_first(tokenizer_of):
    drafts = [
        draft("if longer_name", ":\n", "x = 1", "\n"),  # unequal in bytes
        draft("if a", ":\n", "b=a2", "\n"),
        draft("if a", ":\n", "c=a2", "\n"),  # its clean prompt was there before
        draft("if d", ":\n", "e=d2", "\n"),
    ]
    encoded = encode(Listed(*drafts), tokenizer_of("bytes"))
    assert [p.clean for p in encoded.pairs] == ["if a", "if d", "if longer_name"]
    assert encoded.equal_length.tolist() == [True, True, False]
    assert encoded.dropped == {"a prompt occurs twice": 1}
    assert encoded.note == "3 different pairs could be drawn, 512 were asked for"
    assert encoded.lengths.tolist() == [[4, 4], [4, 4], [14, 5]] and encoded.ids.shape == (3, 2, 14)
    two = encoded.take([1, 0])
    assert [p.clean for p in two.pairs] == ["if d", "if a"] and two.ids.shape == (2, 2, 4)
    assert torch.equal(two.candidates, encoded.candidates[[1, 0]])


def test_document_token_comes_first(tokenizer_of):
    tokenizer = tokenizer_of("trained")
    encoded = encode(Listed(draft("if x", ":\n", "y = x", "\n")), tokenizer)
    assert (encoded.ids[:, :, 0] == tokenizer.bos_token_id).all()
    assert encoded.lengths.tolist() == [[3, 4]]
    assert encoded.ids[0, 0, 3] == tokenizer.pad_token_id


def test_templates_share_alike_and_others_make_up_for_one_that_fails(tokenizer_of):
    behaviour = TemplateBehaviour(
        "b",
        "",
        cue={"kw": ("if ", "x ="), "end": (":\n", "\n")},
        heldout=["$kw|$end"],
        train=["$name2, $name3 = $num\n$kw $name|$end", "$name2 = $num\n$kw $name|$end", "$kw $name:|$end"],
    )
    encoded = encode(behaviour, tokenizer_of("trained"), n=90)
    counts = [sum(p.template == t for p in encoded.pairs) for t in behaviour.templates("train")]
    assert counts == [45, 45, 0] and len(encoded) == 90


def test_slots():
    behaviour = TemplateBehaviour(
        "b",
        "",
        train=[Template("$a$b $name ${name2}s name|$a$b| x", {"a": ("A", "$b"), "b": ("B", "C")})],
        heldout=["$nothing|x"],
    )
    made = next(behaviour.drafts(random.Random(0), "train"))
    first, second = made.fillers
    assert first != second and "name" not in made.fillers  # a word of the template is no filler
    assert made.clean == f"AB {first} {second}s name" and made.counterfactual == f"CC {first} {second}s name"
    assert made.clean_answer == Answer("AB x", 2) and made.counterfactual_answer == Answer("CC x", 2)
    with pytest.raises(BehaviourError, match=r"no fillers for the slot \$nothing"):
        next(behaviour.drafts(random.Random(0), "heldout"))


def test_bad_arguments(tokenizer_of):
    with pytest.raises(BehaviourError, match="Split 'test'"):
        encode(Listed(), tokenizer_of("bytes"), "test")
    with pytest.raises(BehaviourError, match="At least one"):
        encode(Listed(), tokenizer_of("bytes"), n=0)
    with pytest.raises(NotExpressible, match="0 of 0"):
        encode(Listed(), tokenizer_of("bytes"))
