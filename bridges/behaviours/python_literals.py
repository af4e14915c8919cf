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
        "num_next": (": $num2, ", ", $num2, "),
        "name_next": (": $name3, ", ", $name3, "),
        "text_next": (": '$word2', ", ", '$word2', "),
        "line": (": $num2,\n", ",\n"),
    },
    frames=(
        "$name = $o'$word|'$num_next",
        "$name = $o$num|$num_next",
        "$name = $o$num|$text_next",
        "$name = $o$name2|$name_next",
        "$name = $o\n    '$word|'$line",
        '$name = $o\n    "$word|"$line',
        "$name = $o\n    $num|$line",
        "def $func($name):\n    return $o$num|$num_next",
        "def $func($name):\n    return $o'$word|'$text_next",
        "def $func($name, $name2):\n    $name2 = $o'$word|'$num_next",
        "for $item in $o$num|$num_next",
        "for $item in $o'$word|'$text_next",
        "self.$name = $o$num|$num_next",
        'class $cls:\n    $name = $o\n        "$word|"$line',
        "if $name is None:\n    $name = $o'$word|'$num_next",
    ),
    reach=(
        "$name += $o$num|$num_next",
        "assert $name == $o'$word|'$num_next",
        "return_value = $func($name, $o$num|$num_next",
        "def $func($name):\n    for $item in $coll:\n        yield $o'$word|'$num_next",
    ),
)

# Either two rows of an outer list or one row followed by bare elements: the same numbers in the same places.
bracket_counting = TemplateBehaviour(
    "bracket_counting",
    "As many brackets are closed as are open: `]` ends a flat list, `]]` the last row of a nested one.",
    contexts=CONTEXTS,
    cue={"mid": (", ", ", ["), "c": ("", "]")},
    frames=(
        "$name = [[$num, $num2]${mid}$num3, $num4|]$c\n",
        "$name = [[$num]${mid}$num2|]$c\n",
        "$name = [[$num, $num2]${mid}$num3|]$c\n",
        "$name = [$num${mid}$num2, $num3|]$c\n",
        "$name = [$num, $num2${mid}$num3|]$c\n",
        "$name = [[$num, $num2, $num3]${mid}$num4, $num5, $num6|]$c\n",
        "self.$name = [[$num]${mid}$num2|]$c\n",
        "$name = $func([[$num, $num2]${mid}$num3|]$c)\n",
        "$name += [[$num]${mid}$num2, $num3|]$c\n",
        "def $func($name):\n    return [[$num]${mid}$num2|]$c\n",
        "def $func():\n    return [$num${mid}$num2|]$c\n",
        "for $item in [[$num, $num2]${mid}$num3, $num4|]$c:\n",
        "$coll.append([$num${mid}$num2|]$c)\n",
        "$name = np.array([[$num, $num2]${mid}$num3, $num4|]$c)\n",
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
        "print(f'$o$name|$c')\n",
        '$name2 = f"$o$name|$c"\n',
        'def $func($name):\n    return f"$o$name|$c"\n',
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

# Named by the suite; a module holds one kind of them.
PYTHON_LITERALS = (single_double_quote, bracket_brace, bracket_counting, fstring_brace)
