"""Python behaviours of `with` and `open`: bound or not, for reading or for writing (Gao et al. 2025, Table 1)."""

from __future__ import annotations

from bridges.behaviours.fillers import FILLERS, pool
from bridges.behaviours.python_contexts import CONTEXTS
from bridges.behaviours.template import Template, TemplateBehaviour

# The question comes inside the parentheses, since some tokenizers have one token for what closes them and the line.
# Both managers have equally many tokens in the bundled vocabulary, or a default, a parameter or an attribute makes up.
_CD = {"what": ("open", "cd"), "d": ("=None", ""), "a": (".$attr", "")}
_DEVICE = {"what": ("open", "torch.device"), "p": (", $name3", "")}
_SUPPRESS = {"what": ("open", "suppress"), "p": (", $name3", "")}
with_as = TemplateBehaviour(
    "with_as",
    "`with open(path)` is bound by ` as`; after a context manager that gives nothing comes the colon.",
    contexts=CONTEXTS,
    cue={"end": (") as f:\n", "):\n")},
    frames=(
        Template("def $func($name$d):\n    with $what($name|$end", _CD),
        Template("def $func(self, $name$d):\n    with $what($name|$end", _CD),
        Template("def $func($name, $name2$d):\n    $name2 = $num\n    with $what($name|$end", _CD),
        Template("class $cls:\n    def $func(self, $name$d):\n        with $what(self.$name|$end", _CD),
        Template("$name2 = $name3$a\nwith $what($name|$end", _CD),
        Template("try:\n    $name2 = $name3$a\n    with $what($name|$end", _CD),
        Template("for $name$p in $coll:\n    with $what($name|$end", _DEVICE),
        Template("def $func(self, $name$p):\n    with $what(self.$name|$end", _DEVICE),
        Template("def $func($name):\n    with $what($name|$end", {"what": ("codecs.open", "tf.device")}),
        Template("$name = $num\nwith $what($name|$end", {"what": ("io.open", "tf.device")}),
        Template("def $func($name):\n    with $what($name|$end", {"what": ("self.path.open", "tf.device")}),
        Template("if $name2:\n    with $what($name|$end", {"what": ("os.fdopen", "tf.device")}),
        Template("$name = $func()\nwith $what($name|$end", {"what": ("connect", "cd")}),
        Template("def $func($name):\n    with $what($name|$end", {"what": ("Popen", "cd")}),
    ),
    reach=(
        Template("try:\n    $name2.$method($name$p)\n    with $what($name|$end", _SUPPRESS),
        Template("async def $func($name$d):\n    with $what($name|$end", _CD),
        Template("while $name2:\n    with $what($name|$end", {"what": ("urlopen", "tf.device")}),
        Template(
            "class $cls:\n    def __init__(self, $name):\n        with $what($name|$end",
            {"what": ("gzip.open", "np.errstate")},
        ),
    ),
)

_SOURCES = pool("input config words train in data settings names source template")
_SINKS = pool("output result log summary out results report export dump save")


def _unlike(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names that do not speak of reading or writing: only that of the file may."""
    return tuple(n for n in names if not {*_SOURCES, *_SINKS} & {*n.split()})


# The word is the behaviour: every split has all of them.
with_open = TemplateBehaviour(
    "with_open",
    "A file is read or written, as its name says: `open('input.txt', 'r')`, `open('output.txt', 'w')`.",
    contexts=CONTEXTS,
    cue={"file": ("$source", "$sink"), "mode": ("r", "w")},
    fillers={
        "source": _SOURCES,
        "sink": _SINKS,
        "ext": pool("txt csv json md xml dat html"),
        **{kind: _unlike(FILLERS[kind]) for kind in ("name", "coll", "attr", "word")},
        "func": pool("main run find_items check_page make_table update_user build_index compute_rule get_tree"),
    },
    frames=(
        "with open('${file}.$ext', '|$mode') as f:\n    ",
        'with open("${file}.$ext", "|$mode") as f:\n    ',
        "$name = $num\nwith open('${file}.$ext', '|$mode') as f:\n    ",
        "def $func():\n    f = open('${file}.$ext', '|$mode')\n",
        "def $func($name):\n    with open('${file}.$ext', '|$mode') as f:\n        ",
        "f = open('${file}.$ext', '|$mode')\n",
        "with open('${file}_${word}.$ext', '|$mode') as f:\n    ",
        'with open("$word/${file}.$ext", "|$mode") as f:\n    ',
        '${file}_path = "${name}.$ext"\nwith open(${file}_path, "|$mode") as f:\n    ',
        "def $func(${file}_file):\n    with open(${file}_file, '|$mode') as f:\n        ",
        "${file}_filename = $func($name)\nwith open(${file}_filename, '|$mode') as f:\n    ",
        "with open(args.${file}_file, '|$mode') as f:\n    ",
        "$name = '${file}.$ext'\nwith open($name, '|$mode') as f:\n    ",
        "class $cls:\n    def $func(self):\n        with open(self.${file}_path, '|$mode') as f:\n            ",
    ),
    reach=(
        "with open(os.path.join($name, '${file}.$ext'), '|$mode') as f:\n    ",
        "try:\n    f = open('${file}.$ext', '|$mode')\n",
        "for $item in $coll:\n    with open('${file}.$ext', '|$mode') as f:\n        ",
        "$name = open('${file}_${word}.$ext', '|$mode')\n",
    ),
)

PYTHON_FILES = (with_as, with_open)
