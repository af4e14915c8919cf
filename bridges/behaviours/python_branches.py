"""Python behaviours of loops and conditions: what a line began with decides how it goes on (Gao et al. 2025, Table 1)."""

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

# No statement ends in `elif`, so the name that follows is the last token of both: `elif x:` against `... else x`.
else_elif = TemplateBehaviour(
    "else_elif",
    "The colon after the name in an `elif` line, the end of the line after a name that follows `else`.",
    contexts=CONTEXTS,
    cue={"then": (":\n", "\n")},
    frames=tuple(
        Template(text, {"line": (first, second)})
        for text, first, second in (
            ("if $name:\n    $name2 = $line $name4|$then", "$name3\nelif", "$name3 if $item else"),
            ("if $name > $num:\n    $name2 = $line $name4|$then", "$name3\nelif", "$name3 if $item else"),
            ("if $name == $num:\n    $name2 = $line $name4|$then", "$name3\nelif", "$name3 if $item else"),
            ("if not $name:\n    self.$name2 = $line $name4|$then", "$name3\nelif", "$name3 if $item else"),
            ("if $name is None:\n    $name2 = $line $name4|$then", "None\nelif", "None if $item else"),
            ("if $name:\n    $name2 = $line $name4|$then", "$num2\nelif", "$num2 if $item else"),
            ("if $name in $coll:\n    $name2 = $line $name4|$then", "$name3\nelif", "$name3 if $name else"),
            ("def $func($name):\n    if $name:\n        return $line $name4|$then", "$name3\n    elif", "$name3 if $item else"),
            ("def $func($name):\n    if $name == '$word':\n        return $line $name4|$then", "$num\n    elif", "$num if $item else"),
            ("def $func(self, $name):\n    if $name:\n        self.$name2 = $line $name4|$then", "$name\n    elif", "$name if $item else"),
            ("for $item in $coll:\n    if $item:\n        $name2 = $line $name4|$then", "$item\n    elif", "$item if $name3 else"),
            ("for $item in $coll:\n    if $name:\n        $name2 += $line $name4|$then", "$num\n    elif", "$num if $item else"),
            ("class $cls:\n    def $func(self, $name):\n        if $name:\n            $name2 = $line $name4|$then", "True\n        elif", "True if $name3 else"),
            ("while $name:\n    if $name2 > $num:\n        $name2 = $line $name4|$then", "$name3\n    elif", "$name3 if $item else"),
        )
    ),
    reach=tuple(
        Template(text, {"line": (first, second)})
        for text, first, second in (
            ("try:\n    if $name:\n        $name2 = $line $name4|$then", "$name3\n    elif", "$name3 if $item else"),
            ("if $name and $item:\n    $name2.$attr = $line $name4|$then", "$name3\nelif", "$name3 if $item else"),
            ("def $func($name):\n    if len($name) > $num:\n        yield $line $name4|$then", "$name\n    elif", "$name if $item else"),
            ("if $name:\n    $name2 = $num\n    $name3 = $line $name4|$then", "$item\nelif", "$item if $name else"),
        )
    ),
)

# The line is the same; a name and a space or an attribute in place of a line end keep the prompts equally long.
_BEFORE_IF = ("$name2 = $name3\n   ", "self.$name2 = $name3.$attr")
if_ternary = TemplateBehaviour(
    "if_ternary",
    "The same condition ends in the colon of an `if` line or in ` else` of a conditional expression.",
    contexts=CONTEXTS,
    cue={"then": (":\n", " else $num2\n"), "two": ("\n", ".$attr ")},
    frames=(
        "$name2 = $name3${two}if $name > $num|$then",
        "$name2 = $name3${two}if $name is None|$then",
        "$name2 = $name3${two}if $name == $num|$then",
        "self.$name2 = $name3${two}if $name in $coll|$then",
        "$coll = []\n$name2 = $item${two}if $name < $num|$then",
        "$name2 += $name3${two}if $name|$then",
        Template("def $func($name):\n    $before if $name|$then", {"before": _BEFORE_IF}),
        Template("def $func($name):\n    $before if $name == $num|$then", {"before": _BEFORE_IF}),
        Template("def $func($name, $name2):\n    $before if $name > $name4|$then", {"before": _BEFORE_IF}),
        Template("try:\n    $before if $name in $coll|$then", {"before": _BEFORE_IF}),
        Template("for $item in $coll:\n    $before if $item is None|$then", {"before": _BEFORE_IF}),
        Template("while True:\n    $before if not $name|$then", {"before": _BEFORE_IF}),
        Template("def $func(self, $name):\n    $before if self.$name|$then", {"before": _BEFORE_IF}),
        Template("if $name4:\n    $before if $name != $num|$then", {"before": _BEFORE_IF}),
    ),
    reach=(
        "$name2.$attr = $name3${two}if len($name) > $num|$then",
        "print($name4)\n$name2 = $num${two}if $name is not None|$then",
        Template("with open($name4) as f:\n    $before if $name >= $num|$then", {"before": _BEFORE_IF}),
        Template("async def $func($name):\n    $before if isinstance($name, str)|$then", {"before": _BEFORE_IF}),
    ),
)

# The prompts differ in nothing but how deep the last line stands: inside the `if` block or after it.
indent_for = TemplateBehaviour(
    "indent_for",
    "The line after a `for` line is indented one level deeper than that line.",
    contexts=CONTEXTS,
    cue={"in": ("    ", ""), "more": ("        ", "    ")},
    frames=(
        "def $func($coll):\n    if $coll:\n        print($name)\n    ${in}for $item in $coll:\n|    ${more}$method($item)\n",
        "def $func($coll):\n    if $name:\n        $name2 = $name\n    ${in}for $item in $coll:\n|    ${more}print($item)\n",
        "def $func($name, $coll):\n    if $name > $num:\n        $name = $num\n    ${in}for $item in $coll:\n|    ${more}$name += $item\n",
        "def $func($coll, $name):\n    if not $name:\n        $name = []\n    ${in}for $item in $coll:\n|    ${more}$name.append($item)\n",
        "def $func(self, $coll):\n    if self.$name:\n        $name2 = $num\n    ${in}for $item in $coll:\n|    ${more}self.add($item)\n",
        "def $func($name):\n    if $name is None:\n        $coll = []\n    ${in}for $item in $coll:\n|    ${more}print($item)\n",
        "def $func($coll):\n    if $name in $coll:\n        $coll.remove($name)\n    ${in}for $item in $coll:\n|    ${more}print($item)\n",
        "def $func($coll):\n    for $item in $coll:\n        $name.$method($item)\n    ${in}for $item2 in $coll2:\n|    ${more}print($item2)\n",
        "for $item in $coll:\n    if $item:\n        $name = $item.$attr\n    ${in}for $item2 in $item:\n|    ${more}print($item2)\n",
        "while $name:\n    if $name2 == $num:\n        $name.$method()\n    ${in}for $item in $coll:\n|    ${more}print($item)\n",
        "with open($name) as f:\n    if $name2:\n        $name3 = $num\n    ${in}for $item in f:\n|    ${more}print($item)\n",
        "class $cls:\n    def $func(self, $coll):\n        if $coll:\n            self.$name = $num\n        ${in}for $item in $coll:\n|        ${more}self.add($item)\n",
        "class $cls:\n    def $func(self):\n        if self.$name:\n            self.$method()\n        ${in}for $item in self.$coll:\n|        ${more}print($item)\n",
        "def $func($coll):\n    $name = $num\n    if $name2:\n        $name = $name2\n    ${in}for $item in $coll:\n|    ${more}$name += $item\n",
    ),
    reach=(
        "try:\n    while $name:\n        $name = $name.$attr\n    ${in}for $item in $coll:\n|    ${more}print($item)\n",
        "def $func($coll):\n    with $name.open() as f:\n        f.write($name2)\n    ${in}for $item in $coll:\n|    ${more}print($item)\n",
        "async def $func($coll):\n    if len($coll) > $num:\n        $coll.pop()\n    ${in}for $item in $coll:\n|    ${more}print($item)\n",
        "def main($name):\n    if $name != $num:\n        print($name)\n    ${in}for i in range($num2):\n|    ${more}$func(i)\n",
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
