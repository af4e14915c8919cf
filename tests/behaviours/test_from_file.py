"""Behaviours from a file: what is read, and the line that each error names."""

from __future__ import annotations

import json
import random

import pytest

from bridges.behaviours import SPLITS, BehaviourError, NotExpressible, encode, load
from bridges.behaviours.stage import express


def row(i: int, **changes) -> dict:
    prompts = {"clean": f"if x{i}", "counterfactual": f"y = x{i}"}
    return {**prompts, "clean_token": ":", "counterfactual_token": "\n", **changes}


def write(path, *rows) -> str:
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows), encoding="utf-8")
    return str(path)


def test_pairs_are_read_grouped_and_encoded(tmp_path, tokenizer_of):
    path = write(
        tmp_path / "mine.jsonl",
        row(1, split="train"),
        "",
        row(2, split="heldout"),
        row(3, split="train", behaviour="other"),
        row(4, split="train"),
    )
    loaded = load(path, tokenizer_of("bytes"))
    assert list(loaded) == ["mine", "other"]
    train = encode(loaded["mine"], tokenizer_of("bytes"), "train")
    assert {p.clean for p in train.pairs} == {"if x1", "if x4"} and "2 different pairs" in train.note
    assert {(p.clean_token, p.counterfactual_token) for p in train.pairs} == {(":", "\n")}
    assert len(encode(loaded["mine"], tokenizer_of("bytes"), "heldout")) == 1
    with pytest.raises(NotExpressible, match="no such pairs"):
        encode(loaded["other"], tokenizer_of("bytes"), "heldout")


def test_pairs_without_a_split_are_dealt_out(tmp_path, tokenizer_of):
    rows = [row(i) for i in range(20)]
    rows.append({**row(0), "counterfactual": "z = 5"})  # shares a prompt with the first
    tokenizer = tokenizer_of("bytes")

    def prompts(*given):
        loaded = load(write(tmp_path / "f.jsonl", *given))["f"]
        drafts = {split: list(loaded.drafts(random.Random(0), split)) for split in SPLITS}
        return {split: {p for d in drafts[split] for p in (d.clean, d.counterfactual)} for split in SPLITS}

    split = prompts(*rows)
    assert split.pop("reach") == set()
    assert not split["train"] & split["heldout"] and min(map(len, split.values())) >= 16
    assert prompts(*rows[::-1]) == {**split, "reach": set()}
    assert len(encode(load(tmp_path / "f.jsonl")["f"], tokenizer, "train")) >= 9


@pytest.mark.parametrize(
    ("rows", "line", "message"),
    [
        ([row(1), '{"clean": '], 2, "no JSON"),
        (["[1]"], 1, "a JSON object is expected, not list"),
        ([row(1), {k: v for k, v in row(2).items() if k != "clean_token"}], 2, "missing clean_token"),
        ([row(1), "", row(2, counterfactual="if x2")], 3, "the same prompt"),
        ([row(1, counterfactual_token=":")], 1, "the same answer ':'"),
        ([row(1), row(2, clean_token="::")], 2, "more than one token"),
        ([row(1), row(2, clean="if ", clean_token=" x")], 2, "more than one token"),
        ([row(1, split="train"), row(1, counterfactual="z", split="heldout")], 2, "two splits, heldout here"),
        ([row(1, split="test")], 1, "valid: train, heldout, reach"),
        ([row(1, clean=3)], 1, "clean has to be a text"),
        ([row(1, clean_tokens=":")], 1, "unknown clean_tokens"),
    ],
)
def test_errors_name_the_line(tmp_path, tokenizer_of, rows, line, message):
    path = write(tmp_path / "broken.jsonl", *rows)
    with pytest.raises(BehaviourError) as caught:
        load(path, tokenizer_of("bytes"))
    assert message in str(caught.value) and f"broken.jsonl, line {line}:" in str(caught.value)


def test_a_pair_that_cannot_be_expressed_is_not_dropped_in_silence(tmp_path, tokenizer_of):
    path = write(tmp_path / "f.jsonl", row(1, split="train"), row(2, split="train", clean_token="::"))
    with pytest.raises(BehaviourError, match=r"line 2: the answer is more than one token"):
        encode(load(path)["f"], tokenizer_of("bytes"), "train")


def test_empty_and_missing_files(tmp_path):
    with pytest.raises(BehaviourError, match="is empty"):
        load(write(tmp_path / "empty.jsonl", "", "  "))
    with pytest.raises(BehaviourError, match="Cannot read"):
        load(tmp_path / "nowhere.jsonl")


def test_pairs_that_are_joined_by_a_prompt_come_to_one_split(tmp_path, tokenizer_of):
    # a–b, c–d and b–c: whichever order the hash puts them in, no prompt may come to both splits.
    for shift in range(12):
        names = [f"{letter}{shift}" for letter in "abcd"]
        links = ((0, 1), (2, 3), (1, 2))
        rows = [row(0, clean=names[i], counterfactual=names[j]) for i, j in links]
        path = write(tmp_path / f"chain{shift}.jsonl", *rows, *(row(n) for n in range(3)))
        found = load(path)[f"chain{shift}"]
        drawn = [found.drafts(random.Random(0), split) for split in ("train", "heldout")]
        sides = [{p for d in drafts for p in (d.clean, d.counterfactual)} for drafts in drawn]
        assert not sides[0] & sides[1] and any(set(names) <= side for side in sides)
        assert all(sides) and len(sides[0] | sides[1]) == 10


def test_reach_holds_what_the_file_says(tmp_path, tokenizer_of):
    rows = [row(1, split="train"), row(2, split="heldout"), row(3, split="reach"), row(4, split="reach")]
    given = load(write(tmp_path / "f.jsonl", *rows), tokenizer_of("bytes"))["f"]
    reach = encode(given, tokenizer_of("bytes"), "reach")
    assert {p.clean for p in reach.pairs} == {"if x3", "if x4"} and {p.template for p in reach.pairs} == {"reach-file"}
    expressed = express(given, tokenizer_of("bytes"), 8, 0)
    assert expressed.reach is not None and expressed.reach.pairs == reach.pairs
    without = load(write(tmp_path / "g.jsonl", *(row(i) for i in range(4))))["g"]
    with pytest.raises(NotExpressible, match="no such pairs"):
        encode(without, tokenizer_of("bytes"), "reach")
    expressed = express(without, tokenizer_of("bytes"), 8, 0)
    assert expressed.reach is None and expressed.train is not None and expressed.heldout is not None
    with pytest.raises(BehaviourError, match="two splits, reach here and train"):
        load(write(tmp_path / "h.jsonl", row(1, split="train"), row(1, clean="if y", split="reach")))


def test_pairs_of_a_file_need_not_be_aligned(tmp_path, tokenizer_of):
    uneven = row(1, clean="while x1 > 2", split="train")
    encoded = encode(load(write(tmp_path / "f.jsonl", uneven))["f"], tokenizer_of("bytes"), "train")
    assert encoded.equal_length.tolist() == [False] and encoded.shared_last.tolist() == [False]
