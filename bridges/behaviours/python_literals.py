"""Python behaviours of strings, lists and dictionaries: what opened decides what follows (Gao et al. 2025, Table 1)."""

from __future__ import annotations

from bridges.behaviours.python_contexts import CONTEXTS
from bridges.behaviours.template import TemplateBehaviour

single_double_quote = TemplateBehaviour(
    "single_double_quote",
    "A string argument is closed by the quote that opened it.",
    contexts=CONTEXTS,
    cue={"q": ('"', "'")},
    frames=(
        "print($q$text|$q)\n",
        "$name = $func($q$word|$q)\n",
        "$name.$method($q$text|$q)\n",
        "$name = $name2.get($q$word|$q)\n",
        "self.$name = $func($q$word|$q)\n",
        "if not $name:\n    raise $error($q$text|$q)\n",
        "def $func($name):\n    print($q$text|$q)\n",
        "logger.info($q$text|$q)\n",
        "for $item in $coll:\n    print($item, $q$text|$q)\n",
        "$name = os.path.join($name2, $q$word|$q)\n",
        "$coll.append($q$word|$q)\n",
        "$name = input($q$text|$q)\n",
        "if $name is None:\n    $name2.update($q$word|$q)\n",
        "def $func($name):\n    return $name.split($q$word|$q)\n",
    ),
    reach=(
        "assert hasattr($name, $q$word|$q)\n",
        "parser.add_argument($q$word|$q)\n",
        "sys.stdout.write($q$text|$q)\n",
        "class $cls:\n    def __str__(self):\n        return str($q$text|$q)\n",
    ),
)

# Some tokenizers have one token for a bracket with a quote and some do not: numbers, names, and lines of their own
# keep the prompts equally long.
bracket_brace = TemplateBehaviour(
    "bracket_brace",
    "The first thing in a dict literal is a key followed by `:`, in a list literal an element followed by `,`.",
    contexts=CONTEXTS,
    cue={
        "o": ("{", "["),
        "then": (": $num2, ", ", $num2, "),
        "thenname": (": $name3, ", ", $name3, "),
        "thenword": (": '$word2', ", ", '$word2', "),
        "line": (": $num2,\n", ",\n"),
    },
    frames=(
        "$name = $o'$word|'$then",
        "$name = $o$num|$then",
        "$name = $o$num|$thenword",
        "$name = $o$name2|$thenname",
        "$name = $o\n    '$word|'$line",
        '$name = $o\n    "$word|"$line',
        "$name = $o\n    $num|$line",
        "def $func($name):\n    return $o$num|$then",
        "def $func($name):\n    return $o'$word|'$thenword",
        "def $func($name, $name2):\n    $name2 = $o'$word|'$then",
        "for $item in $o$num|$then",
        "for $item in $o'$word|'$thenword",
        "self.$name = $o$num|$then",
        'class $cls:\n    $name = $o\n        "$word|"$line',
        "if $name is None:\n    $name = $o'$word|'$then",
    ),
    reach=(
        "$name += $o$num|$then",
        "assert $name == $o'$word|'$then",
        "$name = $func($name2, $o$num|$then",
        "def $func($name):\n    for $item in $coll:\n        yield $o'$word|'$then",
    ),
)

# A row after a row or after a bare number, or a flat list that a default or an attribute elsewhere makes as long.
bracket_counting = TemplateBehaviour(
    "bracket_counting",
    "As many brackets are closed as are open: `]` ends a flat list, `]]` the last row of a nested one.",
    contexts=CONTEXTS,
    cue={"mid": (", ", ", ["), "c": ("", "]"), "o": ("[", "[["), "d": ("=None", ""), "a": (".$attr", "")},
    frames=(
        "$name = [$num${mid}$num2|]$c\n",
        "$name = [$num${mid}$num2, $num3|]$c\n",
        "$name = [$num, $num2${mid}$num3|]$c\n",
        "$name = [[$num, $num2]${mid}$num3|]$c\n",
        "for $item in [$num${mid}$num2, $num3|]$c:\n",
        "for $item in [[$num]${mid}$num2|]$c:\n",
        "def $func($name$d):\n    $name2 = $o$num, $num2|]$c\n",
        "def $func($name$d):\n    $name2 = $o$num, $num2, $num3, $num4|]$c\n",
        "def $func(self, $name$d):\n    self.$name2 = $o$num, $num2|]$c\n",
        "def $func($name$d):\n    $name2 = $o$name, $name3|]$c\n",
        "def $func($name$d):\n    for $item in $o$num, $num2|]$c:\n",
        "def $func($name$d):\n    $name.append($o$num, $num2|]$c)\n",
        "$name2 = $name3$a\n$name = $o$num, $num2|]$c\n",
        "$name2 = $name3$a\n$name = $o$num, $num2, $num3|]$c\n",
        "$name2 = $name3$a\nfor $item in $o$num, $num2|]$c:\n",
    ),
    reach=(
        "assert $func($name) == [[$num]${mid}$num2|]$c\n",
        "print($name, [$num${mid}$num2, $num3|]$c)\n",
        "if $name in [[$num, $num2]${mid}$num3|]$c:\n",
        "class $cls:\n    $name = [$num, $num2${mid}$num3|]$c\n",
    ),
)

# Both strings are f-strings. Outside braces the word stands alone or in other marks, so that the prompts are equally
# long and end in the same token.
fstring_brace = TemplateBehaviour(
    "fstring_brace",
    "A variable inside an f-string is followed by the closing brace, the same word in plain text is not.",
    contexts=CONTEXTS,
    cue={"o": ("{", ""), "c": ("}", ""), "m": ("{", "("), "w": ("}", ")"), "a": ("{", "'"), "b": ("}", "'")},
    frames=(
        'print(f"$o$name|$c")\n',
        "print(f'$text: $m$name|$w')\n",
        '$name2 = f"$o$name|$c"\n',
        'def $func($name):\n    print(f"$o$name|$c")\n',
        'print(f"$text $m$name|$w")\n',
        'print(f"$word: $m$name|$w")\n',
        "$name2 = f'$text $m$name|$w'\n",
        'def $func($name):\n    return f"$word $m$name|$w"\n',
        'raise $error(f"$text $m$name|$w")\n',
        'raise $error(f"$text $a$name|$b")\n',
        'logger.info(f"$text $a$name|$b")\n',
        'for $name in $coll:\n    print(f"$word $a$name|$b")\n',
        '$coll.append(f"$word $m$name|$w")\n',
        'if $name is None:\n    print(f"$text: $m$name|$w")\n',
    ),
    reach=(
        'self.$name2 = f"$text $m$name|$w"\n',
        'assert $name, f"$text $a$name|$b"\n',
        'sys.stderr.write(f"$o$name|$c")\n',
        'class $cls:\n    def __str__(self):\n        return f"$word $m$name|$w"\n',
    ),
)

PYTHON_LITERALS = (single_double_quote, bracket_brace, bracket_counting, fstring_brace)
