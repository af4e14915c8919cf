"""All idioms, and how often each is written."""

from __future__ import annotations

import random
from collections.abc import Callable

from bridges.data.idioms.bindings import if_equals, set_or_string, set_or_string_fixedvarname, var_if, var_swap
from bridges.data.idioms.branches import (
    else_elif,
    enumerate_range,
    for_while,
    if_ternary,
    indent_for,
    while_return_true,
)
from bridges.data.idioms.contexts import with_as, with_open
from bridges.data.idioms.definitions import class_init, final_kwarg, lambda_func
from bridges.data.idioms.literals import bracket_brace, bracket_counting, fstring_brace, single_double_quote

IDIOMS: dict[str, Callable[[random.Random], str]] = {
    f.__name__: f
    for f in (
        single_double_quote,
        final_kwarg,
        set_or_string,
        set_or_string_fixedvarname,
        class_init,
        with_as,
        bracket_brace,
        with_open,
        bracket_counting,
        for_while,
        else_elif,
        fstring_brace,
        if_ternary,
        var_swap,
        indent_for,
        lambda_func,
        if_equals,
        enumerate_range,
        var_if,
        while_return_true,
    )
}

# What takes a small model longest to learn (copying a name, counting, binding a type to a name) is written more often.
WEIGHTS = {
    "class_init": 3,
    "bracket_counting": 4,
    "with_open": 4,
    "set_or_string_fixedvarname": 4,
    "var_swap": 2,
    "if_ternary": 2,
    "with_as": 2,
}
