"""The generated corpus component: deterministic, valid, balanced, and of the size asked for."""

from __future__ import annotations

import ast
import hashlib
import os
import random
import re
import subprocess
import sys
from itertools import islice

import pytest

from bridges.data.idioms import IDIOMS, MAX_CHARS, MIN_CHARS, documents

# idiom -> the texts by which one branch and the other are recognised
BRANCHES = {
    "single_double_quote": (r"(?m)'\)$", r'(?m)"\)$'),
    "final_kwarg": (r"def \w+\(.*=\w+\):", r"def \w+\([^=]*\):"),
    "set_or_string": (
        r"(?m)^ *(\w+) = set\(\)\n(?:.*\n)*? *\1\.add\(",
        r"(?m)^ *(\w+) = (?:''|\"\")\n(?:.*\n)*? *\1 \+=",
    ),
    "set_or_string_fixedvarname": (r"\bcurrent\.add\(", r"\bcurrent \+="),
    "with_as": (r"(?m)^ *with .* as \w+:$", r"(?m)^ *with (?!.* as ).*:$"),
    "bracket_brace": (r"\{\s*(?:['\"][^'\"]*['\"]|[\d.]+):", r"\[\s*(?:['\"][^'\"]*['\"]|[\d.]+),(?!.*\}\s*$)"),
    "with_open": (r"open\(.*, ['\"]w['\"]\)", r"open\(.*, ['\"]r['\"]\)"),
    "for_while": (r"(?m)^ *for .* in .*:$", r"(?m)^ *while .*:$"),
    "if_ternary": (r"(?m)^ *if .*:$", r"\S if .* else \S"),
    "lambda_func": (r"\blambda \w+(?:, \w+)?: ", r"^(?!.*lambda)(?s:.*)\w\(\w+(?:, \w+)?\)"),
    "enumerate_range": (r"\bin enumerate\(", r"\bin range\("),
    "while_return_true": (r"while (?:True|False|1):", r"return (?:True|False|1)\b"),
}


def test_deterministic_in_seed():
    first = list(documents(60_000, seed=3))
    assert first == list(documents(60_000, seed=3))
    assert first != list(documents(60_000, seed=4))
    assert list(documents(20_000, seed=3)) == first[: len(list(documents(20_000, seed=3)))]


def test_text_is_pinned():
    """The corpus is part of a trained model's record: a change of even one draw must be deliberate."""
    text = "\0".join(documents(400_000, seed=0)) + "\0"
    known = "baeb8f25e8bc2e2359d9863b09c64ef71e505437ae76962d8c3854602d3ae92b"
    assert hashlib.sha256(text.encode()).hexdigest() == known


def test_text_does_not_depend_on_the_hash_seed():
    code = (
        "import hashlib; from bridges.data.idioms import documents; "
        "print(hashlib.sha256(''.join(documents(20_000, 3)).encode()).hexdigest())"
    )
    env = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    there = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == hashlib.sha256("".join(documents(20_000, 3)).encode()).hexdigest()


def test_documents_are_valid_python_of_the_stated_length():
    for doc in documents(1_500_000, seed=11):
        ast.parse(doc)
        assert MIN_CHARS <= len(doc) <= MAX_CHARS
        assert "\t" not in doc and doc.endswith("\n")


@pytest.mark.parametrize("name", sorted(IDIOMS))
def test_each_snippet_parses_and_varies(name):
    r = random.Random(5)
    made = [IDIOMS[name](r) for _ in range(1000)]
    for snippet in made:
        ast.parse(snippet)
    assert len(set(made)) > 950


@pytest.mark.parametrize("name", sorted(BRANCHES))
def test_branches_are_equally_frequent(name):
    r = random.Random(7)
    made = [IDIOMS[name](r) for _ in range(3000)]
    one, other = (sum(bool(re.search(p, s)) for s in made) for p in BRANCHES[name])
    assert min(one, other) > 500
    assert abs(one - other) / ((one + other) / 2) < 0.2


def test_quote_styles_are_balanced_in_documents():
    text = "".join(documents(4_000_000, seed=2))
    single, double = text.count("')"), text.count('")')
    assert single > 3000
    assert abs(single - double) / ((single + double) / 2) < 0.05


def test_all_idioms_reach_the_documents():
    text = "".join(islice(documents(400_000, seed=9), 400))
    marks = ("current.add(", "self.", " as f:", "]]", "while True:", "elif ", "lambda ", "enumerate(", "f'", 'f"')
    for mark in marks:
        assert mark in text


@pytest.mark.parametrize("n", [50_000, 400_000])
def test_size_target(n):
    assert abs(sum(map(len, documents(n, seed=1))) - n) / n < 0.05
