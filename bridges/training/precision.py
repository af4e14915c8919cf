"""Which number format the matrix products run in."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch

from bridges.errors import ConfigError


def native_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bf16 itself.

    Without such instructions PyTorch emulates bf16 on a CPU, which was measured to be about 100 times slower than fp32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        supported = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
        return any(probe is not None and probe() for probe in supported)
    return False


def resolve_precision(precision: str, device: torch.device) -> str:
    """``auto`` to ``bf16`` or ``fp32``; a `ConfigError` where bf16 was asked for and cannot run natively."""
    if precision == "auto":
        return "bf16" if native_bf16(device) else "fp32"
    if precision == "bf16" and not native_bf16(device):
        raise ConfigError(
            f"train.precision=bf16: this {device.type} has no bf16 instructions and would emulate them about a hundred "
            "times slower. Use train.precision=auto or fp32."
        )
    return precision


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """bf16 autocast, or nothing for fp32."""
    if precision == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()
