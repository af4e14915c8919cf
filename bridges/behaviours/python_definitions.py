"""Python behaviours of functions and classes: parameters, `__init__`, lambda (Gao et al. 2025, Table 1)."""

from __future__ import annotations

from bridges.behaviours.fillers import pool
from bridges.behaviours.python_contexts import CONTEXTS
from bridges.behaviours.template import Template, TemplateBehaviour

_NONE = {"d": ("=None", ""), "more": ("", "$name6, "), "last": ("=None", "")}
# Each `=0` is two tokens, as many as one more parameter.
_ZERO = {"d": ("=0", ""), "more": ("", "$name6, "), "last": ("=0", "")}
_FALSE = {"d": ("=False", ""), "more": ("", "$name6, "), "last": ("=False", "")}

# Two defaults are as long as one more parameter without one.
final_kwarg = TemplateBehaviour(
    "final_kwarg",
    "The last parameter has a default exactly if the ones before it have one.",
    contexts=CONTEXTS,
    cue=_NONE,
    frames=(
        "def $func($name$d, $more$name2$d, $name3|$last):\n    ",
        "def main($name$d, $more$name2$d, $name3|$last):\n    ",
        "def _$func($name$d, $more$name2$d, $name3|$last):\n    ",
        "def $func($name, $name2$d, $more$name3$d, $name4|$last):\n    ",
        "async def $func($name$d, $more$name2$d, $name3|$last):\n    ",
        "class $cls:\n    def $func(self, $name$d, $more$name2$d, $name3|$last):\n        ",
        "class $cls:\n    def __init__(self, $name$d, $more$name2$d, $name3|$last):\n        ",
        "class $cls(object):\n    def __init__(self, $name, $name2$d, $more$name3$d, $name4|$last):\n        ",
        "class $cls:\n    @classmethod\n    def $func(cls, $name$d, $more$name2$d, $name3|$last):\n        ",
        "class $cls:\n    $name4 = $num\n\n    def $func(self, $name$d, $more$name2$d, $name3|$last):\n        ",
        Template("def $func($name$d, $more$name2|$last):\n    ", _ZERO),
        Template("class $cls:\n    def $func(self, $name$d, $more$name2|$last):\n        ", _ZERO),
        Template("def $func($name$d, $more$name2$d, $name3|$last):\n    ", _FALSE),
        Template("class $cls:\n    def __init__(self, $name$d, $more$name2$d, $name3|$last):\n        ", _FALSE),
    ),
    reach=(
        "class $cls:\n    def __call__(self, $name$d, $more$name2$d, $name3|$last):\n        ",
        "def $func($name4):\n    def wrapper($name$d, $more$name2$d, $name3|$last):\n        ",
        "@$name5.$method\ndef $func($name$d, $more$name2$d, $name3|$last):\n    ",
        Template(
            "class $cls:\n    @staticmethod\n    def $func($name$d, $more$name2$d, $name3|$last):\n        ", _FALSE
        ),
    ),
)

# The first arguments have been stored already, and the next line stores one of two that are left.
_FIRST = "        self.$name3 = $name3\n        self.$name4 = $name4\n"
_NEXT = "        self.$target =| $target|\n"
class_init = TemplateBehaviour(
    "class_init",
    "An `__init__` stores each argument under its own name: `self.size = size`.",
    contexts=CONTEXTS,
    cue={"target": ("$name", "$name2")},
    frames=(
        "class $cls:\n    def __init__(self, $name3, $name4, $name, $name2):\n" + _FIRST + _NEXT,
        "class $cls:\n    def __init__(self, $name3, $name4, $name2, $name):\n" + _FIRST + _NEXT,
        "class $cls:\n    def __init__(self, $name3, $name4, $name5, $name, $name2):\n"
        + _FIRST
        + "        self.$name5 = $name5\n"
        + _NEXT,
        "class $cls(object):\n    def __init__(self, $name3, $name4, $name, $name2):\n" + _FIRST + _NEXT,
        "class $cls(Exception):\n    def __init__(self, $name3, $name4, $name, $name2):\n" + _FIRST + _NEXT,
        "class $cls(Base):\n    def __init__(self, $name3, $name4, $name, $name2):\n        super().__init__()\n"
        + _FIRST
        + _NEXT,
        "class $cls(Base):\n    def __init__(self, $name3, $name4, $name5, $name2, $name):\n"
        + _FIRST
        + "        self.$name5 = $name5\n"
        + _NEXT,
        "class $cls:\n    def __init__(self, $name3, $name4, $name, $name2):\n        self._$name3 = $name3\n"
        "        self._$name4 = $name4\n        self._$target =| $target|\n",
        "class $cls:\n    def __init__(self, $name3, $name, $name2):\n        self.$name3 = $name3\n"
        "        self.$name4 = []\n" + _NEXT,
        "class $cls:\n    $name5 = $num\n\n    def __init__(self, $name3, $name4, $name, $name2):\n" + _FIRST + _NEXT,
        'class $cls:\n    """The $name5."""\n\n    def __init__(self, $name3, $name4, $name, $name2):\n'
        + _FIRST
        + _NEXT,
        "class $cls:\n    def __init__(self, $name3, $name4, $name, $name2=None):\n" + _FIRST + _NEXT,
        "class $cls:\n    def __init__(self, $name3, $name4, $name, $name2, $name5):\n" + _FIRST + _NEXT,
        "class $cls:\n    def __init__(self, $name3, $name4, $name, $name2, **kwargs):\n" + _FIRST + _NEXT,
    ),
    reach=(
        "class $cls:\n    def __init__(self, $name, $name2, **kwargs):\n" + _NEXT,
        "class $cls(Base):\n    def __init__(self, $name, $name2, *args):\n        Base.__init__(self, *args)\n"
        + _NEXT,
        "class $cls:\n    def __init__(self, $name3, $name, $name2):\n        if $name3:\n    " + _NEXT,
        "class $cls:\n    def set(self, $name, $name2):\n" + _NEXT,
    ),
)

# The bundled vocabulary cuts `lambda` in two; a name with an operator or a comma is as long.
lambda_func = TemplateBehaviour(
    "lambda_func",
    "The colon after the argument of a `lambda`, the opening parenthesis after the name of a function that is called.",
    contexts=CONTEXTS,
    cue={
        "then": (": $num\n", "($num)\n"),
        "add": ("lambda", "$name3 +"),
        "sub": ("lambda", "$name3 -"),
        "mul": ("lambda", "$name3 *"),
        "or": ("lambda", "$name3 or"),
        "and": ("lambda", "$name3 and"),
        "arg": ("lambda", "$name3,"),
        "str": ("lambda", "str,"),
    },
    fillers={
        "f": pool("f g h func fn cls callback handler key match method process check test filter format type call c p")
    },
    frames=(
        "$name = $add $f|$then",
        "$name = $mul $f|$then",
        "self.$name = $or $f|$then",
        "$name.$attr = $or $f|$then",
        "$name[$num] = $sub $f|$then",
        "$name = list(map(${str} $f|$then",
        "$func($name=$num, $name2=$or $f|$then",
        "$name = $name2.$method($arg $f|$then",
        "def $func($name):\n    return $and $f|$then",
        "def $func($name, $name2):\n    $name4 = $add $f|$then",
        "def $func($name):\n    if $name:\n        return $or $f|$then",
        "class $cls:\n    def $func(self):\n        self.$name = $and $f|$then",
        "if $name2:\n    $name = $sub $f|$then",
        "for $item in $coll:\n    $name = $add $f|$then",
    ),
    reach=(
        "while $name2:\n    $name = $add $f|$then",
        "try:\n    $name.$method($name2, $arg $f|$then",
        "class $cls:\n    $name = $add $f|$then",
        "assert $func($name, $arg $f|$then",
    ),
)

PYTHON_DEFINITIONS = (final_kwarg, class_init, lambda_func)
