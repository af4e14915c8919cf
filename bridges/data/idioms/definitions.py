"""Idioms of functions and classes: parameters, `__init__`, lambda."""

from __future__ import annotations

from bridges.data.idioms import words
from bridges.data.idioms.draws import Rng, chance, pick
from bridges.data.idioms.phrases import body, cls, comment, define, filler, func, ind, name, names, num, quote


def final_kwarg(r: Rng) -> str:
    """A last parameter with a default exactly when its neighbours have one."""
    args = names(r, r.randrange(2, 6))
    default = pick(r, ("None", "None", "None", "None", "0", "False", "True", "1"))
    lead = ["self"] if chance(r, 0.4) else []
    if chance(r):
        free = r.randrange(len(args) - 1) if chance(r, 0.4) else 0
        params = lead + args[:free] + [f"{a}={default}" for a in args[free:]]
    else:
        params = lead + args
    a, b = args[0], args[-1]
    use = pick(
        r,
        (
            f"return {b}",
            f"if {b} is None:\n    return {a}\nreturn {func(r)}({a}, {b})",
            "pass",
            f"print({', '.join(args)})",
            f"{func(r)}({', '.join(args)})",
            f"if {b}:\n    {body(r, b)}\nreturn {a}",
            f"{filler(r)}return {a} + {b}",
        ),
    )
    if lead:
        use = "\n".join(f"self.{x} = {x}" for x in args) if chance(r, 0.4) else use
        return f"class {cls(r)}:\n{ind(define(r, ', '.join(params), use))}"
    return define(r, ", ".join(params), use)


def class_init(r: Rng) -> str:
    """An `__init__` that stores its arguments under their own names."""
    args = names(r, r.randrange(1, 6))
    under = "_" if chance(r, 0.15) else ""
    params = [a if i < len(args) - 1 or chance(r, 0.8) else f"{a}={num(r)}" for i, a in enumerate(args)]
    sets = [f"self.{under}{a} = {a}" for a in args]
    if chance(r, 0.2):
        sets.insert(0, f"super().__init__({args[0] if chance(r, 0.3) else ''})")
    if chance(r, 0.3):
        sets.append(f"self.{names(r, 1, args)[0]} = {pick(r, ('[]', '{}', '0', 'None', 'set()', 'False'))}")
    a, b = pick(r, args), pick(r, args)
    q = quote(r)
    base = f"({pick(r, ('object', 'Base', cls(r), 'Exception'))})" if chance(r, 0.3) else ""
    out = f"class {cls(r)}{base}:\n"
    if chance(r, 0.25):
        out += f'    """{comment(r).capitalize()}."""\n\n'
    out += f"    def __init__(self, {', '.join(params)}):\n{ind(chr(10).join(sets), 2)}"
    extra = pick(
        r,
        (
            "",
            "",
            f"def get_{a}(self):\n    return self.{under}{a}",
            f"def set_{a}(self, {a}):\n    self.{under}{a} = {a}",
            f"def __repr__(self):\n    return f{q}{{self.{under}{a}}} {{self.{under}{b}}}{q}",
            f"def {func(r)}(self):\n    return self.{under}{a} + self.{under}{b}",
        ),
    )
    return out + ("\n\n" + ind(extra) if extra else "")


def lambda_func(r: Rng) -> str:
    """`lambda x: ...` where a call or a definition would have `(x)`."""
    x = pick(r, words.LETTERS) if chance(r, 0.6) else name(r)
    y, z = names(r, 2, (x,))
    args = x if chance(r, 0.75) else f"{x}, {y}"
    e = pick(
        r,
        (
            x,
            f"{x} + {num(r)}",
            f"{x}[{num(r)}]",
            f"{x}.{pick(r, words.ATTRS)}",
            f"{x} * {x}",
            f"len({x})",
            f"{x} > {num(r)}",
        ),
    )
    g = func(r)
    if chance(r):
        return pick(
            r,
            (
                f"{z} = lambda {args}: {e}",
                f"{y}.sort(key=lambda {x}: {e})",
                f"{z} = sorted({y}, key=lambda {x}: {e})",
                f"{z} = list(map(lambda {x}: {e}, {y}))",
                f"{g}(lambda {args}: {e})",
                define(r, y, f"return lambda {x}: {e}"),
                f"{z} = list(filter(lambda {x}: {e}, {y}))",
                f"{z} = {y}.apply(lambda {x}: {e})",
            ),
        )
    return pick(
        r,
        (
            f"{z} = {g}({args})",
            f"{y}.sort(key={g}({x}))",
            f"{z} = sorted({y}, key={g}({x}))",
            f"{z} = list({g}({args}))",
            f"{func(r)}({g}({args}))",
            define(r, y, f"return {g}({x})"),
            f"def {g}({args}):\n    return {e}",
            f"def {g}({args}):\n    return {e}\n\n{z} = {g}({args})",
        ),
    )
