"""Python behaviours decided by a name, a value or a type that stands earlier (Gao et al. 2025, Table 1)."""

from __future__ import annotations

from bridges.behaviours.fillers import FILLERS, pool
from bridges.behaviours.template import TemplateBehaviour

set_or_string = TemplateBehaviour(
    "set_or_string",
    "`.add` after a variable that began as `set()`, ` +=` after one that began as an empty string.",
    cue={"init": ("set()", '""'), "step": (".add($item)\n", " += $item\n")},
    frames=(
        "$name = $init\nfor $item in $coll:\n    $name|$step",
        "def $func($coll):\n    $name = $init\n    for $item in $coll:\n        if $item:\n            $name|$step",
        "$name = $init\nwhile $coll:\n    $item = $coll.pop()\n    $name|$step",
        "$name2 = len($coll)\n$name = $init\nfor $item in sorted($coll):\n    print($item)\n    $name|$step",
        "$name = $init\nwith open(filename) as f:\n    for $item in f:\n        $name|$step",
        "class $cls:\n    def $func(self, $coll):\n        $name = $init\n"
        "        for i, $item in enumerate($coll):\n"
        "            $name|$step",
        "$name = $init\nfor $item in self.$coll:\n    if $item is None:\n        continue\n    $name|$step",
        "def $func($item, $name2):\n    $name = $init\n    if $name2 > $num:\n        $name|$step",
    ),
)

# Both types stand in the prompt; only the binding of the fixed name decides.
set_or_string_fixedvarname = TemplateBehaviour(
    "set_or_string_fixedvarname",
    "The same choice for a variable that is always called `current`, beside another one of the other type.",
    cue={"init": ("set()", '""'), "other": ('""', "set()"), "step": (".add($item)\n", " += $item\n")},
    frames=(
        "current = $init\n$name = $other\nfor $item in $coll:\n    current|$step",
        "$name = $other\ncurrent = $init\nfor $item in $coll:\n    if $item:\n        current|$step",
        "def $func($coll):\n    current = $init\n    $name = $other\n    for $item in $coll:\n        current|$step",
        "$name = $other\n$name2 = $num\ncurrent = $init\nwhile $coll:\n    $item = $coll.pop()\n    current|$step",
        "class $cls:\n    def $func(self, $item):\n        $name = $other\n        current = $init\n"
        "        current|$step",
        "$name2 = None\ncurrent = $init\n$name = $other\nfor i, $item in enumerate($coll):\n    current|$step",
        "def $func(self):\n    $name = $other\n    current = $init\n    for $item in self.$coll:\n"
        "        current|$step",
        "current = $init\n$name = $other\nif $item not in $coll:\n    current|$step",
    ),
)

class_init = TemplateBehaviour(
    "class_init",
    "An `__init__` stores each argument under its own name: `self.size = size`.",
    cue={"target": ("$name", "$name2")},
    frames=(
        "class $cls:\n    def __init__(self, $name, $name2):\n        self.$target =| $target|\n",
        "class $cls(object):\n    def __init__(self, $name, $name2):\n        super().__init__()\n"
        "        self.$target =| $target|\n",
        "class $cls:\n    def __init__(self, $name3, $name, $name2):\n        self.$name3 = $name3\n"
        "        self.$target =| $target|\n",
        "class $cls:\n    def __init__(self, $name, $name2, $name3=None):\n        self.$target =| $target|\n",
        "class $cls(Base):\n    def __init__(self, $name, $name2, flag=False):\n        self.flag = flag\n"
        "        self.$target =| $target|\n",
        "class $cls:\n    def __init__(self, $name2, $name):\n        self.cache = {}\n"
        "        self.$target =| $target|\n",
        "class $cls:\n    kind = $num\n\n    def __init__(self, $name2, $name, **kwargs):\n"
        "        self.$target =| $target|\n",
        "class $cls:\n    def __init__(self, $name, $name2, $name3):\n        self._$target =| $target|\n",
    ),
)

_SOURCES = pool("input config words train in data settings names source template")
_SINKS = pool("output result log summary out results report export dump save")
_STEMS = {*_SOURCES, *_SINKS}


def _unlike(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names that do not speak of reading or writing: only that of the file may."""
    return tuple(n for n in names if n not in _STEMS)


with_open = TemplateBehaviour(
    "with_open",
    "A file is read or written, as its name says: `open('input.txt', 'r')`, `open('output.txt', 'w')`.",
    cue={"file": ("$source", "$sink"), "mode": ("r", "w")},
    fillers={
        "source": _SOURCES,
        "sink": _SINKS,
        "name": _unlike(FILLERS["name"]),
        "ext": pool("txt csv json log md xml dat html"),
    },
    frames=(
        "$name = $num\nwith open('${file}.$ext', '|$mode') as f:\n    ",
        "def $func():\n    f = open('${file}.$ext', '|$mode')\n",
        '${file}_path = "${name}.$ext"\nwith open(${file}_path, "|$mode") as f:\n    ',
        "def $func(${file}_file):\n    with open(${file}_file, '|$mode') as f:\n        ",
        "$name = '${file}_${word}.$ext'\nwith open($name, '|$mode') as f:\n    ",
        '$name = "$word"\nwith open("${name2}/${file}.$ext", "|$mode") as fp:\n    ',
        "with open(os.path.join($name, '${file}.$ext'), '|$mode') as fp:\n    ",
        "${file}_filename = $func($name)\nfp = open(${file}_filename, '|$mode')\n",
        'class $cls:\n    def $func(self):\n        with open(self.${file}_path, "|$mode") as $item:\n            ',
        "import os\n\n$name = open('${file}_${word}.$ext', '|$mode')\n",
    ),
)

# In half of the templates both strings are f-strings and only the brace differs, which keeps the prompts
# equally long.
fstring_brace = TemplateBehaviour(
    "fstring_brace",
    "A variable inside an f-string is followed by the closing brace, the same word in plain text is not.",
    cue={"f": ("f", ""), "o": ("{", ""), "c": ("}", "")},
    frames=(
        '$name = $num\nprint($f"$text: $o$name|$c")\n',
        "def $func($name):\n    return $f'$text $o$name|$c'\n",
        '$name2 = $num\nprint(f"$o$name|$c")\n',
        'for $item in $coll:\n    self.$func(f"$o$name|$c")\n',
        'logger.warning($f"$text in $o$name|$c")\n',
        "self.$name2 = $f'$text $o$name|$c'\n",
        '$name2 = $name3.$func(f"$o$name|$c")\n',
        'if $name > $num:\n    raise ValueError(f"$o$name|$c")\n',
    ),
)

var_swap = TemplateBehaviour(
    "var_swap",
    "Two variables are swapped: the right side of `x, y =` begins with `y`.",
    cue={"a": ("$name", "$name2"), "b": ("$name2", "$name")},
    frames=(
        "$name = $num\n$name2 = $num2\n$a, $b =| $b|, $a\n",
        "if $name > $name2:\n    $a, $b =| $b|, $a\n",
        "def $func($name, $name2):\n    $a, $b =| $b|, $a\n    return $name, $name2\n",
        "while $name < $name2:\n    $a, $b =| $b|, $a\n",
        "$name = $func()\n$name2 = $func2()\n# swap\n$a, $b =| $b|, $a\n",
        "for i in range($num):\n    $a, $b =| $b|, $a\n    print($name, $name2)\n",
        "if len($name) < len($name2):\n    $a, $b =| $b|, $a\n",
        "def swap($name, $name2):\n    if $name is not None:\n        $a, $b =| $b|, $a\n",
    ),
)

enumerate_range = TemplateBehaviour(
    "enumerate_range",
    "`enumerate` after two loop variables, `range` after one.",
    cue={"vars": ("i, $item", "i"), "over": (" enumerate($coll):\n", " range(len($coll)):\n")},
    frames=(
        "$name = $num\nfor $vars in|$over",
        "def $func($coll):\n    for $vars in|$over",
        "$coll = $func()\n$name = []\nfor $vars in|$over",
        "if $name > $num:\n    for $vars in|$over",
        "class $cls:\n    def $func(self, $coll):\n        for $vars in|$over",
        "$coll = sorted($coll2)\nfor $vars in|$over",
        "print($name, $name2)\n\nfor $vars in|$over",
        "try:\n    $name = $num\n    for $vars in|$over",
    ),
)

PYTHON_NAMES = (
    set_or_string,
    set_or_string_fixedvarname,
    class_init,
    with_open,
    fstring_brace,
    var_swap,
    enumerate_range,
)
