"""Python behaviours of loops and conditions: how a line begins decides how it goes on (Gao et al. 2025, Table 1)."""

from __future__ import annotations

from bridges.behaviours.python_contexts import CONTEXTS
from bridges.behaviours.template import Template, TemplateBehaviour

# Always in a block: at the start of a line, tokenizers tend to cut `while` in two.
for_while = TemplateBehaviour(
    "for_while",
    "` in` after the name in a `for` line, the colon after the name in a `while` line.",
    contexts=CONTEXTS,
    cue={"kw": ("for", "while"), "then": (" in $coll:\n", ":\n")},
    frames=(
        "def $func($coll):\n    $kw $name|$then",
        "def $func($coll):\n    $name2 = $num\n    $kw $name|$then",
        "def $func($name2, $coll):\n    $name2.$method()\n    $kw $name|$then",
        "class $cls:\n    def $func(self, $name2):\n        $kw $name|$then",
        "class $cls:\n    def $func(self, $coll):\n        $name2 = $num\n        $kw $name|$then",
        "if $coll:\n    $kw $name|$then",
        "if $name2 is None:\n    $name2 = $coll\n    $kw $name|$then",
        "try:\n    $name2 = $num\n    $kw $name|$then",
        "with open($name2) as f:\n    $kw $name|$then",
        "for $item in $coll:\n    $kw $name|$then",
        "def $func($coll):\n    if not $coll:\n        return\n    $kw $name|$then",
        "def $func(self):\n    $coll = self.$coll2\n    $kw $name|$then",
        "def $func($coll):\n    if $name2 > $num:\n        $kw $name|$then",
        "def main():\n    $coll = $func()\n    $kw $name|$then",
    ),
    reach=(
        "if $name2:\n    $name3 = $num\nelse:\n    $kw $name|$then",
        "class $cls:\n    @staticmethod\n    def $func($coll):\n        $kw $name|$then",
        "def $func($coll):\n    # $verb the $name2\n    $kw $name|$then",
        "while $name2 < $num:\n    $name2 += 1\n    $kw $name|$then",
    ),
)


def _chain(text: str, value: str, pad: str = "", test: str = "$item") -> Template:
    """`text` and a value, then either an `elif` line after `pad` or the rest of a conditional expression."""
    line = (f"{value}\n{pad}elif", f"{value} if {test} else")
    return Template(text + "$line $name4|$then", {"line": line, "then": (":\n", "\n")})


# No statement goes on after `elif` as it does after `else`, so the name that follows is the last token of both:
# `elif x:` against `y if z else x`.
else_elif = TemplateBehaviour(
    "else_elif",
    "The colon after the name in an `elif` line, the end of the line after a name that follows `else`.",
    contexts=CONTEXTS,
    frames=(
        _chain("if $name:\n    $name2 = ", "$name3"),
        _chain("if $name > $num:\n    $name2 = ", "$name3"),
        _chain("if $name == $num:\n    $name2 = ", "$name3"),
        _chain("if not $name:\n    self.$name2 = ", "$name3"),
        _chain("if $name is None:\n    $name2 = ", "None"),
        _chain("if $name:\n    $name2 = ", "$num2"),
        _chain("if $name in $coll:\n    $name2 = ", "$name3", test="$name"),
        _chain("def $func($name):\n    if $name:\n        return ", "$name3", "    "),
        _chain("def $func($name):\n    if $name == '$word':\n        return ", "$num", "    "),
        _chain("def $func(self, $name):\n    if $name:\n        self.$name2 = ", "$name", "    "),
        _chain("for $item in $coll:\n    if $item:\n        $name2 = ", "$item", "    ", "$name3"),
        _chain("for $item in $coll:\n    if $name:\n        $name2 += ", "$num", "    "),
        _chain(
            "class $cls:\n    def $func(self, $name):\n        if $name:\n            $name2 = ",
            "True",
            "        ",
            "$name3",
        ),
        _chain("while $name:\n    if $name2 > $num:\n        $name2 = ", "$name3", "    "),
    ),
    reach=(
        _chain("try:\n    if $name:\n        $name2 = ", "$name3", "    "),
        _chain("if $name and $item:\n    $name2.$attr = ", "$name3"),
        _chain("def $func($name):\n    if len($name) > $num:\n        yield ", "$name", "    "),
        _chain("if $name:\n    $name2 = $num\n    $name3 = ", "$item", test="$name"),
    ),
)

# The same line before; an attribute in place of a line end keeps the prompts equally long.
if_ternary = TemplateBehaviour(
    "if_ternary",
    "The same condition ends in the colon of an `if` line or in ` else` of a conditional expression.",
    contexts=CONTEXTS,
    cue={"then": (":\n", " else $num2\n"), "end": ("\n", ".$attr "), "in": ("\n    ", ".$attr ")},
    frames=(
        "$name2 = $name3${end}if $name > $num|$then",
        "$name2 = $name3${end}if $name is None|$then",
        "$name2 = $name3${end}if $name == $num|$then",
        "self.$name2 = $name3${end}if $name in $coll|$then",
        "$coll = []\n$name2 = $item${end}if $name < $num|$then",
        "$name2 += $name3${end}if $name|$then",
        "def $func($name):\n    $name2 = $name3${in}if $name|$then",
        "def $func($name):\n    $name2 = $name3${in}if $name == $num|$then",
        "def $func($name, $name2):\n    $name2 = $name3${in}if $name > $name4|$then",
        "try:\n    $name2 = $name3${in}if $name in $coll|$then",
        "for $item in $coll:\n    $name2 = $name3${in}if $item is None|$then",
        "while True:\n    $name2 = $name3${in}if not $name|$then",
        "def $func(self, $name):\n    self.$name2 = $name3${in}if self.$name|$then",
        "if $name4:\n    $name2 += $name3${in}if $name != $num|$then",
    ),
    reach=(
        "$name2.$attr2 = $name3${end}if len($name) > $num|$then",
        "print($name4)\n$name2 = $name3${end}if $name is not None|$then",
        "with open($name4) as f:\n    $name2 = $name3${in}if $name >= $num|$then",
        "async def $func($name):\n    $name2 = $name3${in}if self.$name|$then",
    ),
)

# The prompts differ in nothing but how deep the last line stands: inside the block above it or after it.
_LOOP = "    ${in}for $item in $coll:\n|    ${more}print($item)\n"
_INNER = "    ${in}for $item2 in $item:\n|    ${more}print($item2)\n"
_DEEP = "        ${in}for $item in $coll:\n|        ${more}print($item)\n"
indent_for = TemplateBehaviour(
    "indent_for",
    "The line after a `for` line is indented one level deeper than that line.",
    contexts=CONTEXTS,
    cue={"in": ("    ", ""), "more": ("        ", "    ")},
    frames=(
        "def $func($coll):\n    if $coll:\n        print($name)\n" + _LOOP,
        "def $func($coll):\n    if $name:\n        $name2 = $name\n" + _LOOP,
        "def $func($name, $coll):\n    if $name > $num:\n        $name = $num\n" + _LOOP,
        "def $func($coll, $name):\n    if not $name:\n        $name = []\n" + _LOOP,
        "def $func(self, $coll):\n    if self.$name:\n        $name2 = $num\n" + _LOOP,
        "def $func($name):\n    if $name is None:\n        $coll = []\n" + _LOOP,
        "def $func($coll):\n    if $name in $coll:\n        $coll.remove($name)\n" + _LOOP,
        "def $func($coll):\n    for $item2 in $coll2:\n        $name.$method($item2)\n" + _LOOP,
        "def $func($coll):\n    $name = $num\n    if $name2:\n        $name = $name2\n" + _LOOP,
        "for $item in $coll:\n    if $item:\n        $name = $item.$attr\n" + _INNER,
        "while $name:\n    if $name2 == $num:\n        $name.$method()\n" + _LOOP,
        "with open($name) as $item:\n    if $name2:\n        $name3 = $num\n" + _INNER,
        "class $cls:\n    def $func(self, $coll):\n        if $coll:\n            self.$name = $num\n" + _DEEP,
        "class $cls:\n    def $func(self):\n        if self.$name:\n            self.$method()\n" + _DEEP,
    ),
    reach=(
        "try:\n    while $name:\n        $name = $name.$attr\n" + _LOOP,
        "def $func($coll):\n    with $name.open() as f:\n        f.write($name2)\n" + _LOOP,
        "async def $func($coll):\n    if len($coll) > $num:\n        $coll.pop()\n" + _LOOP,
        "def main($name):\n    if $name != $num:\n        print($name)\n" + _LOOP,
    ),
)

# The second name is a loop variable or stands somewhere else: the same words in both prompts.
enumerate_range = TemplateBehaviour(
    "enumerate_range",
    "`enumerate` after two loop variables, `range` after one.",
    contexts=CONTEXTS,
    cue={"x": ("", ", $item"), "vars": ("i, $item", "i"), "over": (" enumerate($coll):\n", " range(len($coll)):\n")},
    frames=(
        "def $func($coll$x):\n    for $vars in|$over",
        "def $func(self, $coll$x):\n    for $vars in|$over",
        "def $func($name, $coll$x):\n    $name2 = $num\n    for $vars in|$over",
        "def $func($coll$x):\n    $name = []\n    for $vars in|$over",
        "$coll$x = $func()\nfor $vars in|$over",
        "$coll$x = $func($name)\n\nfor $vars in|$over",
        "print($coll$x)\nfor $vars in|$over",
        "$coll = $func($name$x)\nfor $vars in|$over",
        "$coll = $func($name$x)\n$name2 = $num\nfor $vars in|$over",
        "$name = $name2.$method($coll$x)\nfor $vars in|$over",
        "class $cls:\n    def $func(self, $coll$x):\n        for $vars in|$over",
        "class $cls:\n    def $func(self, $coll$x):\n        self.$name = $num\n        for $vars in|$over",
        "if $name:\n    $coll$x = $func()\n    for $vars in|$over",
        "for $name$x in $coll:\n    for $vars in|$over",
    ),
    reach=(
        "with open($name$x) as f:\n    for $vars in|$over",
        "def $func($coll$x):\n    if not $coll:\n        return\n    for $vars in|$over",
        "try:\n    $coll.$method($name$x)\n    for $vars in|$over",
        "from $name import $coll$x\n\nfor $vars in|$over",
    ),
)

PYTHON_BRANCHES = (for_while, else_elif, if_ternary, indent_for, enumerate_range)
