"""Idioms of strings, lists and dictionaries: what opened decides what closes or follows."""

from __future__ import annotations

from bridges.data.idioms import words
from bridges.data.idioms.draws import Rng, chance, pick
from bridges.data.idioms.phrases import (
    body,
    define,
    filler,
    func,
    name,
    names,
    num,
    plural,
    quote,
    stmt,
    string,
    text,
    value,
)


def single_double_quote(r: Rng) -> str:
    """A string argument closed by the quote that opened it, `')` or `")`."""
    out = []
    for _ in range(r.randrange(1, 4)):
        n, m = names(r, 2)
        q = quote(r)
        inner = text(r)
        if chance(r, 0.06):
            other = "'" if q == '"' else '"'
            inner += f" {other}{pick(r, words.NOUNS)}{other} {pick(r, words.NOUNS)}"
        s = q + inner + q
        out.append(
            pick(
                r,
                (
                    f"print({s})",
                    f"print({n}, {s})",
                    f"{n}.{pick(r, words.METHODS)}({s})",
                    f"{n} = {m}.get({s})",
                    f"{func(r)}({s})",
                    f"{n}.append({s})",
                    f"{n} = {func(r)}({m}, {s})",
                    f"{n} = input({s})",
                    f"logger.{pick(r, ('info', 'debug', 'error'))}({s})",
                    f"{n} = {m}.split({s})",
                    f"{n} = os.path.join({m}, {s})",
                    f"if {n} is None:\n    raise ValueError({s})",
                    f"{n} = {func(r)}({pick(r, words.NOUNS)}={s})",
                    f"{n}.replace({string(r)}, {s})",
                ),
            )
        )
    return "\n".join(out)


def bracket_brace(r: Rng) -> str:
    """Inside a dict literal `:` follows the key; inside a list literal `,` follows the element."""
    v, k = name(r), r.randrange(2, 7)
    q = quote(r)
    kind = r.randrange(4)
    texts = [pick(r, words.NOUNS) if kind < 3 else text(r) for _ in range(k)]
    keys = [num(r) if kind == 0 else f"{q}{t}{q}" for t in texts]
    is_dict = chance(r)
    vals = [num(r) if kind < 2 else string(r) if kind == 2 else value(r) for _ in range(k)]
    items = [f"{a}: {b}" for a, b in zip(keys, vals, strict=True)] if is_dict else keys
    o, c = "{}" if is_dict else "[]"
    shape = r.randrange(5)
    many_lines = "\n" + "".join(f"    {x},\n" for x in items)
    literal = o + (many_lines if shape == 0 else ", ".join(items)) + c
    if shape == 1:
        return define(r, name(r), f"{filler(r)}return {literal}")
    if shape == 2:
        return f"{v} = {func(r)}({literal})"
    if shape == 3:
        return f"for {pick(r, words.LETTERS)} in {literal}:\n    {stmt(r)}"
    return f"{filler(r, 1)}{v} = {literal}\n{body(r, v) if chance(r) else stmt(r)}"


def bracket_counting(r: Rng) -> str:
    """Lists nested to different depths, closed by `]`, `]]` or `]]]`."""
    kind = r.randrange(3)
    atom = (lambda: num(r)) if kind == 0 else (lambda: name(r)) if kind == 1 else (lambda: string(r))
    width = r.randrange(1, 5)

    def row() -> str:
        return "[" + ", ".join(atom() for _ in range(width)) + "]"

    flat = row()
    if chance(r):
        rows = ", ".join(row() for _ in range(r.randrange(2, 4)))
        flat = pick(
            r,
            (
                f"[{flat}]",
                f"[{flat}]",
                f"[[{rows}], [{row()}]]",
                f"[{atom()}, {atom()}, {flat}]",
                f"[{rows}]",
                f"[{rows}]",
            ),
        )
    elif chance(r, 0.15):
        flat = f"[{flat}, {atom()}]"
    v = name(r)
    return pick(
        r,
        (
            f"{v} = {flat}",
            f"{v} = {flat}\n{filler(r)}print({v})",
            f"{func(r)}({flat})",
            f"{v}.extend({flat})",
            f"{v} = np.array({flat})",
            f"{v} += {flat}",
            define(r, v, f"return {flat}"),
            f"assert {func(r)}({v}) == {flat}",
            f"for {pick(r, words.LETTERS)} in {flat}:\n    {stmt(r)}",
        ),
    )


def fstring_brace(r: Rng) -> str:
    """A variable in braces in an f-string, or the same word bare in a plain string."""
    v, w = names(r, 2)
    as_f = chance(r)
    p, o, c = ("f", "{", "}") if as_f else ("", "", "")
    q = quote(r)
    lead = pick(r, words.TITLES) + pick(r, ("", ":", f" {pick(r, words.FILLERS)}", f" {pick(r, words.NOUNS)}"))
    tail = pick(r, ("", "", "!", ".", f" {pick(r, words.NOUNS)}", f", {pick(r, words.FILLERS)} {o}{w}{c}"))
    attr = f".{pick(r, words.ATTRS)}" if chance(r, 0.15) else ""
    s = pick(
        r,
        (
            f"{lead} {o}{v}{attr}{c}{tail}",
            f"{o}{v}{attr}{c}{tail}",
            f"{lead} {o}{v}{c} {pick(r, words.FILLERS)} {o}{w}{c}",
        ),
    )
    s = f"{p}{q}{s}{q}"
    t = names(r, 1, (v, w))[0]
    return pick(
        r,
        (
            f"print({s})",
            f"{t} = {s}",
            f"{v} = {value(r)}\n{filler(r, 1, (v,))}print({s})",
            f"raise ValueError({s})",
            define(r, f"{v}, {w}", f"return {s}"),
            f"logger.info({s})",
            f"for {v} in {plural(w)}:\n    print({s})",
            f"{t}.append({s})",
        ),
    )
