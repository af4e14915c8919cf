"""Which adapter serves which architecture, and what else than a Hugging Face model a name may mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from bridges.errors import ModelError

if TYPE_CHECKING:
    from bridges.dense.base import DenseStack

FAMILIES: dict[str, type[DenseStack]] = {}

Family = TypeVar("Family", bound="type[DenseStack]")

# From a name and a dtype to a frozen stack and its tokenizer; None where the name means nothing to it.
Loader = Callable[[str, torch.dtype], "tuple[Any, Any] | None"]
LOADERS: list[Loader] = []


def register_loader(loader: Loader) -> Loader:
    """Decorator: `load_dense` asks this function first."""
    LOADERS.append(loader)
    return loader


def register(*model_types: str) -> Callable[[Family], Family]:
    """Class decorator: this adapter serves models whose ``config.model_type`` is one of ``model_types``."""

    def add(family: Family) -> Family:
        FAMILIES.update(dict.fromkeys(model_types, family))
        return family

    return add


def family_of(model_type: str) -> type[DenseStack]:
    """The adapter for ``model_type``.

    Raises:
        ModelError: there is none; the message says how to write one.
    """
    if model_type not in FAMILIES:
        raise ModelError(
            f"Models of type {model_type!r} are not supported. Supported: {', '.join(sorted(FAMILIES))}. "
            "An adapter is one short file, a subclass of bridges.dense.DenseStack with layers, embed, "
            f'attention_out, mlp_out, unembed and node_points under @register("{model_type}"); '
            "bridges/dense/gpt2.py is an example."
        )
    return FAMILIES[model_type]
