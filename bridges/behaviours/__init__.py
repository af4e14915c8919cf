"""Behaviours: prompt pairs with a two-way next token for the tokenizer at hand, and how to measure them."""

from __future__ import annotations

from bridges.behaviours.encoded import EncodedPairs, check, encode
from bridges.behaviours.english_suite import ENGLISH
from bridges.behaviours.from_file import load
from bridges.behaviours.measure import summarise, two_way
from bridges.behaviours.nonsense import consistent_nonsense, shuffled_labels
from bridges.behaviours.pair import (
    SPLITS,
    Answer,
    Behaviour,
    BehaviourError,
    Draft,
    NotExpressible,
    Pair,
    Split,
)
from bridges.behaviours.python_suite import PYTHON
from bridges.behaviours.template import Template, TemplateBehaviour
from bridges.errors import nearest

SUITES: dict[str, dict[str, TemplateBehaviour]] = {"python": PYTHON, "english": ENGLISH}


def get_suite(name: str) -> dict[str, TemplateBehaviour]:
    """The behaviours of a suite by name, in the order of the paper's table."""
    if name not in SUITES:
        raise BehaviourError(f"There is no behaviour suite {name!r}. {nearest(name, SUITES)}")
    return SUITES[name]


def get_behaviour(name: str) -> TemplateBehaviour:
    """One behaviour of any suite."""
    known = {key: behaviour for suite in SUITES.values() for key, behaviour in suite.items()}
    if name not in known:
        raise BehaviourError(f"There is no behaviour {name!r}. {nearest(name, known)}")
    return known[name]


__all__ = [
    "ENGLISH",
    "PYTHON",
    "SPLITS",
    "SUITES",
    "Answer",
    "Behaviour",
    "BehaviourError",
    "Draft",
    "EncodedPairs",
    "NotExpressible",
    "Pair",
    "Split",
    "Template",
    "TemplateBehaviour",
    "check",
    "consistent_nonsense",
    "encode",
    "get_behaviour",
    "get_suite",
    "load",
    "shuffled_labels",
    "summarise",
    "two_way",
]
