"""Python behaviours decided by a keyword, a quote or a bracket (Gao et al. 2025, Table 1)."""

from __future__ import annotations

from bridges.behaviours.fillers import pool
from bridges.behaviours.template import Template, TemplateBehaviour

single_double_quote = TemplateBehaviour(
    "single_double_quote",
    "A string argument is closed by the quote that opened it.",
    cue={"q": ('"', "'")},
    frames=(
        "$name = $func($q$text|$q)\n",
        "self.$name.set_text($q$text|$q)\n",
        "if not $name:\n    raise KeyError($q$text|$q)\n",
        "$name = $name2.find($q$word|$q)\n",
        "parser.$func($q$word|$q)\n",
        "def $func($name):\n    return render($name, $q$text|$q)\n",
        "for $item in $coll:\n    sys.stdout.write($q$text|$q)\n",
        "assert hasattr($name, $q$word|$q)\n",
    ),
)

final_kwarg = TemplateBehaviour(
    "final_kwarg",
    "The last parameter has a default exactly if the ones before it have one.",
    cue={"d": ("=None", ""), "more": ("", "$name5, ")},
    frames=(
        "def $func($name$d, $name2$d, $name3|$d):\n    ",
        "class $cls:\n    def $func(self, $name$d, $more$name2$d, $name3|$d):\n        ",
        "class $cls:\n    def __init__(self, $name$d, $more$name2$d, $name3|$d):\n        ",
        "async def $func($name$d, $more$name2$d, $name3|$d):\n    ",
        "import os\n\n\ndef $func($name$d, $name2|$d):\n    ",
        "class $cls:\n    @classmethod\n    def $func(cls, $name$d, $more$name2$d, $name3|$d):\n        ",
        "def $func($name, $name2$d, $more$name3$d, $name4|$d):\n    ",
        "$name4 = $num\n\n\ndef main($name$d, $more$name2$d, $name3|$d):\n    ",
    ),
)

# Where a tokenizer merges `):`, the question has to come before the parenthesis; where it does not, after it.
# The templates hold both forms, and `encode` keeps those that the tokenizer can express.
with_as = TemplateBehaviour(
    "with_as",
    "`with open(path)` is bound by ` as`; after a lock, or a context that gives nothing, comes the colon.",
    cue={"then": (" as f:\n", ":\n"), "end": (") as f:\n", "):\n")},
    fillers={"lock": pool("self.lock self._lock lock self.mutex self.write_lock write_lock self._mutex mutex")},
    frames=(
        Template("$name = $num\nwith $what($name2|$end", {"what": ("open", "cd")}),
        Template("def $func(self, $name):\n    with $what($name|$end", {"what": ("open", "suppress")}),
        Template("for $item in $coll:\n    with $name.$what|($end", {"what": ("open", "app_context")}),
        Template(
            "class $cls:\n    def $func(self, $name):\n        with self.$name.$what|($end", {"what": ("open", "lock")}
        ),
        Template("$name = $num\nwith $what|$then", {"what": ("open($name2)", "$lock")}),
        Template("def $func(self, $name):\n    with $what|$then", {"what": ("open($name)", "$lock")}),
        Template("$coll = []\nwith $what|$then", {"what": ("open('$word.txt')", "$lock")}),
        Template("$name = $func()\nwith $what|($end", {"what": ("tempfile.TemporaryDirectory", "torch.no_grad")}),
        Template("print($name)\nwith $what($name2|$end", {"what": ("zipfile.ZipFile", "redirect_stdout")}),
        Template(
            "try:\n    $name = $num\n    with $what|$end", {"what": ("open(self.$name2", "self.subTest($name2=$num2")}
        ),
        Template(
            "class $cls:\n    def $func(self, $name):\n        with $what|($end",
            {"what": ("$name.open", "warnings.catch_warnings")},
        ),
        Template("for $item in $coll:\n    with $what|$then", {"what": ("open($item)", "$lock")}),
        Template("try:\n    with $what|$then", {"what": ("open(self.$name)", "$lock")}),
        Template(
            "class $cls:\n    def $func(self, $name):\n        with $what|$then",
            {"what": ("open(str($name))", "$lock")},
        ),
    ),
)

# Only the opening bracket differs, so that nothing but the kind of the literal decides.
bracket_brace = TemplateBehaviour(
    "bracket_brace",
    "A first string is a key followed by `:` in a dict literal, an element followed by `,` in a list.",
    cue={
        "o": ("{", "["),
        "t": (": $num2, ", ", $num2, "),
        "line": (": $num2,\n", ",\n"),
        "s": (': "$word2", ', ', "$word2", '),
    },
    frames=(
        '$name = $o"$word|"$t',
        "$name = $o\n    '$word|'$line",
        "$name = $func($o'$word|'$t",
        'def $func($name):\n    return $o"$word|"$s',
        'self.$name = $o"$word|"$s',
        "$name = json.dumps($o'$word|'$t",
        '$name2 = $num\n$coll = $o\n    "$word|"$line',
        "def $func($coll):\n    for $item in $coll:\n        yield $o'$word|'$t",
    ),
)

bracket_counting = TemplateBehaviour(
    "bracket_counting",
    "As many brackets are closed as are open: `]` ends a flat row, `]]` a nested one.",
    cue={"o": ("", "["), "c": ("", "]"), "mid": (", ", ", ["), "first": ("$num], ", "$num, $num2], ")},
    frames=(
        "$name = [[$num, $num2]$mid$num3, $num4|]$c\n",
        "$name = $o[$num, $num2, $num3|]$c\n",
        "print($func([[$num]$mid$num2, $num3|]$c))\n",
        "def $func():\n    return [[$num, $num2]$mid$num3|]$c\n",
        "self.$name = [[$num, $num2, $num3]$mid$num4, $num5, $num6|]$c\n",
        "$name.append($o[$num, $num2|]$c)\n",
        "for $item in [[$num, $num2]$mid$num3, $num4|]$c:\n",
        "assert $func() == [[$num]$mid$num2|]$c\n",
    ),
)

for_while = TemplateBehaviour(
    "for_while",
    "` in` after the name in a `for` line, the colon after the name in a `while` line.",
    cue={"kw": ("for", "while"), "then": (" in $coll:\n", ":\n")},
    frames=(
        "$coll = $func()\n$kw $name|$then",
        "def $func($coll):\n    $kw $name|$then",
        "class $cls:\n    def $func(self, $name2):\n        $kw $name|$then",
        "if $coll:\n    $kw $name|$then",
        "class $cls:\n    def $func(self, $coll):\n        $name2 = $num\n        $kw $name|$then",
        "print($coll)\n\n$kw $name|$then",
        "try:\n    $name2 = $num\n    $kw $name|$then",
        "with open('$word.txt') as f:\n    $kw $name|$then",
    ),
)

else_elif = TemplateBehaviour(
    "else_elif",
    "The colon after `else`, the tested name after `elif`.",
    cue={"kw": ("else", "elif"), "then": (":|\n", " $name| == $num2:\n")},
    frames=(
        "if $name == $num:\n    $func()\n$kw|$then",
        "if $name > $num:\n    $name2 = $num2\n$kw|$then",
        "def $func($name):\n    if $name < $num:\n        print($name)\n    $kw|$then",
        "for $item in $coll:\n    if $name == $item:\n        continue\n    $kw|$then",
        "if $name == '$word':\n    $name2 = None\n$kw|$then",
        "class $cls:\n    def $func(self, $name):\n        if $name is None:\n            return $num\n"
        "        $kw|$then",
        "if $name >= $num:\n    $coll.append($name)\n$kw|$then",
        "while True:\n    if $name != $num:\n        break\n    $kw|$then",
    ),
)

# An attribute in place of a second line keeps the prompts equally long.
if_ternary = TemplateBehaviour(
    "if_ternary",
    "The same condition ends in the colon of an `if` line or in ` else` of a conditional expression.",
    cue={"then": (":\n", " else $num2\n"), "lead": ("", "return $name2 ")},
    frames=(
        Template("$name2 = $name3${lead}if $name > $num|$then", {"lead": ("\n", ".$attr ")}),
        "def $func($name):\n    ${lead}if $name == $num|$then",
        Template(
            "def $func($name):\n    ${lead} if $name|$then",
            {"lead": ("$name2 = $name3\n   ", "self.$name2 = $name3.$attr")},
        ),
        Template("$coll = []\n$name2 = $name3${lead}if $name is None|$then", {"lead": ("\n", ".$attr ")}),
        "class $cls:\n    def $func(self):\n        ${lead}if self.$name|$then",
        Template("print($name)\n$name2 = $item${lead}if $name < $num|$then", {"lead": ("\n", ".$attr ")}),
        Template(
            "try:\n    ${lead} if $name in $coll|$then",
            {"lead": ("$name2 = $name3\n   ", "self.$name2 = $name3.$attr")},
        ),
        Template(
            "while True:\n    ${lead} if not $name|$then",
            {"lead": ("$name2 = $func\n   ", "self.$name2 = $func.$attr")},
        ),
    ),
)

# The two sides end alike, one level deeper or not, and the model is asked for the next line's indentation.
indent_for = TemplateBehaviour(
    "indent_for",
    "A line after a `for` line is indented one level deeper, a line after another statement is not.",
    cue={"line": ("for $item in $coll:", "assert $item in $coll"), "deeper": ("    ", "")},
    frames=(
        "def $func($coll):\n    $line\n|    ${deeper}print($item)\n",
        "def $func($coll, $name):\n    $name2 = $num\n    $line\n|    $deeper$name.append($item)\n",
        Template(
            "if $coll:\n    $name = $num\n    $line\n|    $deeper$name = $item\n",
            {"line": ("for $item in $coll:", "$item = $coll.pop()")},
        ),
        "class $cls:\n    def $func(self, $coll):\n        $line\n|        ${deeper}self.$name = $item\n",
        "async def $func(self, $coll):\n    $line\n|    ${deeper}self.add($item)\n",
        Template(
            "try:\n    $name = $num\n    $line\n|    $deeper$name += $item\n",
            {"line": ("for $item in $coll:", "$item = len($coll)")},
        ),
        "while $name > $num:\n    $line\n|    ${deeper}$name.update($item)\n",
        "def main():\n    $coll = $func()\n    $line\n|    ${deeper}run($item)\n",
    ),
)

lambda_func = TemplateBehaviour(
    "lambda_func",
    "The colon after the argument of a `lambda`, the opening parenthesis after the name of a function.",
    cue={"then": (": $arg\n", "($num)\n")},
    fillers={"arg": pool("x y n a t s")},
    frames=(
        Template("$name = $what|$then", {"what": ("lambda $arg", "$func")}),
        Template("def $func($name):\n    return $what|$then", {"what": ("lambda $arg", "$func2")}),
        Template("$name = $num\n$coll.sort(key=$what|$then", {"what": ("lambda $arg", "itemgetter")}),
        Template("self.$name = $what|$then", {"what": ("lambda $arg", "$func")}),
        Template(
            "$coll = sorted($coll2, key=$what|$then",
            {"what": ("lambda $arg", "attrgetter"), "then": (": $arg.$attr)\n", "('$attr'))\n")},
        ),
        Template("if $name2:\n    $name = $what|$then", {"what": ("lambda $arg", "$func")}),
        Template("$name2 = $num\n$name.append($what|$then", {"what": ("lambda $arg", "$func")}),
        Template("$name = $num\n$coll = map($what|$then", {"what": ("lambda $arg", "$func")}),
    ),
)

if_equals = TemplateBehaviour(
    "if_equals",
    "` ==` after a name that is tested by `if`, ` =` after a name that is assigned to.",
    cue={"what": ("if $name", "$name"), "then": (" == $num:\n", " = $num\n")},
    frames=(
        "$name2 = $func()\n$what|$then",
        Template("def $func($name):\n    $what|$then", {"what": ("if $attr", "self.$attr")}),
        Template(
            "for $item in $coll:\n    $name = $num\n    $what|$then",
            {"what": ("if $attr", "$item.$attr"), "then": (" == '$word':\n", " = '$word'\n")},
        ),
        Template(
            "class $cls:\n    def $func(self, $attr):\n        $what|$then",
            {"what": ("if $attr", "self.$attr"), "then": (" == $name:\n", " = $name\n")},
        ),
        Template(
            "class $cls:\n    def $func(self, $name):\n        $name2 = None\n        $what|$then",
            {"what": ("if $attr", "self.$attr"), "then": (" == None:\n", " = None\n")},
        ),
        Template("with open($name2) as f:\n    $what|$then", {"what": ("if $attr", "$item.$attr")}),
        Template(
            "try:\n    $name = $num2\n    $what|$then",
            {"what": ("if $attr", "$name.$attr"), "then": (' == "$word":\n', ' = "$word"\n')},
        ),
        "while $name2 > $num2:\n    $what|$then",
    ),
)

# `if not x:` against `y = x` keeps the prompts equally long.
var_if = TemplateBehaviour(
    "var_if",
    "After the same name, the colon of a condition or the end of an assignment.",
    cue={"what": ("if not $name", "$name2 = $name"), "then": (":\n", "\n")},
    frames=(
        "def $func($name):\n    $what|$then    ",
        "$name3 = $num\n$what|$then",
        "for $item in $coll:\n    $what|$then    ",
        Template("$name = $func()\n$what|$then", {"what": ("if $name", "$name2 = $name")}),
        "class $cls:\n    def $func(self, $name):\n        $what|$then        ",
        Template("$name3 = $func($name)\n$what|$then", {"what": ("while $name", "$name2 = $name")}),
        "try:\n    $name3 = $func()\n    $what|$then    ",
        "if $name3 is None:\n    $what|$then    ",
    ),
)

while_return_true = TemplateBehaviour(
    "while_return_true",
    "The colon after `while True`, the end of the line after `return True`.",
    cue={"kw": ("while", "return"), "then": (":\n", "\n")},
    frames=(
        "def $func($name):\n    $kw True|$then",
        "class $cls:\n    def $func(self):\n        $name = $num\n        $kw True|$then",
        "def $func($name, $name2):\n    $name2.append($name)\n    $kw True|$then",
        "def $func():\n    if $name > $num:\n        $kw True|$then",
        "def $func(self, $coll):\n    print(len($coll))\n    $kw True|$then",
        "def main($name):\n    $name2 = $func($name)\n    $kw True|$then",
        "class $cls:\n    @staticmethod\n    def $func($name):\n        $kw True|$then",
        "def $func($name):\n    try:\n        $kw True|$then",
    ),
)

PYTHON_SYNTAX = (
    single_double_quote,
    final_kwarg,
    with_as,
    bracket_brace,
    bracket_counting,
    for_while,
    else_elif,
    if_ternary,
    indent_for,
    lambda_func,
    if_equals,
    var_if,
    while_return_true,
)
