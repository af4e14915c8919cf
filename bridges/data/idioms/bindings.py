"""Idioms of variables: what was bound decides how it is used."""

from __future__ import annotations

from bridges.data.idioms import words
from bridges.data.idioms.draws import Rng, chance, pick
from bridges.data.idioms.phrases import (
    body,
    cond,
    define,
    filler,
    func,
    ind,
    integer,
    name,
    names,
    num,
    pair,
    quote,
    stmt,
    string,
    value,
)


def _set_or_string(r: Rng, v: str, distract: bool) -> str:
    """A set that later gets `.add`, or a string that later gets `+=`."""
    is_set = chance(r)
    item, many = pair(r)
    while item == v:
        item, many = pair(r)
    start = "set()" if is_set else pick(r, ('""', "''"))
    arg = pick(r, (item, item, f"{item}.{pick(r, words.ATTRS)}", f"str({item})", f"{func(r)}({item})", string(r)))
    step = f"{v}.add({arg})" if is_set else f"{v} += {arg}"
    lines = [f"{v} = {start}"]
    if distract:
        # The opposite type under another name, on either side, so that only the binding of `v` decides.
        for other in names(r, r.randrange(1, 3), (v, item)):
            line = f"{other} = {pick(r, ('set()', quote(r) * 2, '[]', '0', '{}', value(r)))}"
            lines.insert(r.randrange(len(lines) + 1), line)
    head = "\n".join(lines) + "\n" + filler(r, 2, (v, item))
    end = pick(r, (f"return {v}", f"print({v})", f"return len({v})", f"{name(r)} = {func(r)}({v})"))
    loop = f"for {item} in {many}:\n"
    shape = r.randrange(6)
    if shape == 0:
        return define(r, many, f"{head}{loop}    {step}\n{end}")
    if shape == 1:
        return define(r, many, f"{head}{loop}    if {cond(r, item)}:\n        {step}\n{end}")
    if shape == 2:
        return f"{head}{step}"
    if shape == 3:
        return f"{head}{loop}    {step}"
    if shape == 4:
        return f"{head}if {cond(r, item)}:\n    {step}"
    return define(
        r, f"{many}, {names(r, 1, (many, v))[0]}", f"{head}{loop}{ind(stmt(r, (v, item)))}\n    {step}\n{end}"
    )


def set_or_string(r: Rng) -> str:
    """`x = set()` then `x.add(...)`, or `x = ""` then `x += ...`."""
    return _set_or_string(r, name(r), chance(r, 0.3))


def set_or_string_fixedvarname(r: Rng) -> str:
    """The same with one fixed variable name among distractor variables."""
    return _set_or_string(r, "current", True)


def var_swap(r: Rng) -> str:
    """`a, b = b, a` in either order of the names."""
    a, b = names(r, 2)
    t = names(r, 1, (a, b))[0]
    i, j, xs = *(("i", "j") if chance(r) else ("j", "i")), pair(r)[1]
    swap = pick(
        r,
        (f"{a}, {b} = {b}, {a}",) * 4
        + (
            f"{xs}[{i}], {xs}[{j}] = {xs}[{j}], {xs}[{i}]",
            f"{t} = {a}\n{a} = {b}\n{b} = {t}",
            f"self.{a}, self.{b} = self.{b}, self.{a}",
        ),
    )
    start = f"{a} = {num(r)}\n{b} = {num(r)}\n"
    return pick(
        r,
        (
            start + swap,
            f"{start}{filler(r, 2, (a, b))}{swap}\nprint({a}, {b})",
            f"if {a} > {b}:\n{ind(swap)}",
            define(r, f"{a}, {b}", f"{swap}\nreturn {a}, {b}"),
            swap,
            define(r, f"{a}, {b}", f"while {b}:\n    {a}, {b} = {b}, {a} % {b}\nreturn {a}"),
            f"for {t} in range({integer(r)}):\n{ind(swap)}",
        ),
    )


def if_equals(r: Rng) -> str:
    """`if x == 1:` or `x = 1`."""
    v = name(r)
    v += f".{pick(r, words.ATTRS)}" if chance(r, 0.15) else f"[{num(r)}]" if chance(r, 0.1) else ""
    c = pick(r, (num(r), num(r), string(r), name(r), "None", "True"))
    if not chance(r):
        return f"{filler(r, 1)}{v} = {c}\n" + pick(r, (body(r, name(r)), stmt(r), f"print({v})"))
    word = pick(r, ("if",) * 5 + ("assert", "while"))
    return f"{filler(r, 1)}{word} {v} == {c}" + ("" if word == "assert" else f":\n    {body(r, name(r))}")


def var_if(r: Rng) -> str:
    """After the same name, the newline of `x = y` or the colon of `if y:`."""
    y = name(r)
    x = names(r, 1, (y,))[0]
    y += f".{pick(r, words.ATTRS)}" if chance(r, 0.2) else ""
    then = pick(r, (body(r, x), f"{x} = {value(r)}", stmt(r)))
    target = pick(r, (x, x, x, f"self.{x}"))
    out = f"if {y}:\n    {then}" if chance(r) else f"{target} = {y}\n{then}"
    return filler(r, 1) + out if chance(r, 0.7) else define(r, x, f"{filler(r, 1)}{out}\nreturn {x}")
