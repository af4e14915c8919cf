"""Calling a compiled kernel: which tensors it takes, and how they are handed over.

A kernel reads raw memory. What a tensor holds must therefore be known before its address is taken: `operand` checks it,
and `call` takes nothing else.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bridges.errors import BridgesError
from bridges.kernels.build import library

# What a kernel's name ends in for each dtype it takes.
SUFFIX = {torch.float32: "f32", torch.bfloat16: "bf16"}


class KernelArgumentError(BridgesError):
    """A kernel was given a tensor that it cannot read; its memory was not touched."""


class Operand(NamedTuple):
    """A tensor that a kernel can read as it lies in memory, see `operand`."""

    tensor: Tensor


def on_cpu(x: Tensor) -> bool:
    """Whether the kernels take a tensor of this device and dtype."""
    return x.device.type == "cpu" and x.dtype in SUFFIX and x.layout == torch.strided


def operand(name: str, x: Tensor, dtype: torch.dtype | Sequence[torch.dtype], shape: Sequence[int]) -> Operand:
    """A tensor checked for what a kernel is going to read.

    Args:
        name: of the argument, for the message.
        x: the tensor.
        dtype: what it must be of, or several.
        shape: what it must have.

    Raises:
        KernelArgumentError: it is on another device, of another dtype or shape, or not contiguous in memory.
    """
    dtypes = (dtype,) if isinstance(dtype, torch.dtype) else tuple(dtype)
    if x.device.type != "cpu":
        raise KernelArgumentError(f"{name} is on {x.device}; the C++ kernels read memory of the CPU. Use x.cpu().")
    if x.dtype not in dtypes:
        wanted = " or ".join(str(d).removeprefix("torch.") for d in dtypes)
        raise KernelArgumentError(f"{name} is {str(x.dtype).removeprefix('torch.')}; this kernel reads {wanted}.")
    if tuple(x.shape) != tuple(shape):
        raise KernelArgumentError(f"{name} has shape {list(x.shape)}; this call needs {list(shape)}.")
    if x.layout != torch.strided or not x.is_contiguous() or x.is_neg():
        raise KernelArgumentError(f"{name} is not contiguous in memory. Use x.contiguous().")
    return Operand(x)


def contiguous(x: Tensor) -> Tensor:
    """``x`` row after row in memory, as a kernel reads it; a copy where it lies otherwise.

    Raises:
        KernelArgumentError: it is no dense tensor.
    """
    if x.layout != torch.strided:
        raise KernelArgumentError(f"A {x.layout} tensor is no dense one. Use x.to_dense().")
    return x.resolve_neg().contiguous()


def parameter(x: Tensor) -> Tensor:
    """A small tensor of parameters in contiguous fp32, whatever floating dtype it has; without gradient."""
    if not x.is_floating_point():
        raise KernelArgumentError(f"Parameters of a kernel are floating-point numbers, not {x.dtype}.")
    return contiguous(x.detach().float())


def whole_number(name: str, value: int, low: int, high: int) -> int:
    """``value``, checked to lie in ``low … high``.

    Raises:
        KernelArgumentError: it does not.
    """
    if not low <= value <= high:
        raise KernelArgumentError(f"{name}={value} must be between {low} and {high}.")
    return int(value)


def indices(name: str, x: Tensor, low: int, high: int) -> Tensor:
    """Whole numbers as contiguous int64, checked to lie in ``low … high - 1``: a kernel would read outside otherwise.

    Raises:
        KernelArgumentError: they do not, or are no whole numbers.
    """
    if x.device.type != "cpu":
        raise KernelArgumentError(f"{name} is on {x.device}; the C++ kernels read memory of the CPU. Use x.cpu().")
    if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
        raise KernelArgumentError(f"{name} is {x.dtype}; whole numbers are needed.")
    x = contiguous(x.long())
    if x.numel() and not (low <= int(x.min()) and int(x.max()) < high):
        raise KernelArgumentError(f"{name} holds {int(x.min())} … {int(x.max())}; {low} … {high - 1} are valid.")
    return x


def call(name: str, *arguments: Operand | int | float | None) -> None:
    """Call the kernel of that name.

    Args:
        arguments: checked tensors, or None for a null pointer; whole numbers go as int64, others as fp32.

    Raises:
        KernelArgumentError: a tensor was given that nobody has checked.
    """
    given: list[ctypes.c_void_p | ctypes.c_int64 | ctypes.c_float] = []
    for argument in arguments:
        if argument is None or isinstance(argument, Operand):
            given.append(ctypes.c_void_p(None if argument is None else argument.tensor.data_ptr()))
        elif isinstance(argument, Tensor):
            raise KernelArgumentError(f"{name}: tensors are handed over as `operand`s, which checks them.")
        else:
            given.append(ctypes.c_int64(argument) if isinstance(argument, int) else ctypes.c_float(argument))
    getattr(library(), name)(*given)
