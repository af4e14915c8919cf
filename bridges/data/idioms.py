"""Generated component of the pretraining corpus: short, repetitive Python idioms.

Gao et al. (2025, "Weight-sparse transformers have interpretable circuits") train on real Python mixed with
simple synthetic code, so that a very small model learns clean versions of a fixed set of behaviours. This
module writes that synthetic part. Each function in `IDIOMS` writes one snippet of one behaviour: a cue
early in the text (an opening quote, `x = set()`, `lambda`, ...) and, later, a two-way next-token decision
that depends on it. The two branches are drawn with equal probability in the same surroundings, so nothing
but the cue predicts the decision.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from bridges.data import idiom_words as words
from bridges.data.idiom_words import (
    ModuleRandom,
    Rng,
    body,
    chance,
    cls,
    comment,
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
    pick,
    plural,
    quote,
    stmt,
    string,
    text,
    value,
)

MIN_CHARS, MAX_CHARS = 300, 2500


# --- the idioms ---------------------------------------------------------------------------------------------


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


def with_as(r: Rng) -> str:
    """`with open(p) as f:` or a context manager that is not bound, `with lock:`."""
    a, b, c = names(r, 3)
    k = cls(r)
    if chance(r):
        f = pick(r, ("f", "f", "fp", "file", "handle", "infile"))
        return pick(
            r,
            (
                f"with open({a}) as {f}:\n    {b} = {f}.read()",
                f"with open({string(r)}) as {f}:\n    {body(r, f)}",
                f"{a} = Path({string(r)})\n{filler(r)}with {a}.open() as {f}:\n    {body(r, f)}",
                f"with {k}({a}) as {b}:\n    {body(r, b)}",
                f"{a} = connect({b})\nwith {a}.cursor() as cur:\n    cur.execute({string(r)})",
                f"with zipfile.ZipFile({a}) as z:\n    z.extractall({b})",
                f"with tempfile.TemporaryDirectory() as tmp:\n    {body(r, 'tmp')}",
                f"with ThreadPoolExecutor({num(r)}) as pool:\n    pool.map({a}, {b})",
                f"with pytest.raises({k}) as {b}:\n    {stmt(r)}\n    print({b})",
            ),
        )
    inside = body(r, c)
    lock = pick(r, ("lock", "lock", "mutex", "write_lock", f"{pick(r, words.NOUNS)}_lock"))
    return pick(
        r,
        (
            f"{lock} = threading.Lock()\n{filler(r)}with {lock}:\n    {inside}",
            f"with {lock}:\n    {inside}",
            f"{a} = Lock()\n{filler(r)}with {a}:\n    {inside}",
            f"with self.{lock}:\n    {inside}",
            f"with suppress({pick(r, ('KeyError', 'OSError', 'ValueError'))}):\n    {inside}",
            f"with torch.no_grad():\n    {inside}",
            f"with {a}.app_context():\n    {inside}",
            f"with np.errstate(divide={string(r)}):\n    {inside}",
            f"with tf.device({a}):\n    {inside}",
            f"with cd({a}):\n    {inside}",
        ),
    )


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


def with_open(r: Rng) -> str:
    """A file opened for writing or for reading, as its name says."""
    write = chance(r)
    stem = pick(r, words.WRITE_STEMS if write else words.READ_STEMS)
    q, f, d = quote(r), pick(r, ("f", "f", "f", "fp", "file", "fh")), name(r)
    while d == f:
        d = name(r)
    mode = f"{q}{'w' if write else 'r'}{q}"
    folder = pick(r, ("", "", "data/", "/tmp/", pick(r, words.NOUNS) + "_"))
    path = f"{q}{folder}{stem}.{pick(r, words.EXTENSIONS)}{q}"
    var = f"{'input' if stem == 'in' else stem}_{pick(r, ('path', 'file', 'filename', 'name', 'dir'))}"
    if write:
        use = pick(
            r,
            (
                f"{f}.write({d})",
                f"{f}.write({string(r)})",
                f"{f}.write(str({d}))",
                f"json.dump({d}, {f})",
                f"for line in {d}:\n    {f}.write(line)",
                f"{f}.writelines({d})",
                f"{f}.write({d} + {q}\\n{q})",
            ),
        )
    else:
        use = pick(
            r,
            (
                f"{d} = {f}.read()",
                f"{d} = {f}.readlines()",
                f"{d} = json.load({f})",
                f"return {f}.read()",
                f"for line in {f}:\n    print(line)",
                f"{d} = {f}.read().split()",
                f"print({f}.read())",
            ),
        )
    if use.startswith("return"):
        return define(r, var, f"{filler(r, 1)}with open({var}, {mode}) as {f}:\n    {use}")
    shape = r.randrange(6)
    if shape == 0:
        return f"{var} = {path}\n{filler(r, 2, (var,))}with open({var}, {mode}) as {f}:\n{ind(use)}"
    if shape == 1:
        return f"{f} = open({path}, {mode})\n{use}\n{f}.close()"
    if shape == 2:
        return define(r, f"{d}, {var}", f"with open({var}, {mode}) as {f}:\n{ind(use)}")
    if shape == 3:
        return f"with open(args.{var}, {mode}) as {f}:\n{ind(use)}"
    return f"with open({path if shape == 4 else var}, {mode}) as {f}:\n{ind(use)}"


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


def if_equals(r: Rng) -> str:
    """`if x == 1:` or `x = 1`."""
    v = name(r)
    v += f".{pick(r, words.ATTRS)}" if chance(r, 0.15) else f"[{num(r)}]" if chance(r, 0.1) else ""
    c = pick(r, (num(r), num(r), string(r), name(r), "None", "True"))
    if not chance(r):
        return f"{filler(r, 1)}{v} = {c}\n" + pick(r, (body(r, name(r)), stmt(r), f"print({v})"))
    word = pick(r, ("if",) * 5 + ("assert", "while"))
    return f"{filler(r, 1)}{word} {v} == {c}" + ("" if word == "assert" else f":\n    {body(r, name(r))}")


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


def var_if(r: Rng) -> str:
    """After the same name, the newline of `x = y` or the colon of `if y:`."""
    y = name(r)
    x = names(r, 1, (y,))[0]
    y += f".{pick(r, words.ATTRS)}" if chance(r, 0.2) else ""
    then = pick(r, (body(r, x), f"{x} = {value(r)}", stmt(r)))
    target = pick(r, (x, x, x, f"self.{x}"))
    out = f"if {y}:\n    {then}" if chance(r) else f"{target} = {y}\n{then}"
    return filler(r, 1) + out if chance(r, 0.7) else define(r, x, f"{filler(r, 1)}{out}\nreturn {x}")


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


IDIOMS: dict[str, Callable[[random.Random], str]] = {
    f.__name__: f
    for f in (
        single_double_quote,
        final_kwarg,
        set_or_string,
        set_or_string_fixedvarname,
        class_init,
        with_as,
        bracket_brace,
        with_open,
        bracket_counting,
        for_while,
        else_elif,
        fstring_brace,
        if_ternary,
        var_swap,
        indent_for,
        lambda_func,
        if_equals,
        enumerate_range,
        var_if,
        while_return_true,
    )
}


# What takes a small model longest to learn (copying a name, counting, binding a type to a name) is written more often.
WEIGHTS = {
    "class_init": 3,
    "bracket_counting": 4,
    "with_open": 4,
    "set_or_string_fixedvarname": 4,
    "var_swap": 2,
    "if_ternary": 2,
    "with_as": 2,
}


# --- documents ----------------------------------------------------------------------------------------------


def _in_context(r: Rng, snippet: str) -> str:
    """`snippet` as it is, or inside a function, method, loop, branch or try block."""
    u = r.random()
    if u < 0.6 or (snippet.startswith(("def ", "class ")) and u < 0.9):
        return snippet
    x, xs = pair(r)
    if snippet.startswith("class "):
        return snippet
    if u >= 0.9:
        method = f"class {cls(r)}:\n    def {func(r)}(self, {x}):\n{ind(snippet, 2)}"
        return method + (f"\n        return {x}" if chance(r) else "")
    if u < 0.75:
        return define(r, xs, snippet + (f"\nreturn {name(r)}" if chance(r) else ""))
    if u < 0.8:
        return f"for {x} in {xs}:\n{ind(snippet)}"
    if u < 0.86:
        return f"if {cond(r, x)}:\n{ind(snippet)}"
    caught = pick(r, ("Exception as e:\n    print(e)", f"KeyError:\n    {stmt(r)}", "ValueError:\n    pass"))
    return f"try:\n{ind(snippet)}\nexcept {caught}"


def _document(r: Rng, kinds: Sequence[Callable[[random.Random], str]]) -> str:
    """One module of 3 to 12 snippets, within the limits on its length."""
    parts: list[str] = []
    if chance(r, 0.2):
        parts.append(f'"""{comment(r).capitalize()}."""')
    if chance(r, 0.5):
        lines = [
            pick(r, words.FROM_IMPORTS) if chance(r, 0.4) else f"import {pick(r, words.MODULES)}"
            for _ in range(r.randrange(1, 5))
        ]
        parts.append("\n".join(dict.fromkeys(lines)))
    # Half of the modules keep to a few idioms, so that their two branches meet in one context.
    if chance(r):
        kinds = [pick(r, kinds) for _ in range(r.randrange(2, 5))]
    wanted, done, size = r.randrange(3, 13), 0, sum(map(len, parts))
    while done < wanted or size < MIN_CHARS:
        part = _in_context(r, pick(r, kinds)(r))
        if chance(r, 0.08):
            part = f"# {comment(r)}\n{part}"
        if size + len(part) + 3 * (len(parts) + 2) > MAX_CHARS:
            break
        parts.append(part)
        size += len(part)
        done += 1
    out = parts[0]
    for before, part in pairwise(parts):
        block = part.startswith(("def ", "class ", "# ")) or before.startswith(("def ", "class ", "# "))
        apart = before.startswith(('"""', "import ", "from ")) or chance(r, 0.6)
        out += ("\n\n\n" if block else "\n\n" if apart else "\n") + part
    return out + "\n"


def documents(n_chars: int, seed: int) -> Iterator[str]:
    """Yield short modules of idiom snippets until about `n_chars` characters have been produced.

    Every document is valid Python of 300 to 2,500 characters. The sequence is a function of `seed`, and a
    smaller `n_chars` yields a prefix of what a larger one yields.
    """
    r = ModuleRandom(seed)
    kinds = tuple(f for name, f in IDIOMS.items() for _ in range(WEIGHTS.get(name, 1)))
    made = 0
    while made < n_chars:
        r.recent.clear()
        doc = _document(r, kinds)
        made += len(doc)
        yield doc
