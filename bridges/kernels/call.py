"""Calling a compiled kernel: which tensors it takes, and how they are handed over."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from bridges.kernels.build import library

# What a kernel's name ends in for each dtype it takes.
SUFFIX = {torch.float32: "f32", torch.bfloat16: "bf16"}


def on_cpu(x: Tensor) -> bool:
    """Whether the kernels take a tensor of this device and dtype."""
    return x.device.type == "cpu" and x.dtype in SUFFIX


def call(name: str, *arguments: Tensor | int | float | None) -> None:
    """Call the kernel of that name.

    Args:
        arguments: contiguous tensors, or None for a null pointer; whole numbers go as int64, others as fp32.
    """
    given: list[ctypes.c_void_p | ctypes.c_int64 | ctypes.c_float] = []
    for argument in arguments:
        if argument is None or isinstance(argument, Tensor):
            given.append(ctypes.c_void_p(None if argument is None else argument.data_ptr()))
        else:
            given.append(ctypes.c_int64(argument) if isinstance(argument, int) else ctypes.c_float(argument))
    getattr(library(), name)(*given)
