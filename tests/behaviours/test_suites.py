"""The two suites: enough pairs, splits that share nothing, and labels that independent rules confirm."""

from __future__ import annotations

import codeop
import random
import re
from itertools import islice

import pytest
import torch

from bridges.behaviours import (
    PYTHON,
    SPLITS,
    SUITES,
    BehaviourError,
    NotExpressible,
    get_behaviour,
    get_suite,
)

ALL = [name for suite in SUITES.values() for name in suite]
BYTES_CANNOT = {
    "class_init",
    "bracket_brace",
    "bracket_counting",
    "else_elif",
    "var_swap",
    "indent_for",
    "if_equals",
    "enumerate_range",
}
CASES = (
    [("trained", name) for name in PYTHON]
    + [("bundled", name) for name in PYTHON]
    + [("bytes", name) for name in PYTHON if name not in BYTES_CANNOT]
    + [("words", name) for name in SUITES["english"]]
)


# --- rules, written from the meaning of Python and without a look at the templates ----------------


def _line(prompt: str) -> str:
    return prompt.splitlines()[-1].strip()


def _starts(options: tuple[str, str], text: str) -> str:
    """The one option that `text` begins with, or that begins with `text`."""
    found = [o for o in options if o.startswith(text) or text.startswith(o)]
    assert len(found) == 1, (options, text)
    return found[0]


def _with(options: tuple[str, str], char: str, has: bool) -> str:
    found = [o for o in options if (char in o) == has]
    assert len(found) == 1, (options, char)
    return found[0]


def _open_quote(prompt: str) -> str:
    quote = ""
    for char in _line(prompt):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
    return quote


def _depth(text: str, pairs: str) -> list[str]:
    """The brackets of `text` that are still open, string literals left out."""
    stack, quote = [], ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in pairs[0::2]:
            stack.append(char)
        elif char in pairs[1::2]:
            stack.pop()
    return stack


def _initial_value(prompt: str, options: tuple[str, str]) -> str:
    name = _line(prompt)
    value = re.findall(rf"(?m)^\s*{re.escape(name)} = (.*)$", prompt)[-1]
    return _starts(options, "." if value == "set()" else " +=")


def _bracket_count(prompt: str, options: tuple[str, str]) -> str:
    depth = _depth(prompt, "[]").count("[")

    def possible(option: str) -> bool:
        closed = len(option) - len(option.lstrip("]"))
        return closed == depth or (closed < depth and option == "]" * closed)

    # A tokenizer takes the longest token that fits: `]` alone says that the one with a line end does not fit.
    return max(filter(possible, options), key=len)


def _opened_file(prompt: str, options: tuple[str, str]) -> str:
    path = _line(prompt).split("open(", 1)[1].rsplit(", ", 1)[0]
    if not re.search(r"['\"]", path):
        name = path.removeprefix("self.")
        bound = re.search(rf"(?m)^\s*{name} = (['\"].*['\"])$", prompt)
        known = re.fullmatch(r"(\w+)_(path|file|filename)", name)
        path = f"'{known[1]}.x'" if known else bound[1]
    stem = re.findall(r"['\"/]([a-z]+)(?:_[a-z_]+)?\.", path)[-1]
    written = {"output", "result", "log", "summary", "out", "results", "report", "export", "dump", "save"}
    read = {"input", "config", "words", "train", "in", "data", "settings", "names", "source", "template"}
    assert (stem in written) != (stem in read), (prompt, stem)
    return _starts(options, "w" if stem in written else "r")


def _with_as(prompt: str, options: tuple[str, str]) -> str:
    head = re.sub(r"\(.*", "", _line(prompt).removeprefix("with "))
    head = "open" if ".open(" in _line(prompt) else head.split(".")[-1]
    return _with(options, ":", head not in {"open", "ZipFile", "TemporaryDirectory"})


def _else_elif(prompt: str, options: tuple[str, str]) -> str:
    if _line(prompt) == "else":
        return _starts(options, ":")
    tested = re.findall(r"(?m)^\s*if (\w+)", prompt)[-1]
    return _starts(options, f" {tested}")


def _indent(prompt: str, options: tuple[str, str]) -> str:
    assert prompt.endswith("\n") and not any(o.strip() for o in options)
    return (max if _line(prompt).endswith(":") else min)(options, key=len)


def _enumerate(prompt: str, options: tuple[str, str]) -> str:
    two = "," in re.search(r"for (.*) in$", _line(prompt))[1]
    return _starts(options, " enumerate" if two else " range")


RULES = {
    "single_double_quote": lambda p, o: _starts(o, _open_quote(p)),
    "final_kwarg": lambda p, o: _starts(o, "=" if "=None" in _line(p) else ")"),
    "set_or_string": _initial_value,
    "set_or_string_fixedvarname": _initial_value,
    "class_init": lambda p, o: _starts(o, " " + re.search(r"self\._?(\w+) =$", p)[1]),
    "with_as": _with_as,
    "bracket_brace": lambda p, o: _with(o, ":", _depth(p.rsplit(_open_quote(p), 1)[0], "()[]{}")[-1] == "{"),
    "with_open": _opened_file,
    "bracket_counting": _bracket_count,
    "for_while": lambda p, o: _starts(o, " in" if _line(p).startswith("for ") else ":"),
    "else_elif": _else_elif,
    "fstring_brace": lambda p, o: _with(o, "}", "{" in p.rsplit(_open_quote(p), 1)[1]),
    "if_ternary": lambda p, o: _starts(o, ":" if _line(p).startswith("if ") else " else"),
    "var_swap": lambda p, o: _starts(o, " " + re.search(r"(\w+), (\w+) =$", p)[2]),
    "indent_for": _indent,
    "lambda_func": lambda p, o: _starts(o, ":" if re.search(r"lambda \w+$", p) else "("),
    "if_equals": lambda p, o: next(x for x in o if ("==" in x) == _line(p).startswith("if ")),
    "enumerate_range": _enumerate,
    "var_if": lambda p, o: _with(o, ":", _line(p).startswith(("if ", "while "))),
    "while_return_true": lambda p, o: _with(o, ":", _line(p).startswith("while ")),
}


# --- tests ----------------------------------------------------------------------------------------


def test_the_python_suite_is_table_1():
    assert list(PYTHON) == list(RULES) and len(PYTHON) == 20


@pytest.mark.parametrize(("kind", "name"), [c for c in CASES if c[0] != "words"])
def test_labels_are_right_by_rule(encoded_of, kind, name):
    for split in SPLITS:
        for pair in encoded_of(kind, name, split).pairs:
            options = tuple(sorted((pair.clean_token, pair.counterfactual_token)))
            assert RULES[name](pair.clean, options) == pair.clean_token, pair
            assert RULES[name](pair.counterfactual, options) == pair.counterfactual_token, pair


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_enough_pairs_and_one_token_each(encoded_of, tokenizer_of, kind, name):
    tokenizer = tokenizer_of(kind)
    start = 0 if kind == "bytes" else 1
    prompts: dict[str, set[str]] = {}
    for split in SPLITS:
        encoded = encoded_of(kind, name, split)
        assert 64 <= len(encoded) <= 96
        assert encoded.ids.shape[:2] == encoded.lengths.shape == encoded.candidates.shape == (len(encoded), 2)
        assert (encoded.candidates[:, 0] != encoded.candidates[:, 1]).all()
        assert encoded.lengths.max() == encoded.ids.shape[2] <= (256 if kind == "bytes" else 100)
        seen = [p for pair in encoded.pairs for p in (pair.clean, pair.counterfactual)]
        assert len(set(seen)) == len(seen)
        prompts[split] = set(seen)
        for i, pair in enumerate(encoded.pairs):
            tokens = (pair.clean_token, pair.counterfactual_token)
            for side, prompt in enumerate((pair.clean, pair.counterfactual)):
                assert not prompt.endswith(" ")
                base = tokenizer(prompt, add_special_tokens=False)["input_ids"]
                assert encoded.ids[i, side, start : encoded.lengths[i, side]].tolist() == base
                for other in (side, 1 - side):  # the right and the wrong candidate
                    longer = tokenizer(prompt + tokens[other], add_special_tokens=False)["input_ids"]
                    assert longer == [*base, int(encoded.candidates[i, other])]
    assert not prompts["train"] & prompts["heldout"]


@pytest.mark.parametrize("name", ALL)
def test_splits_share_no_template_and_no_filler(name):
    behaviour = get_behaviour(name)
    fillers, texts = {}, {}
    for split in SPLITS:
        drafts = list(islice(behaviour.drafts(random.Random(0), split), 1200))
        assert {d.template for d in drafts} == set(behaviour.templates(split))
        assert len(behaviour.templates(split)) >= 3
        fillers[split] = {f for d in drafts for f in d.fillers}
        texts[split] = {t.text for t in behaviour._templates[split].values()}
    assert not fillers["train"] & fillers["heldout"]
    assert not texts["train"] & texts["heldout"]


@pytest.mark.parametrize("name", list(PYTHON))
def test_prompt_and_answer_are_python_so_far(name):
    for split in SPLITS:
        for draft in islice(get_behaviour(name).drafts(random.Random(3), split), 60):
            for source in (
                draft.clean + draft.clean_answer.text,
                draft.counterfactual + draft.counterfactual_answer.text,
            ):
                try:
                    codeop.compile_command(source, symbol="exec")
                except SyntaxError as error:
                    # Without the body that would follow, a block is incomplete, not wrong.
                    assert "expected" in str(error) and "block" in str(error), (source, error)


def test_what_bytes_and_python_tokens_cannot_express_is_reported(encoded_of):
    for name in BYTES_CANNOT:
        with pytest.raises(NotExpressible, match=r"0 of \d+ train pairs") as caught:
            encoded_of("bytes", name, "train")
        error = caught.value
        assert error.kept == 0 and error.tried == sum(error.reasons.values()) and error.example
    with pytest.raises(NotExpressible, match="more than one token"):
        encoded_of("trained", "ioi", "train")


def test_two_way_answers_of_the_indirect_object(encoded_of):
    for name in ("ioi", "ioi_abba", "ioi_baba", "ioi_same_gender", "ioi_opposite_gender"):
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
