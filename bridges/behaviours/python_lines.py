"""Python behaviours in which two kinds of line hold the same name: condition, assignment, loop or return (Table 1).

Gao et al. (2025). What the line is decides what follows the name.
"""

from __future__ import annotations

from bridges.behaviours.python_contexts import CONTEXTS
from bridges.behaviours.template import Template, TemplateBehaviour

# Either both lines begin with `if` and the assignment is its body, or one token elsewhere makes up for the keyword.
if_equals = TemplateBehaviour(
    "if_equals",
    "` ==` after a name that is tested by `if`, ` =` after a name that is assigned to.",
    contexts=CONTEXTS,
    cue={
        "and": (" and", ":"),
        "or": (" or", ":"),
        "if": ("if ", ""),
        "d": ("", "=None"),
        "not": ("", "not "),
        "then": (" == $num:\n", " = $num\n"),
    },
    frames=(
        "if $name2$and $name|$then",
        "if $name2$or $name|$then",
        "def $func($name2, $name):\n    if $name2$and $name|$then",
        "for $item in $coll:\n    if $item$and $name|$then",
        "class $cls:\n    def $func(self, $name):\n        if $name2$and $name|$then",
        "def $func($name$d):\n    $if$name|$then",
        "def $func(self, $name$d):\n    $if$name|$then",
        "def $func($name, $name2$d):\n    $if$name|$then",
        "def $func($name$d):\n    $name2 = $num2\n    $if$name|$then",
        "def $func($name):\n    $name2 = $not$name3\n    $if$name|$then",
        "for $item in $coll:\n    $name2 = $not$item\n    $if$name|$then",
        "while $not$name2:\n    $if$name|$then",
        "class $cls:\n    def $func(self, $name$d):\n        $if$name|$then",
        "if $not$name2:\n    $if$name|$then",
    ),
    reach=(
        "while $name2$and $name|$then",
        "try:\n    $name2 = $not$name3\nexcept $error:\n    $if$name|$then",
        "class $cls:\n    def __init__(self, $name$d):\n        $if$name|$then",
        "if $not$name2:\n    $name3 = $num2\nelse:\n    $if$name|$then",
    ),
)

# `if not x` is as long as `y = x`.
var_if = TemplateBehaviour(
    "var_if",
    "After the same name, the colon of a condition or the end of an assignment.",
    contexts=CONTEXTS,
    cue={"what": ("if not $name", "$name2 = $name"), "then": (":\n", "\n")},
    frames=(
        "$what|$then    ",
        "$name3 = $num\n$what|$then    ",
        "$name = $func()\n$what|$then    ",
        "def $func($name):\n    $what|$then    ",
        "def $func($name, $name3):\n    $name3.$method()\n    $what|$then    ",
        "for $item in $coll:\n    $what|$then    ",
        "for $name in $coll:\n    $what|$then    ",
        "class $cls:\n    def $func(self, $name):\n        $what|$then        ",
        "try:\n    $name3 = $func()\n    $what|$then    ",
        "if $name3 is None:\n    $what|$then    ",
        "while $name3 > $num:\n    $what|$then    ",
        Template("def $func($name):\n    $what|$then    ", {"what": ("while not $name", "$name2 = $name")}),
        Template(
            "def $func($name, $name3):\n    $what|$then    ", {"what": ("if $name3 and $name", "self.$name2 = $name")}
        ),
        Template("for $item in $coll:\n    $what|$then    ", {"what": ("if $item > $name", "$item.$attr = $name")}),
    ),
    reach=(
        "with open($name3) as f:\n    $name = f.read()\n    $what|$then    ",
        "if $name3:\n    $name3 = $num\nelse:\n    $what|$then    ",
        "class $cls:\n    @property\n    def $attr(self):\n        $what|$then        ",
        Template("def $func($name):\n    $what|$then    ", {"what": ("if $name3 in $name", "self.$name3 = $name")}),
    ),
)

while_return_true = TemplateBehaviour(
    "while_return_true",
    "The colon after `while True`, the end of the line after `return True`.",
    contexts=CONTEXTS,
    cue={"kw": ("while", "return"), "then": (":\n", "\n")},
    frames=(
        "def $func($name):\n    $kw True|$then",
        "def $func():\n    $kw True|$then",
        "def $func($name):\n    $name2 = $num\n    $kw True|$then",
        "def $func($name, $name2):\n    $name2.$method($name)\n    $kw True|$then",
        "def $func($coll):\n    print(len($coll))\n    $kw True|$then",
        "def $func($name):\n    if $name > $num:\n        $kw True|$then",
        "def $func($name):\n    if not $name:\n        return False\n    $kw True|$then",
        "def $func($coll):\n    for $item in $coll:\n        print($item)\n    $kw True|$then",
        "def $func($name):\n    try:\n        $kw True|$then",
        "def main($name):\n    $name2 = $func($name)\n    $kw True|$then",
        "class $cls:\n    def $func(self):\n        $kw True|$then",
        "class $cls:\n    def $func(self, $name):\n        self.$name = $name\n        $kw True|$then",
        "class $cls:\n    def $func(self):\n        if self.$name:\n            $kw True|$then",
        "def $func($name):\n    # $verb the $name2\n    $kw True|$then",
    ),
    reach=(
        "class $cls:\n    @staticmethod\n    def $func($name):\n        $kw True|$then",
        "def $func($name):\n    with $name.open() as f:\n        $kw True|$then",
        "async def $func($name):\n    await $name.$method()\n    $kw True|$then",
        "def $func($name):\n    if $name:\n        $name = None\n    else:\n        $kw True|$then",
    ),
)

PYTHON_LINES = (if_equals, var_if, while_return_true)
