"""Words that settings choose from, and the check of such a choice. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence

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
