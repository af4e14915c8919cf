"""Idioms of loops and conditions: which word opened the line decides how it ends."""

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
    stmt,
    string,
    value,
)


def for_while(r: Rng) -> str:
    """`for x in xs:` or `while x:`, with like bodies."""
    x, xs = pair(r)
    n = names(r, 1, (x, xs))[0]
    a = pick(r, (x, x, xs, "i"))
    if chance(r):
        over = pick(r, (n, n, f"range({n})", f"{n}.{pick(r, words.ATTRS)}", f"range({integer(r)})", f"{func(r)}({n})"))
        head = f"for {a} in {over}:"
        tail = ""
    else:
        test = pick(r, ("", "", f" < {n}", f" > {num(r)}", f" != {n}", f" < len({n})", " is not None"))
        head = f"while {a}{test}:"
        tail = pick(r, (f"\n    {a} += 1", f"\n    {a} -= 1", f"\n    {a} = {func(r)}({a})", f"\n    {a}.pop()"))
    inside = ind(filler(r, 1, (a,)) + body(r, a)) + tail
    before = pick(r, ("", f"{a} = {value(r)}\n", f"{n} = {value(r)}\n"))
    return before + f"{head}\n{inside}" + (f"\n{stmt(r)}" if chance(r, 0.4) else "")


def else_elif(r: Rng) -> str:
    """`else:` or `elif cond:`; comparisons of one variable tend to be continued by `elif`."""
    v = name(r)
    as_elif = chance(r)
    if chance(r, 0.35):
        first, second = cond(r, v), cond(r, v)
    elif as_elif:
        op = pick(r, ("==", ">", "<"))
        first, second = pick(
            r,
            (
                (f"{v} {op} {num(r)}", f"{v} {op} {num(r)}"),
                (f"{v} == {string(r)}", f"{v} == {string(r)}"),
                (f"isinstance({v}, int)", f"isinstance({v}, str)"),
                (f"{v} > 0", f"{v} < 0"),
            ),
        )
    else:
        first = second = pick(r, (v, f"not {v}", f"{v} is None", f"{v} % 2 == 0", f"{v} in {pair(r)[1]}"))
    ret = chance(r, 0.3)
    acts = [f"return {value(r)}" if ret else stmt(r) for _ in range(3)]
    out = f"if {first}:\n    {acts[0]}\n" + (f"elif {second}:" if as_elif else "else:") + f"\n    {acts[1]}"
    if as_elif and chance(r, 0.25):
        out += f"\nelse:\n    {acts[2]}"
    return define(r, v, out) if ret else out


def if_ternary(r: Rng) -> str:
    """After the same condition, `:` of an if statement or ` else` of a conditional expression."""
    v = name(r)
    y = names(r, 1, (v,))[0]
    c, a, b = cond(r, v), value(r), value(r)
    if chance(r):
        out = pick(
            r,
            (
                f"if {c}:\n    {y} = {a}",
                f"if {c}:\n    {y} = {a}\nelse:\n    {y} = {b}",
                f"if {c}:\n    {body(r, v)}",
                f"{y} = {a}\nif {c}:\n    {y} = {b}",
                f"if {c}:\n    return {a}\nreturn {b}",
            ),
        )
    else:
        out = pick(
            r,
            (
                f"{y} = {a} if {c} else {b}",
                f"return {a} if {c} else {b}",
                f"print({a} if {c} else {b})",
                f"{y} = {a} if {c} else {b}\n{body(r, y)}",
                f"{y}.append({a} if {c} else {b})",
                f"{y} = {v} if {c} else {b}",
            ),
        )
    return define(r, v, filler(r, 1, (v,)) + out) if "return " in out else filler(r, 1, (v,)) + out


def indent_for(r: Rng) -> str:
    """A deeper line after a `for` line, the same depth after an ordinary one, and the dedent that follows."""
    x, xs = pair(r)
    depth = r.randrange(3)
    y = names(r, 1, (x, xs))[0]
    if chance(r):
        core = f"for {x} in {xs}:\n{ind(filler(r, 2, (x,)) + body(r, x))}\n{stmt(r)}"
    else:
        plain = pick(r, (f"{y} = {xs}", f"{x} = {func(r)}({xs})", f"{func(r)}({xs})"))
        core = f"{plain}\n{filler(r, 1)}{body(r, y)}"
    for level in range(depth):
        z, zs = pair(r)
        head = pick(r, (f"for {z} in {zs}:", f"for {pick(r, 'ijk')} in range({integer(r)}):", f"if {cond(r, z)}:"))
        core = f"{head}\n{ind(core)}" + (f"\n{body(r, z)}" if level and chance(r) else "")
    return define(r, xs, f"{core}\nreturn {y}") if chance(r) else core


def enumerate_range(r: Rng) -> str:
    """`for i, x in enumerate(xs)` or `for i in range(n)`."""
    x, xs = pair(r)
    i = pick(r, ("i", "i", "j", "k", "idx", "index", "n"))
    if x == i:
        x = "item"
    if chance(r):
        first = pick(r, ("", "", "", ", 1", ", start=1"))
        head, use = f"for {i}, {x} in enumerate({xs}{first})", f"({i}, {x})"
    else:
        stop = pick(r, (integer(r), f"len({xs})", name(r), f"1, {integer(r)}", f"{name(r)} + 1"))
        head, use = f"for {i} in range({stop})", f"({i}, {xs}[{i}])"
    act = pick(r, (f"print{use}", f"{func(r)}{use}", body(r, i), f"{name(r)}[{i}] = {num(r)}"))
    if chance(r, 0.12):
        return f"{name(r)} = [{func(r)}({i}) {head}]"
    act = f"if {cond(r, i)}:\n    {act}" if chance(r, 0.25) else act
    out = f"{head}:\n{ind(filler(r, 1, (i, x)) + act)}"
    return define(r, xs, f"{out}\nreturn {xs}") if chance(r, 0.3) else out


def while_return_true(r: Rng) -> str:
    """`while True:` or `return True`."""
    v, w = names(r, 2)
    c = cond(r, v)
    const = "True" if chance(r, 0.85) else pick(r, ("False", "1"))
    if chance(r):
        inside = pick(
            r,
            (
                f"{v} = {func(r)}({w})\nif {c}:\n    break",
                f"{body(r, v)}\nif {c}:\n    break\n{v} += 1",
                f"{v} = input({string(r)})\nif {c}:\n    continue\n{body(r, v)}",
                f"{filler(r)}{func(r)}({v})",
                f"try:\n    {v} = {func(r)}()\n    break\nexcept OSError:\n    print({string(r)})",
            ),
        )
        loop = f"while {const}:\n{ind(inside)}"
        return define(r, w, filler(r, 1) + loop) if chance(r, 0.6) else loop
    return define(
        r,
        v,
        filler(r, 1)
        + pick(
            r,
            (
                f"return {const}",
                f"if {c}:\n    return {const}\nreturn False",
                f"{body(r, v)}\nreturn {const}",
                f"for {w} in {v}:\n    if {cond(r, w)}:\n        return False\nreturn {const}",
                f"if {c}:\n    {body(r, v)}\n    return {const}\nelse:\n    return None",
            ),
        ),
    )
