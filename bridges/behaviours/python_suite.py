"""The twenty Python behaviours of Gao et al. (2025), Table 1, in the order of that table."""

from __future__ import annotations

from bridges.behaviours.python_names import PYTHON_NAMES
from bridges.behaviours.python_syntax import PYTHON_SYNTAX
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
_ALL = {behaviour.name: behaviour for behaviour in (*PYTHON_SYNTAX, *PYTHON_NAMES)}

PYTHON: dict[str, TemplateBehaviour] = {name: _ALL[name] for name in _ORDER}
