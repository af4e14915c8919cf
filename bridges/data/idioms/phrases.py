"""Names, values, conditions and plain statements, of which every idiom is composed."""

from __future__ import annotations

from collections.abc import Sequence

from bridges.data.idioms.draws import ModuleRandom, Rng, chance, pick
from bridges.data.idioms.words import (
    ADJECTIVES,
    ATTRS,
    CLASS_ENDS,
    EXTENSIONS,
    FILLERS,
    LETTERS,
    METHODS,
    NOUNS,
    PEOPLE,
    TITLES,
    VERBS,
)


def ind(text: str, depth: int = 1) -> str:
    """`text` with every non-empty line indented by `depth` levels of four spaces."""
    pad = "    " * depth
    return "\n".join(pad + line if line else line for line in text.split("\n"))


def name(r: Rng) -> str:
    """A variable name: a letter, a word, or two words in snake_case."""
    recent = r.recent if isinstance(r, ModuleRandom) else None
    if recent and r.random() < 0.3:
        return pick(r, recent)
    made = _new_name(r)
    if recent is not None:
        recent.append(made)
        del recent[:-8]
    return made


def _new_name(r: Rng) -> str:
    u = r.random()
    if u < 0.16:
        return pick(r, LETTERS)
    if u < 0.6:
        return pick(r, NOUNS)
    return f"{pick(r, ADJECTIVES if u < 0.8 else NOUNS)}_{pick(r, NOUNS)}"


def names(r: Rng, k: int, avoid: Sequence[str] = ()) -> list[str]:
    """`k` different names, none of them in `avoid`."""
    out: list[str] = []
    while len(out) < k:
        n = name(r)
        if n not in out and n not in avoid:
            out.append(n)
    return out


def plural(word: str) -> str:
    """The regular English plural of `word`."""
    if len(word) == 1:
        return word + "_list"  # `as` and `is` are keywords
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")


def pair(r: Rng) -> tuple[str, str]:
    """A loop variable and the collection it runs over."""
    noun = pick(r, NOUNS)
    many = plural(noun)
    if chance(r, 0.3):
        many = f"{pick(r, ADJECTIVES)}_{many}"
    return (noun if chance(r, 0.65) else pick(r, LETTERS)), many


def func(r: Rng) -> str:
    """A function name."""
    u = r.random()
    if u < 0.12:
        return pick(r, VERBS) + "_" + pick(r, ADJECTIVES) + "_" + pick(r, NOUNS)
    if u < 0.2:
        return pick(r, ("f", "g", "func", "main", "helper", "run"))
    return pick(r, VERBS) + "_" + pick(r, NOUNS)


def cls(r: Rng) -> str:
    """A class name in CamelCase."""
    head = pick(r, NOUNS).capitalize()
    return head + (pick(r, CLASS_ENDS) if chance(r, 0.5) else "")


def num(r: Rng) -> str:
    """A number literal, mostly a small integer."""
    u = r.random()
    if u < 0.6:
        return str(r.randrange(11))
    return str(r.randrange(1000)) if u < 0.9 else f"{r.randrange(100)}.{r.randrange(1, 10)}"


def integer(r: Rng) -> str:
    """A non-negative integer literal."""
    return str(r.randrange(11) if chance(r, 0.7) else r.randrange(200))


def text(r: Rng) -> str:
    """The inside of a string literal (no quotes, backslashes or braces)."""
    u = r.random()
    if u < 0.35:
        return pick(r, NOUNS)
    if u < 0.45:
        return pick(r, PEOPLE)
    if u < 0.5:
        return f"{pick(r, NOUNS)}_{pick(r, NOUNS)}"
    if u < 0.55:
        return f"{pick(r, NOUNS)}.{pick(r, EXTENSIONS)}"
    if u < 0.6:
        return f"/{pick(r, NOUNS)}/{plural(pick(r, NOUNS))}"
    words = [pick(r, FILLERS if i % 2 else NOUNS) for i in range(r.randrange(1, 5))]
    return " ".join([pick(r, TITLES), *words]) + pick(r, ("", "", ".", "!", ":", "..."))


def quote(r: Rng) -> str:
    """A quote character."""
    return "'" if r.random() < 0.5 else '"'


def string(r: Rng) -> str:
    """A string literal in either quote style."""
    q = quote(r)
    return q + text(r) + q


def value(r: Rng) -> str:
    """A simple right-hand side."""
    u = r.random()
    if u < 0.3:
        return num(r)
    if u < 0.5:
        return string(r)
    if u < 0.7:
        return name(r)
    if u < 0.85:
        return pick(r, ("None", "True", "False", "[]", "{}", "0", "1", "()"))
    return f"{func(r)}({name(r)})" if u < 0.93 else f"{name(r)}.{pick(r, ATTRS)}"


def cond(r: Rng, v: str) -> str:
    """A condition about the variable `v`; half of the time the bare variable."""
    if chance(r, 0.4):
        return v
    return pick(
        r,
        (
            f"not {v}",
            f"{v} is None",
            f"{v} is not None",
            f"{v} > {num(r)}",
            f"{v} < {num(r)}",
            f"{v} == {num(r)}",
            f"{v} == {string(r)}",
            f"{v} in {pair(r)[1]}",
            f"len({v}) > {num(r)}",
            f"{v}.{pick(r, ATTRS)}",
            f"isinstance({v}, {pick(r, ('int', 'str', 'list', 'dict'))})",
            f"{v} % {r.randrange(2, 6)} == 0",
            f"{v} >= {name(r)}",
            f"{v}.is_{pick(r, ADJECTIVES)}()",
        ),
    )


def stmt(r: Rng, avoid: Sequence[str] = ()) -> str:
    """One unrelated line; it assigns to nothing in `avoid`."""
    n, m = names(r, 2, avoid)
    u = r.random()
    if u < 0.4:
        return f"{n} = {value(r)}"
    return pick(
        r,
        (
            f"print({string(r)})",
            f"print({n})",
            f"{n}.{pick(r, METHODS)}({m})",
            f"{func(r)}({n}, {m})",
            f"{n} = {m} {pick(r, '+-*')} {num(r)}",
            f"{n} = len({m})",
            f"{n} = {m}.{pick(r, METHODS)}()",
            f"{n} = {m}[{num(r)}]",
            f"{n} += 1",
            f"{n} = {func(r)}({string(r)})",
            f"{n}[{string(r)}] = {m}",
            f"{n} = [{num(r)}, {num(r)}]",
            f"assert {n} is not None",
            f"{n}.append({m})",
            f"{n}, {m} = {func(r)}()",
        ),
    )


def comment(r: Rng) -> str:
    """A short comment or docstring sentence."""
    noun = pick(r, NOUNS)
    return pick(
        r,
        (
            f"{pick(r, VERBS)} the {noun}",
            f"{pick(r, VERBS)} each {noun} once",
            f"TODO: check {noun}",
            f"{pick(r, ADJECTIVES)} {noun} first",
            f"{plural(noun)} of the {pick(r, NOUNS)}",
            f"return the {pick(r, ADJECTIVES)} {noun}",
            f"this {noun} is {pick(r, ADJECTIVES)}",
        ),
    )


def filler(r: Rng, most: int = 2, avoid: Sequence[str] = ()) -> str:
    """Zero to `most` unrelated lines, each ending in a newline: they part the cue from the decision."""
    lines = [f"# {comment(r)}" if chance(r, 0.06) else stmt(r, avoid) for _ in range(r.randrange(most + 1))]
    return "".join(line + "\n" for line in lines)


def body(r: Rng, v: str) -> str:
    """One statement that uses the variable `v`."""
    n = names(r, 1, (v,))[0]
    return pick(
        r,
        (
            f"print({v})",
            f"{n} = {v}",
            f"{n}.append({v})",
            f"{func(r)}({v})",
            f"{n} += {v}",
            f"{v}.{pick(r, METHODS)}()",
            f"{n} = {func(r)}({v})",
            f"{n}[{v}] = {num(r)}",
            f"{n} = {v} {pick(r, '+-*')} {num(r)}",
            f"print({string(r)}, {v})",
        ),
    )


def define(r: Rng, params: str, inside: str) -> str:
    """A function definition around `inside`, sometimes with a docstring."""
    q = '"""'
    doc = f"    {q}{comment(r).capitalize()}.{q}\n" if chance(r, 0.25) else ""
    return f"def {func(r)}({params}):\n{doc}{ind(inside)}"
