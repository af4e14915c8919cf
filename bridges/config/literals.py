"""Words that settings choose from, and the check of such a choice. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, fields
from typing import Any

from bridges.errors import ConfigError, nearest

NODE_KINDS = ("attn_in", "q", "k", "v", "attn_out", "mlp_in", "mlp_neuron", "mlp_out")
STREAM_POINTS = ("resid_post_attn", "resid_post_mlp")
ACTIVATIONS = ("gelu", "gelu_tanh", "relu")
POSITIONS = ("none", "learned", "concat", "concat_shared", "sinusoidal")
NORMS = ("rms", "layer")
RESIDUAL_ACTIVATIONS = ("identity", "relu")
BIGRAMS = ("full", "low_rank", "none")
KERNELS = ("auto", "python", "cpp")
ANNEAL_SHAPES = ("linear", "exponential")


def one_of(field: str, value: str, valid: Sequence[str]) -> str:
    """``value`` if it is valid; otherwise a `ConfigError` with the nearest valid one."""
    if value not in valid:
        raise ConfigError(f"{field}={value!r} is not a choice. {nearest(value, valid)}")
    return value


def choices(valid: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Metadata of a dataclass field that takes a word of ``valid``, or a list of them: `check_literals` checks it and
    `bridges.config.describe` lists it."""
    return {"choices": tuple(valid)}


def literal(default: str, valid: Sequence[str]) -> Any:
    """A dataclass field that takes one word of ``valid``."""
    return field(default=default, metadata=choices(valid))


def check_literals(section: str, settings: Any) -> None:
    """A `ConfigError` where a field with `choices` holds another word.

    Args:
        section: the key of ``settings`` on the command line, such as ``train``; empty at the top.
    """
    for f in fields(settings):
        if valid := f.metadata.get("choices"):
            value = getattr(settings, f.name)
            for word in value or () if isinstance(value, (list, tuple)) or value is None else (value,):
                one_of(f"{section}.{f.name}".lstrip("."), word, valid)
