"""Every setting with its type, default and explanation, read from the dataclasses and the text below their fields."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
import types
import typing
from dataclasses import dataclass
from functools import cache
from typing import Any

from bridges.config import Config


@dataclass(frozen=True)
class Setting:
    """One setting, or a section of them.

    Attributes:
        name: as on the command line, such as ``train.lr``.
        type: in words, such as ``number or null``; ``section`` where there are settings below it.
        default: of the dataclass, which a notebook gets; a preset of ``conf/`` may hold another. None for a section.
        choices: the words it takes; empty where it takes others too.
        text: the explanation, one paragraph.
    """

    name: str
    type: str
    default: Any
    choices: tuple[str, ...]
    text: str


@cache
def settings() -> list[Setting]:
    """Every setting, in the order of the dataclasses."""
    return [setting for setting in _described(Config, "") if setting.type != "section"]


@cache
def sections() -> list[Setting]:
    """Every section, such as ``train`` and ``train.terms``."""
    return [setting for setting in _described(Config, "") if setting.type == "section"]


def _described(cls: type, prefix: str) -> list[Setting]:
    found: list[Setting] = []
    texts, kinds = _texts(cls), typing.get_type_hints(cls)
    for f in dataclasses.fields(cls):
        name, kind, text = f"{prefix}{f.name}", kinds[f.name], texts.get(f.name, "")
        if dataclasses.is_dataclass(kind):
            assert isinstance(kind, type)
            found += [Setting(name, "section", None, (), text), *_described(kind, f"{name}.")]
        else:
            default = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
            found.append(Setting(name, _in_words(kind), default, f.metadata.get("choices", ()), text))
    return found


def _texts(cls: type) -> dict[str, str]:
    """The text below each field, those of base classes among them, as one line."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(tree, ast.ClassDef)
        for field, below in zip(tree.body, tree.body[1:], strict=False):
            if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
                continue
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                found[field.target.id] = re.sub(r"\s+", " ", str(below.value.value)).strip()
    return found


def _in_words(kind: Any) -> str:
    """A type in words: ``whole number``, ``list of texts or null``."""
    if isinstance(kind, types.UnionType):
        return " or ".join(_in_words(part) for part in typing.get_args(kind))
    if typing.get_origin(kind) is list:
        (inner,) = typing.get_args(kind)
        return f"list of {_in_words(inner)}s"
    names = {bool: "true or false", int: "whole number", float: "number", str: "text", type(None): "null"}
    return names[kind]
