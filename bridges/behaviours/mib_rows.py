"""Rows of the MIB benchmark's data sets (``mib-bench/ioi``, ``copycolors_mcqa``, ``arithmetic_addition`` and
``arithmetic_subtraction``, ``arc_easy``, ``arc_challenge``) as prompt pairs.

A row has a ``prompt``, its answer, and a column for every kind of counterfactual, which holds a prompt and an answer in
turn. The counterfactual and the two answers are chosen as the benchmark's circuit track chooses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The counterfactual that the circuit track compares with, the first of these that a row has.
COUNTERFACTUALS = ("s2_io_flip_counterfactual", "symbol_counterfactual", "random_counterfactual")
_OPERATORS = {"+": "addition", "-": "subtraction"}


def is_mib_row(row: Mapping[str, Any]) -> bool:
    """Whether a row is one of MIB's."""
    return "prompt" in row and any(name in row for name in COUNTERFACTUALS)


def prompt_pair(row: Mapping[str, Any], default_name: str) -> dict[str, Any] | None:
    """A row as a prompt pair: ``behaviour``, ``clean``, ``counterfactual``, ``clean_token``, ``counterfactual_token``.

    Args:
        row: of a MIB data set. An arithmetic row's behaviour is named after its operator too, so that sums and
            differences do not share one.
        default_name: of the behaviour.

    Returns:
        None for a row without a counterfactual, which the benchmark leaves out as well.

    Raises:
        ValueError: the row is none of a form that is known.
    """
    kind = next(name for name in COUNTERFACTUALS if name in row)
    other = row[kind]
    if other is None or other.get("prompt") is None:
        return None
    operator = row.get("operator")
    if operator is not None and operator not in _OPERATORS:
        raise ValueError(f"operator is {operator!r}, known: {', '.join(_OPERATORS)}")
    metadata = row.get("metadata") or {}
    # Of a name the text holds the space before it; labels and numbers stand as they are.
    if "indirect_object" in metadata:
        first, second = f" {metadata['indirect_object']}", f" {_answer(other)}"
    else:
        first, second = _answer(row), _answer(other)
    return {
        "behaviour": f"{default_name} {_OPERATORS[operator]}" if operator else default_name,
        "clean": row["prompt"],
        "counterfactual": other["prompt"],
        "clean_token": first,
        "counterfactual_token": second,
    }


def _answer(row: Mapping[str, Any]) -> str:
    """The text of the right answer: a number, or the choice that ``answerKey`` counts to."""
    if row.get("label") is not None:
        return str(row["label"])
    choices, key = row.get("choices"), row.get("answerKey")
    labels = choices.get("label") if isinstance(choices, Mapping) else choices
    if not isinstance(labels, list) or isinstance(key, bool) or not isinstance(key, int) or not 0 <= key < len(labels):
        raise ValueError("it has neither a label nor choices with the answerKey of one")
    return str(labels[key])
