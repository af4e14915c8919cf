"""Python behaviours of variables: what was bound before decides how it is used (Gao et al. 2025, Table 1)."""

from __future__ import annotations

from bridges.behaviours.python_contexts import CONTEXTS
from bridges.behaviours.template import TemplateBehaviour

set_or_string = TemplateBehaviour(
    "set_or_string",
    "`.add` after a variable that began as `set()`, ` +=` after one that began as an empty string.",
    contexts=CONTEXTS,
    cue={"init": ("set()", '""'), "step": (".add($item)\n", " += $item\n")},
    frames=(
        "$name = $init\nfor $item in $coll:\n    $name|$step",
        "$name = $init\nfor $item in $coll:\n    print($item)\n    $name|$step",
        "$name = $init\n$name2 = $num\nfor $item in $coll:\n    $name|$step",
        "$name2 = len($coll)\n$name = $init\nfor $item in $coll:\n    $name|$step",
        "$name = $init\nfor $item in $coll:\n    if $item > $num:\n        $name|$step",
        "def $func($coll):\n    $name = $init\n    for $item in $coll:\n        $name|$step",
        "def $func($coll):\n    $name = $init\n    for $item in $coll:\n        if $item:\n            $name|$step",
        "def $func($item, $name2):\n    $name = $init\n    if $name2 > $num:\n        $name|$step",
        "def $func($item):\n    $name = $init\n    $name|$step",
        "$name = $init\nif $item in $coll:\n    $name|$step",
        "$name = $init\nwhile $coll:\n    $item = $coll.pop()\n    $name|$step",
        "$name = $init\n$item = $func($name2)\n$name|$step",
        "class $cls:\n    def $func(self):\n        $name = $init\n"
        "        for $item in self.$coll:\n            $name|$step",
        "$name = $init\nwith open($name2) as f:\n    for $item in f:\n        $name|$step",
    ),
    reach=(
        "try:\n    $name = $init\n    for $item in $coll:\n        $name|$step",
        "$name = $init\nfor i, $item in enumerate($coll):\n    $name|$step",
        "$name = $init\nfor $item in $coll:\n    if $item is None:\n        continue\n    $name|$step",
        "class $cls:\n    def __init__(self, $item):\n        $name = $init\n        $name|$step",
    ),
)

# Both types stand in the prompt; only the binding of the fixed name decides.
set_or_string_fixedvarname = TemplateBehaviour(
    "set_or_string_fixedvarname",
    "The same choice for a variable that is always called `current`, beside another one of the other type.",
    contexts=CONTEXTS,
    cue={"init": ("set()", '""'), "other": ('""', "set()"), "step": (".add($item)\n", " += $item\n")},
    frames=(
        "current = $init\n$name = $other\nfor $item in $coll:\n    current|$step",
        "$name = $other\ncurrent = $init\nfor $item in $coll:\n    current|$step",
        "$name = $other\ncurrent = $init\nfor $item in $coll:\n    if $item:\n        current|$step",
        "current = $init\n$name = $other\n$name2 = $num\nfor $item in $coll:\n    current|$step",
        "$name = $other\n$name2 = $num\ncurrent = $init\nwhile $coll:\n    $item = $coll.pop()\n    current|$step",
        "def $func($coll):\n    current = $init\n    $name = $other\n    for $item in $coll:\n        current|$step",
        "def $func($coll):\n    $name = $other\n    current = $init\n    for $item in $coll:\n        current|$step",
        "def $func($item):\n    current = $init\n    $name = $other\n    current|$step",
        "def $func($item, $name2):\n    $name = $other\n    current = $init\n    if $name2:\n        current|$step",
        "class $cls:\n    def $func(self, $item):\n        $name = $other\n"
        "        current = $init\n        current|$step",
        "class $cls:\n    def $func(self):\n        current = $init\n        $name = $other\n"
        "        for $item in self.$coll:\n            current|$step",
        "current = $init\n$name = $other\nif $item not in $coll:\n    current|$step",
        "$name = $other\ncurrent = $init\n$item = $func($name2)\ncurrent|$step",
        "$name = $other\ncurrent = $init\nwith open($name2) as f:\n    for $item in f:\n        current|$step",
    ),
    reach=(
        "$name2 = None\ncurrent = $init\n$name = $other\nfor i, $item in enumerate($coll):\n    current|$step",
        "try:\n    $name = $other\n    current = $init\n    for $item in $coll:\n        current|$step",
        "current = $init\n$name = $other\nfor $item in $coll:\n    print($item)\n    current|$step",
        "def $func(self, $coll):\n    $name = $other\n    current = $init\n"
        "    while $coll:\n        $item = $coll.pop()\n        current|$step",
    ),
)

_SWAP = "$a, $b =| $b|, $a\n"
var_swap = TemplateBehaviour(
    "var_swap",
    "Two variables are swapped: the right side of `x, y =` begins with `y`.",
    contexts=CONTEXTS,
    cue={"a": ("$name", "$name2"), "b": ("$name2", "$name")},
    frames=(
        _SWAP,
        "$name = $num\n$name2 = $num2\n" + _SWAP,
        "$name2 = $num\n$name = $num2\n" + _SWAP,
        "$name = $num\n$name2 = $num2\nprint($name3)\n" + _SWAP,
        "$name = $num\n$name2 = $num2\n$name3 = $name4\n" + _SWAP,
        "$name = $num\n$name2 = $num2\nif $name3:\n    " + _SWAP,
        "$name = $num\n$name2 = $num2\nfor i in range($num3):\n    " + _SWAP,
        "$name = '$word'\n$name2 = '$word2'\n" + _SWAP,
        "$name = []\n$name2 = []\n" + _SWAP,
        "$name = $func()\n$name2 = $func2()\n" + _SWAP,
        "for i in range($num):\n    " + _SWAP,
        "def $func($name3):\n    " + _SWAP,
        "try:\n    " + _SWAP,
        "class $cls:\n    def $func(self):\n        " + _SWAP,
    ),
    reach=(
        "# swap $name and $name2\n" + _SWAP,
        "def $func($name, $name2):\n    print($name, $name2)\n    " + _SWAP,
        "try:\n    $name = $num\n    " + _SWAP,
        "if $name3 and $name >= $name2:\n    " + _SWAP,
    ),
)

PYTHON_BINDINGS = (set_or_string, set_or_string_fixedvarname, var_swap)
