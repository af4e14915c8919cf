"""The encoder on behaviours small enough to see through."""

from __future__ import annotations

import random
from collections import Counter
from itertools import islice
from string import ascii_letters

import pytest
import torch

from bridges.behaviours import (
    SPLITS,
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


CUE = {"kw": ("if not", "x ="), "end": (":\n", "\n")}


def test_frames_take_turns_and_others_make_up_for_one_that_fails(tokenizer_of):
    frames = ["$name2, $name3 = $num\n$kw $name|$end", "$name2 = $num\n$kw $name|$end", "$kw $name:|$end"]
    behaviour = TemplateBehaviour("b", "", cue=CUE, frames=frames)
    encoded = encode(behaviour, tokenizer_of("trained"), n=90)
    counts = [sum(p.template == t for p in encoded.pairs) for t in behaviour.templates("train")]
    assert counts == [45, 45, 0] and len(encoded) == 90
    assert encoded.note == "1 of 3 frames give no pair with this tokenizer"
    assert [p.template for p in encoded.pairs[:4]] == ["frame-1", "frame-2"] * 2


def test_pairs_of_a_grammar_are_equally_long_and_end_alike(tokenizer_of):
    frames = [f"$item = $num\n{line}|$end" for line in ("$kw $name", "$longer $name", "$kw $ends")]
    cue = {**CUE, "longer": ("if", "x ="), "ends": ("y", "z")}
    encoded = encode(TemplateBehaviour("b", "", frames=frames, cue=cue), tokenizer_of("trained"), n=64)
    assert {p.template for p in encoded.pairs} == {"frame-1"}
    assert encoded.equal_length.all() and encoded.shared_last.all()
    assert encoded.dropped["the prompts are not equally long"] >= 200
    assert encoded.dropped["the prompts do not end in the same token"] >= 20
    with pytest.raises(NotExpressible, match="x the prompts are not equally long"):
        encode(TemplateBehaviour("b", "", frames=frames[1:2], cue=cue), tokenizer_of("trained"), n=64)


def test_shared_last_is_read_at_the_end_of_each_prompt(tokenizer_of):
    drafts = [draft("a = b1", "\n", "if b1", ":\n"), draft("a = b2", "\n", "if b3", ":\n")]
    encoded = encode(Listed(*drafts), tokenizer_of("bytes"))
    assert encoded.equal_length.tolist() == [False, False] and encoded.shared_last.tolist() == [True, False]


def test_slots():
    behaviour = TemplateBehaviour(
        "b", "", frames=[Template("$a$b $name ${name2}s name|$a$b| x", {"a": ("A", "$b"), "b": ("B", "C")})]
    )
    made = next(behaviour.drafts(random.Random(0), "train"))
    first, second = made.fillers
    assert first != second and "name" not in made.fillers  # a word of the frame is no filler
    assert made.clean == f"AB {first} {second}s name" and made.counterfactual == f"CC {first} {second}s name"
    assert made.clean_answer == Answer("AB x", 2) and made.counterfactual_answer == Answer("CC x", 2)
    with pytest.raises(BehaviourError, match=r"no fillers for the slot \$nothing"):
        TemplateBehaviour("b", "", frames=["$nothing|x"])
    with pytest.raises(BehaviourError, match="needs one or two marks"):
        TemplateBehaviour("b", "", frames=["$name x"])
    few = TemplateBehaviour("b", "", frames=["$kind $kind2|x"], fillers={"kind": ("only",)})
    with pytest.raises(BehaviourError, match="too few fillers of kind 'kind'"):
        next(few.drafts(random.Random(0), "train"))


def test_a_context_stands_before_both_prompts_with_words_of_its_own():
    contexts = ("", "# $name\n", "$name2 = 1\n")
    behaviour = TemplateBehaviour("b", "", frames=["$kw $name|$end"], cue=CUE, contexts=contexts)
    drafts = list(islice(behaviour.drafts(random.Random(0), "train"), 300))
    leads = Counter()
    for made in drafts:
        lead, _, line = made.clean.rpartition("\n")
        assert made.counterfactual.rpartition("\n")[0] == lead
        assert line == f"if not {made.fillers[-1]}" and made.fillers[-1] not in lead.split()
        leads[lead.replace(made.fillers[0], "")] += 1
    assert leads.keys() == {"", "# ", " = 1"} and min(leads.values()) > 60


def test_a_prompt_is_in_one_split_whatever_the_seed():
    cue = {"kw": ("if not", "$name2 ="), "end": (":\n", "\n")}  # `if not x` stands beside many assignments
    behaviour = TemplateBehaviour(
        "b", "", frames=["$kw $name|$end"], reach=["while True:\n    $kw $name|$end"], cue=cue
    )

    def prompts(split, seed):
        drafts = islice(behaviour.drafts(random.Random(seed), split), 400)
        return {p for d in drafts for p in (d.clean, d.counterfactual)}

    train, heldout = (set().union(*(prompts(split, seed) for seed in range(3))) for split in ("train", "heldout"))
    assert not train & heldout and min(len(train), len(heldout)) > 400
    tested = [sum(p.startswith("if") for p in part) for part in (train, heldout)]
    assert sum(tested) == len(behaviour.pools["name"]) and min(tested) > 30  # about half of the words each
    assert all(p.startswith("while") for p in prompts("reach", 0)) and not prompts("reach", 0) & (train | heldout)
    assert next(TemplateBehaviour("b", "", frames=["x|y"]).drafts(random.Random(0), "reach"), None) is None


def test_a_frame_without_a_prompt_in_the_split_is_passed_over():
    # Each frame has two prompts in all: they are both in one split, or the frame has no pair.
    cue = {"a": ("1", "2")}
    frames = {word: TemplateBehaviour("b", "", frames=[f"{word} $a|$a"], cue=cue) for word in ascii_letters}
    both = TemplateBehaviour("b", "", frames=[f"{word} $a|$a" for word in frames], cue=cue)
    found = {split: {d.clean[0] for d in islice(both.drafts(random.Random(0), split), 100)} for split in SPLITS[:2]}
    assert not found["train"] & found["heldout"] and all(found.values())
    lost = frames.keys() - found["train"] - found["heldout"]
    assert lost and not any(list(frames[word].drafts(random.Random(0), "train")) for word in lost)


def test_bad_arguments(tokenizer_of):
    with pytest.raises(BehaviourError, match="Split 'test'"):
        encode(Listed(), tokenizer_of("bytes"), "test")
    with pytest.raises(BehaviourError, match="At least one"):
        encode(Listed(), tokenizer_of("bytes"), n=0)
    with pytest.raises(NotExpressible, match="0 of 0"):
        encode(Listed(), tokenizer_of("bytes"))
