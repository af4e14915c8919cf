"""Worlds by name, as the settings of a run ask for them: ``planted:<seed>``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from bridges.config import DataConfig
from bridges.data.corpus import Document, register_source
from bridges.dense.registry import register_loader
from bridges.errors import ConfigError
from bridges.planted.rotated import Rotated
from bridges.planted.world import NAME, World, plant

# What a run on a world is given: every shape, two of them once more where the sparse model lacks them.
STANDARD = ("copy", "select", "agree", "detect", "copy", "select")
STANDARD_ONLY_DENSE = ("copy-2", "select-2")
# So wide that few random sets of nodes hold one that a circuit needs.
SHAPE: dict[str, Any] = {"d_model": 192, "d_mlp": 256}
# What a hard world has besides: all that sparse models have by default, and a behaviour that the dense model does by
# another route.
HARD: dict[str, Any] = {"other_route": ("agree",), "activation_fraction": 0.25, "attention_sink": True, "bigram": True}


def is_world(name: str) -> bool:
    """Whether a model's name is that of a world: ``planted``, ``planted:<seed>`` or ``planted:<seed>:hard``."""
    return re.fullmatch(rf"{NAME}(:\d+(:hard)?)?", name) is not None


@lru_cache(maxsize=4)
def world_named(name: str) -> World:
    """The world that a run means by ``planted:<seed>``, ``<seed>`` alone or ``planted`` (seed 0).

    It has the behaviours `STANDARD`, of which the sparse model lacks `STANDARD_ONLY_DENSE`; ``planted:<seed>:hard`` is
    the same language with what `HARD` says.

    Raises:
        ConfigError: the name is none of these.
    """
    found = re.fullmatch(rf"{NAME}|(?:{NAME}:)?(\d+)(:hard)?", name)
    if found is None:
        raise ConfigError(f"{name!r} names no planted world; write planted:<seed>, such as planted:0.")
    return plant(int(found[1] or 0), STANDARD, STANDARD_ONLY_DENSE, **SHAPE, **(HARD if found[2] else {}))


@register_loader
def load_world(name: str, dtype: torch.dtype) -> tuple[Rotated, PreTrainedTokenizerFast] | None:
    """The dense model of a world, always in fp32, and its tokenizer; None where the name is that of none."""
    if not is_world(name):
        return None
    world = world_named(name)
    return world.dense, world.tokenizer


@register_source(NAME)
def documents_of_world(config: DataConfig) -> Iterator[Document]:
    """The text of the world whose seed is ``data.path``."""
    return world_named(config.path or "0").documents()
