"""What may stand before a frame of the Python suite: pieces of ordinary modules that do not bear on the answer."""

from __future__ import annotations

CONTEXTS: tuple[str, ...] = (
    "",
    "import $module\n\n",
    "import $module\nimport $module2\n\n\n",
    "# $verb the $name\n",
    '"""The $name of the $name2."""\n\n',
    "$name = $num\n\n",
    "$name = None\n\n",
    "$coll = []\n\n",
    "$name = $func($name2)\n\n",
    "$name.$method($name2)\n\n",
    "print($name)\n\n",
    "def $func($name):\n    return $name.$attr\n\n\n",
    "def $func($name, $name2):\n    $name.$method($name2)\n\n\n",
    "class $cls:\n    pass\n\n\n",
)
