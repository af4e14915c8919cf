"""The twenty Python behaviours of Gao et al. (2025), Table 1, in the order of that table."""

from __future__ import annotations

from bridges.behaviours.python_bindings import PYTHON_BINDINGS
from bridges.behaviours.python_branches import PYTHON_BRANCHES
from bridges.behaviours.python_definitions import PYTHON_DEFINITIONS
from bridges.behaviours.python_files import PYTHON_FILES
from bridges.behaviours.python_lines import PYTHON_LINES
from bridges.behaviours.python_literals import PYTHON_LITERALS
from bridges.behaviours.template import TemplateBehaviour

_ORDER = (
    "single_double_quote",
    "final_kwarg",
    "set_or_string",
    "set_or_string_fixedvarname",
    "class_init",
    "with_as",
    "bracket_brace",
    "with_open",
    "bracket_counting",
    "for_while",
    "else_elif",
    "fstring_brace",
    "if_ternary",
    "var_swap",
    "indent_for",
    "lambda_func",
    "if_equals",
    "enumerate_range",
    "var_if",
    "while_return_true",
)
_GROUPS = (PYTHON_LITERALS, PYTHON_DEFINITIONS, PYTHON_BINDINGS, PYTHON_FILES, PYTHON_BRANCHES, PYTHON_LINES)
_ALL = {behaviour.name: behaviour for group in _GROUPS for behaviour in group}

PYTHON: dict[str, TemplateBehaviour] = {name: _ALL[name] for name in _ORDER}
