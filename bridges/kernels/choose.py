"""Channels kept or replaced in one pass, see ``choose.cpp``."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bridges.kernels.call import SUFFIX, KernelArgumentError, Operand, call, contiguous, indices, operand
from bridges.kernels.call import on_cpu as supported

__all__ = ["backward", "forward", "supported"]


@dataclass(frozen=True)
class _Given:
    """The arguments of both passes, checked; ``sizes`` are those that the kernel is told."""

    x: Operand
    kept: Operand
    other: Operand
    entries: Operand | None
    sizes: tuple[int, ...]


def _given(x: Tensor, kept: Tensor, other: Tensor, entries: Tensor | None) -> _Given:
    """Both passes' arguments as the kernel reads them.

    Raises:
        KernelArgumentError: see `forward`.
    """
    x, kept, other = contiguous(x), contiguous(kept), contiguous(other)
    width = x.shape[-1] if x.ndim else 0
    if width == 0 or any(t.ndim == 0 or t.shape[-1] != width for t in (kept, other)):
        shapes = ", ".join(str(list(t.shape)) for t in (x, kept, other))
        raise KernelArgumentError(f"x, kept and other must have the same channels last; their shapes are {shapes}.")
    rows, masks, others = (t.numel() // width for t in (x, kept, other))
    if kept.ndim > 2 or masks == 0 or rows % masks:
        raise KernelArgumentError(f"kept has {masks} masks, which do not go into {rows} rows of x.")
    names: Operand | None = None
    tokens = length = 1
    if entries is not None:
        if x.ndim != 3 or other.ndim != 3 or x.shape[-2] > other.shape[1]:
            raise KernelArgumentError(
                f"With entries x is [prompts, T, channels] and other [n, T or more, channels]; here they are "
                f"{list(x.shape)} and {list(other.shape)}."
            )
        tokens, length = x.shape[-2], other.shape[1]
        prompts = rows // tokens if tokens else 0
        names = operand("entries", indices("entries", entries, 0, len(other)), torch.int64, (prompts,))
    elif rows and (others == 0 or rows % others):
        raise KernelArgumentError(f"other has {others} rows, which do not go into {rows} rows of x.")
    return _Given(
        operand("x", x, tuple(SUFFIX), x.shape),
        operand("kept", kept, torch.bool, kept.shape),
        operand("other", other, x.dtype, other.shape),
        names,
        (rows, width, rows // masks, tokens, length, others),
    )


def forward(x: Tensor, kept: Tensor, other: Tensor, entries: Tensor | None = None) -> Tensor:
    """``x [rows…, channels]`` where kept, ``other`` elsewhere.

    Args:
        kept: bool ``[channels]`` or ``[S, channels]``, each mask for an equal share of the rows in turn.
        other: dtype of x, ``[channels]`` or as many rows as go into those of x a whole number of times.
        entries: whole numbers ``[prompts]``: x is ``[prompts, T, channels]``, ``other [n, ≥ T, channels]``, and each
            prompt reads the entry of ``other`` that it names.

    Raises:
        KernelArgumentError: an argument is of another dtype, shape or device, or an entry does not exist.
    """
    given = _given(x, kept, other, entries)
    out = torch.empty_like(given.x.tensor)
    target = operand("out", out, x.dtype, x.shape)
    call(f"choose_{SUFFIX[x.dtype]}", given.x, given.kept, given.other, target, given.entries, *given.sizes)
    return out


def backward(
    grad: Tensor, x: Tensor, kept: Tensor, other: Tensor, sums: bool, entries: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """The gradient of x, and where asked for Σ grad·(x − other) over the rows, ``[channels]`` in fp32.

    Arguments and errors as in `forward`; ``grad`` is like x.
    """
    given = _given(x, kept, other, entries)
    grad = contiguous(grad)
    source = operand("grad", grad, x.dtype, x.shape)
    of_x, total = torch.empty_like(grad), torch.empty(x.shape[-1]) if sums else None
    results = (
        operand("gradient of x", of_x, x.dtype, x.shape),
        None if total is None else operand("sums", total, torch.float32, x.shape[-1:]),
    )
    name = f"choose_backward_{SUFFIX[x.dtype]}"
    call(name, source, given.x, given.kept, given.other, *results, given.entries, *given.sizes)
    return of_x, total
