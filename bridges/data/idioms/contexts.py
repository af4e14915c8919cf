"""Idioms of `with`: bound or not, for reading or for writing."""

from __future__ import annotations

from bridges.data.idioms import words
from bridges.data.idioms.draws import Rng, chance, pick
from bridges.data.idioms.phrases import body, cls, define, filler, ind, name, names, num, quote, stmt, string


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
