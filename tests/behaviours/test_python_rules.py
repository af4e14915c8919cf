"""The answers of the Python suite, confirmed by rules that were written from the meaning of Python alone."""

from __future__ import annotations

import codeop
import random
import re
from itertools import islice

import pytest

from bridges.behaviours import PYTHON, SPLITS


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


def _bracket_brace(prompt: str, options: tuple[str, str]) -> str:
    quote = _open_quote(prompt)
    text = prompt.rsplit(quote, 1)[0] if quote else prompt
    return _with(options, ":", _depth(text, "()[]{}")[-1] == "{")


def _bracket_count(prompt: str, options: tuple[str, str]) -> str:
    depth = _depth(prompt, "[]").count("[")

    def possible(option: str) -> bool:
        closed = len(option) - len(option.lstrip("]"))
        return closed == depth or (closed < depth and option == "]" * closed)

    # A tokenizer takes the longest token that fits: `]` alone says that the one with a line end does not fit.
    return max(filter(possible, options), key=len)


WRITTEN = {"output", "result", "log", "summary", "out", "results", "report", "export", "dump", "save"}
READ = {"input", "config", "words", "train", "in", "data", "settings", "names", "source", "template"}


def _opened_file(prompt: str, options: tuple[str, str]) -> str:
    path = _line(prompt).split("open(", 1)[1].rsplit(", ", 1)[0]
    if not re.search(r"['\"]", path):
        name = path.split(".")[-1]
        known = re.fullmatch(r"(\w+)_(path|file|filename)", name)
        path = f"'{known[1]}.x'" if known else re.search(rf"(?m)^\s*{name} = (['\"].*['\"])$", prompt)[1]
    stem = re.findall(r"['\"/]([a-z]+)(?:_[a-z_]+)?\.", path)[-1]
    assert (stem in WRITTEN) != (stem in READ), (prompt, stem)
    return _starts(options, "w" if stem in WRITTEN else "r")


def _with_as(prompt: str, options: tuple[str, str]) -> str:
    head = re.match(r"with ([\w.]+)\(", _line(prompt))[1].split(".")[-1]
    binds = {"open", "connect", "Popen", "fdopen", "urlopen"}
    assert (head in binds) != (head in {"cd", "device", "suppress", "errstate"}), head
    return _with(options, ":", head not in binds)


def _indent(prompt: str, options: tuple[str, str]) -> str:
    last = prompt.splitlines()[-1]
    assert prompt.endswith(":\n") and last.strip().startswith("for ") and not any(o.strip() for o in options)
    deeper = len(last) - len(last.lstrip()) + 4
    # The last space may belong to the word that follows it.
    return next(option for option in options if len(option) in (deeper - 1, deeper))


def _if_equals(prompt: str, options: tuple[str, str]) -> str:
    tested = _line(prompt).startswith(("if ", "while ")) and ":" not in _line(prompt)
    return next(option for option in options if ("==" in option) == tested)


def _enumerate(prompt: str, options: tuple[str, str]) -> str:
    two = "," in re.search(r"for (.*) in$", _line(prompt))[1]
    return _starts(options, " enumerate" if two else " range")


RULES = {
    "single_double_quote": lambda p, o: _starts(o, _open_quote(p)),
    "final_kwarg": lambda p, o: _starts(o, "=" if re.search("=(None|0|False)", _line(p)) else ")"),
    "set_or_string": _initial_value,
    "set_or_string_fixedvarname": _initial_value,
    "class_init": lambda p, o: next(x for x in o if x == " " + re.search(r"self\._?(\w+) =$", p)[1]),
    "with_as": _with_as,
    "bracket_brace": _bracket_brace,
    "with_open": _opened_file,
    "bracket_counting": _bracket_count,
    "for_while": lambda p, o: _starts(o, " in" if _line(p).startswith("for ") else ":"),
    "else_elif": lambda p, o: _with(o, ":", _line(p).startswith("elif ")),
    "fstring_brace": lambda p, o: _with(o, "}", "{" in p.rsplit(_open_quote(p), 1)[1]),
    "if_ternary": lambda p, o: _starts(o, ":" if _line(p).startswith("if ") else " else"),
    "var_swap": lambda p, o: next(x for x in o if x == " " + re.search(r"(\w+), (\w+) =$", p)[2]),
    "indent_for": _indent,
    "lambda_func": lambda p, o: _starts(o, ":" if re.search(r"lambda \w+$", p) else "("),
    "if_equals": _if_equals,
    "enumerate_range": _enumerate,
    "var_if": lambda p, o: _with(o, ":", _line(p).startswith(("if ", "while "))),
    "while_return_true": lambda p, o: _with(o, ":", _line(p).startswith("while ")),
}


# --- tests ----------------------------------------------------------------------------------------


def test_the_python_suite_is_table_1():
    assert list(PYTHON) == list(RULES) and len(PYTHON) == 20


@pytest.mark.parametrize("name", RULES)
def test_labels_are_right_by_rule(encoded_of, name):
    for split in SPLITS:
        for pair in encoded_of("bundled", name, split).pairs:
            options = tuple(sorted((pair.clean_token, pair.counterfactual_token)))
            assert RULES[name](pair.clean, options) == pair.clean_token, pair
            assert RULES[name](pair.counterfactual, options) == pair.counterfactual_token, pair


@pytest.mark.parametrize("name", RULES)
def test_prompt_and_answer_are_python_so_far(name):
    for split in SPLITS:
        for draft in islice(PYTHON[name].drafts(random.Random(3), split), 80):
            for source in (
                draft.clean + draft.clean_answer.text,
                draft.counterfactual + draft.counterfactual_answer.text,
            ):
                try:
                    codeop.compile_command(source, symbol="exec")
                except SyntaxError as error:
                    # Without the body that would follow, a block is incomplete, not wrong.
                    assert "expected" in str(error) and "block" in str(error), (source, error)


def test_with_open_has_every_word_in_every_split(encoded_of):
    # The word is the behaviour: a split without it would ask for another one.
    for split, words in (("train", READ | WRITTEN), ("heldout", READ | WRITTEN)):
        prompts = "\n".join(
            pair.clean + pair.counterfactual for pair in encoded_of("bundled", "with_open", split).pairs
        )
        assert sum(bool(re.search(rf"(?<![a-z]){word}[._]", prompts)) for word in words) >= 15
