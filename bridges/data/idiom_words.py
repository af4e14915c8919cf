"""Words, names, values and plain statements from which `bridges.data.idioms` composes its snippets."""

from __future__ import annotations

import keyword
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
Rng = random.Random


def _words(listed: str) -> tuple[str, ...]:
    """The different words of `listed` in order, without Python keywords."""
    return tuple(w for w in dict.fromkeys(listed.split()) if not keyword.iskeyword(w))


NOUNS: tuple[str, ...] = _words("""
account action actor address age agent album alert amount angle animal answer apple area array article
artist asset author axis badge balance ball band bank base basket batch beam bed bike bill bird block board
boat body book border bottle bound box branch bridge bucket budget buffer bug bus button buyer byte cache
camera card cargo cart case cat cell chain chair channel chapter char chart child choice chunk circle city
claim client clock cloud cluster coach code coin color column comment company contact cookie copy corner
cost count country coupon course cover crop cup curve customer cycle date day deck degree depth design desk
detail device digit disk distance doc dog dollar domain door dose draft driver edge email employee energy
engine entry error event exam factor farm fee field figure file film filter flag flight floor flower folder
food force forest form frame friend fruit game gap garden gate genre gift goal grade gradient grain graph
grid group guest guide half handler head header height hero hint history hole holiday home horse host hotel
hour house icon image index ingredient invoice island item job journal judge key kind king kitchen label
lake lamp language layer leaf league lesson letter level limit line link list loan location log loop loss
machine mail map margin mark market mask mass match matrix meal member menu message metric mile minute mode
model module molecule moment money month motor mountain mouse movie name network node note novel number
object ocean offer office option order origin owner pack packet page paint pair panel paper param parent
part party patient pattern payment peak pencil person phone phrase picture piece pixel place planet plant
player plot point policy poll pool port position post power pressure price prize process product profile
profit project protein purchase query question queue race radius rain rank rate ratio reader reading receipt
recipe record region report request reservation response reward river road robot role room root rotation
round route row rule salary sale sample scale scene schedule school score screen season seat second section
seed segment sensor sentence series server session setting shape ship shop shot signal singer size skill
slice slide slot snake soil song source speed spell sport square stack staff stage star state station step
stock stone store storm story stream street string student study subject sum supplier symbol system table
tag target task taste tax teacher team temperature term test text theme thread ticket tile time title token
tool topic total tower town track trade train trait trial trip truck tune turn type unit update upload url
user value vector vehicle velocity vendor version video view visit visitor voice volume vote voter wall
warning watch water wave weapon weather week weight wheel width window winner wire word worker world writer
year zone
""")

ADJECTIVES: tuple[str, ...] = _words("""
active all available average bad best big blue bottom cached central clean closed cold common complete
correct daily default deep direct done double dry dynamic early empty error even expected extra failed fast
final first flat free fresh front full general global good green half heavy hidden high hot initial inner
invalid large last late left light local long lost low main major manual max mean median min minor missing
mixed monthly national new next nice noisy normal odd old open other outer own parsed past pending plain
previous primary private public quick random raw ready real recent red remote right rough safe saved second
secret selected shared sharp short simple single slow small smooth sorted special square start static strong
sub temp tiny top total unique unknown upper used user valid visible warm weak weekly white whole wide wrong
yearly young
""")

VERBS: tuple[str, ...] = _words("""
add apply ask assign attach block build buy calculate call cancel change check choose clean clear close
collect combine compare compute connect convert copy count create cut decode define delete describe detect
download draw drop encode estimate evaluate expand export extract fetch fill filter find fit fix flatten
format gather generate get group guess handle hide import init insert inspect join learn limit list load
lock log make map mark match measure merge mix move normalize notify open order pack paint parse pay pick
place play plot predict prepare print process pull push rank read receive record reduce refresh register
release reload remove rename render repair repeat replace report request reset resize resolve restore
reverse rotate run sample save scale scan score search select sell send set shift show shuffle skip solve
sort split start stop store submit sum swap sync test track train transform trim update upload validate
verify visit wait walk warn watch wrap write
""")

ATTRS: tuple[str, ...] = _words("""
name size id value data count status title length price score owner parent children state color weight
height width level kind label email age x y key text path date total rate items index config tags rank
position address
""")

METHODS: tuple[str, ...] = _words("""
update send save load run start stop close reset show get find add remove apply fit predict render process
check notify draw move connect write put push log set_name set_title set_text is_valid insert register
select search
""")

LETTERS: tuple[str, ...] = _words("a b c d e f g h i j k m n p q r s t u v w x y z")

CLASS_ENDS: tuple[str, ...] = _words("""
Manager Handler Model Node View Error Parser Builder Service Client Factory Config Item Controller Loader
Writer Reader Player Store Queue Tree Worker Base Form Test Report Event Task Group
""")

TITLES: tuple[str, ...] = _words("""
Hello Welcome Done Error Warning Total Name Please Enter Starting Finished Loading Saving Result Invalid
Found Missing Processing User Score Goodbye Failed Success Unknown Ready Current New Sorry Waiting Connected
Game The
""")

FILLERS: tuple[str, ...] = _words("""
the a to of in is not for and your with was at from on by this are has no be more than could too many
already
""")

PEOPLE: tuple[str, ...] = _words("""
Alice Bob Carol David Emma Frank Grace Henry Irene Jack Karen Leo Maria Nina Oscar Paul Rosa Sam Tina Victor
London Paris Berlin Tokyo Madrid Rome Boston Chicago Monday Tuesday Friday January March June October Red
Blue
""")

EXTENSIONS: tuple[str, ...] = ("txt", "csv", "json", "log", "md", "xml", "html", "dat", "yaml", "tsv")
WRITE_STEMS: tuple[str, ...] = (
    "out",
    "output",
    "result",
    "results",
    "log",
    "report",
    "summary",
    "save",
    "export",
    "dump",
    "generated",
    "backup",
    "dest",
    "target",
)
READ_STEMS: tuple[str, ...] = (
    "in",
    "input",
    "source",
    "config",
    "data",
    "settings",
    "words",
    "names",
    "train",
    "dataset",
    "template",
    "corpus",
    "original",
    "existing",
)
MODULES: tuple[str, ...] = _words("""
os sys re json math time random logging collections itertools functools datetime threading csv copy string
numpy pandas requests argparse pathlib typing subprocess
""")
FROM_IMPORTS: tuple[str, ...] = (
    "from collections import defaultdict",
    "from collections import Counter",
    "from pathlib import Path",
    "from typing import List, Optional",
    "from datetime import datetime, timedelta",
    "import numpy as np",
    "from functools import wraps",
    "from dataclasses import dataclass",
    "import pandas as pd",
    "from flask import Flask, request",
    "from contextlib import suppress",
    "from threading import Lock",
    "from itertools import chain",
    "from math import sqrt, pi",
    "import matplotlib.pyplot as plt",
)


class ModuleRandom(random.Random):
    """A `random.Random` that remembers the latest names of the module being written.

    Hand-written modules use few names many times; drawing each name afresh would teach that they never recur.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.recent: list[str] = []


def pick(r: Rng, options: Sequence[T]) -> T:
    """One element of `options` (cheaper than `Random.choice`)."""
    return options[int(r.random() * len(options))]


def chance(r: Rng, p: float = 0.5) -> bool:
    """True with probability `p`."""
    return r.random() < p


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
