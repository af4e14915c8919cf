"""Rows as MIB's data sets have them become behaviours."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pandas as pd
import pytest

from bridges.behaviours import SPLITS, BehaviourError, encode, load
from bridges.data.tokenizer import train_tokenizer


def ioi(io: str, s: str, **changes) -> dict:
    prompt = "Then, {} and {} went to the park. {} gave a ball to"
    flipped = {"prompt": prompt.format(io, s, io), "choices": [s, io], "answerKey": 0}
    return {
        "prompt": prompt.format(io, s, s),
        "template": prompt,
        "metadata": {"indirect_object": io, "subject": s, "random_c": "Zoe"},
        "choices": [io, s],
        "answerKey": 0,
        "abc_counterfactual": {"prompt": "x", "choices": ["a"], "answerKey": 0},
        "s2_io_flip_counterfactual": flipped,
        **changes,
    }


def mcqa(right: int) -> dict:
    def asked(labels: list[str], key: int) -> dict:
        lines = "\n".join(f"{label}. {colour}" for label, colour in zip(labels, ("red", "blue"), strict=True))
        question = f"A box is {('red', 'blue')[key]}. What colour is it?\n{lines}\nAnswer: "
        return {"prompt": question, "choices": {"label": labels, "text": ["red", "blue"]}, "answerKey": key}

    return asked(["A", "B"], right) | {"symbol_counterfactual": asked(["X", "Y"], right)}


def arithmetic(a: int, b: int, operator: str = "+", other: tuple[int, int] | None = (3, 4)) -> dict:
    def asked(a: int, b: int) -> dict:
        return {"prompt": f"What is {a} {operator} {b}? ", "label": a + b if operator == "+" else a - b}

    null = {"prompt": None, "label": None}
    return asked(a, b) | {"operator": operator, "random_counterfactual": asked(*other) if other else null}


@pytest.fixture(scope="module")
def tokenizer():
    names = ["Mary", "John", "Tom", "Ann"]
    texts = [f"Then, {a} and {b} went to the park. {a} gave a ball to {b}" for a in names for b in names] * 20
    return train_tokenizer(texts, 320)


def pairs(behaviour) -> set[tuple[str, str, str, str]]:
    drafts = [d for split in SPLITS for d in behaviour.drafts(random.Random(0), split)]
    return {(d.clean, d.clean_answer.text, d.counterfactual, d.counterfactual_answer.text) for d in drafts}


def write(path: Path, rows: list[dict], form: str) -> Path:
    path = path / f"mib.{form}"
    if form == "parquet":
        pd.DataFrame(rows).to_parquet(path)
    elif form == "json":
        path.write_text(json.dumps(rows, indent=1))
    else:
        path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.mark.parametrize("form", ["jsonl", "json", "parquet"])
def test_indirect_objects(form, tmp_path, tokenizer):
    rows = [ioi("Mary", "John"), ioi("Tom", "Ann")]
    (behaviour,) = load(write(tmp_path, rows, form), tokenizer).values()
    assert behaviour.name == "mib" and not behaviour.strict
    expected = {
        (r["prompt"], f" {r['choices'][0]}", r["s2_io_flip_counterfactual"]["prompt"], f" {r['choices'][1]}")
        for r in rows
    }
    assert pairs(behaviour) == expected
    encoded = encode(behaviour, tokenizer, "train")
    assert {encoded.pairs[0].clean_token, encoded.pairs[0].counterfactual_token} < {" Mary", " John", " Tom", " Ann"}


def test_a_name_of_several_tokens_is_passed_over(tmp_path, tokenizer):
    rows = [ioi("Mary", "John"), ioi("Tom", "Ann"), ioi("Bartholomew", "John"), ioi("Ann", "Wilhelmina")]
    (behaviour,) = load(write(tmp_path, rows, "jsonl"), tokenizer).values()
    assert len(pairs(behaviour)) == 4
    assert sum(len(encode(behaviour, tokenizer, split).pairs) for split in ("train", "heldout")) == 2


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_choices(form, tmp_path):
    (behaviour,) = load(write(tmp_path, [mcqa(0), mcqa(1)], form)).values()
    assert {(first, second) for _, first, _, second in pairs(behaviour)} == {("A", "X"), ("B", "Y")}


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_sums_and_differences_are_two_behaviours(form, tmp_path):
    rows = [arithmetic(1, 2), arithmetic(5, 2, "-"), arithmetic(4, 4, other=None), arithmetic(2, 5)]
    behaviours = load(write(tmp_path, rows, form))
    assert set(behaviours) == {"mib addition", "mib subtraction"}
    # Without a counterfactual, or with the same answer, a row is left out, as in the benchmark.
    assert pairs(behaviours["mib addition"]) == {("What is 1 + 2? ", "3", "What is 3 + 4? ", "7")}
    assert pairs(behaviours["mib subtraction"]) == {("What is 5 - 2? ", "3", "What is 3 - 4? ", "-1")}


@pytest.mark.parametrize(
    "row, words",
    [
        (arithmetic(1, 2) | {"operator": "*"}, r"line 1: .*operator is '\*', known: \+, -"),
        (mcqa(0) | {"answerKey": 2}, "line 1: .*neither a label nor choices"),
        (mcqa(0) | {"choices": None}, "line 1: .*neither a label nor choices"),
    ],
)
def test_rows_of_another_form_are_named(row, words, tmp_path):
    with pytest.raises(BehaviourError, match=words):
        load(write(tmp_path, [row], "jsonl"))


def test_a_damaged_parquet_file_is_one_message(tmp_path):
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(BehaviourError, match="no readable parquet"):
        load(path)
