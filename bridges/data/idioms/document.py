"""Whole modules of several idioms."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from bridges.data.idioms import words
from bridges.data.idioms.catalogue import IDIOMS, WEIGHTS
from bridges.data.idioms.draws import ModuleRandom, Rng, chance, pick
from bridges.data.idioms.phrases import cls, comment, cond, define, func, ind, name, pair, stmt

MIN_CHARS, MAX_CHARS = 300, 2500


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
