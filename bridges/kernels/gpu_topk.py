"""AbsTopK of the rows of a matrix on a GPU, in Triton: one read and one write of every entry.

``torch.topk`` with a scatter behind it reads and writes each row about ten times. Here a program holds a row in
registers and finds the k-th largest magnitude by bisection over bit patterns: floats without their sign order like
whole numbers.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from bridges.kernels.call import KernelArgumentError, whole_number

# Bits of a magnitude; the pattern of the sign removed.
_MAGNITUDE_BITS = {torch.float32: 31, torch.bfloat16: 15, torch.float16: 15}
# A wider row does not fit into the registers of one program.
_WIDEST = 16384


@cache
def _triton() -> Any:
    try:
        import triton
    except ImportError:
        return None
    return triton


def supported(x: Tensor) -> bool:
    """Whether the kernel takes rows of this tensor: on a GPU, with Triton installed, not too wide."""
    return x.device.type == "cuda" and x.dtype in _MAGNITUDE_BITS and x.shape[-1] <= _WIDEST and _triton() is not None


@cache
def _kernel() -> Any:
    import triton
    import triton.language as tl

    @triton.jit
    def keep(source, target, kept, width, k, bits: tl.constexpr, block: tl.constexpr):
        row = tl.program_id(0).to(tl.int64)
        column = tl.arange(0, block)
        inside = column < width
        value = tl.load(source + row * width + column, mask=inside, other=0)
        # Without the sign bit; outside the row stands less than any magnitude.
        magnitude = tl.where(inside, value.to(tl.int32) & ((1 << bits) - 1), -1)
        bar = 0
        for step in tl.static_range(bits):
            tried = bar | (1 << (bits - 1 - step))
            bar = tl.where(tl.sum((magnitude >= tried).to(tl.int32)) >= k, tried, bar)
        above = magnitude > bar
        # Of equal magnitudes at the bar the first ones stay.
        equal = (magnitude == bar).to(tl.int32)
        room = k - tl.sum(above.to(tl.int32))
        stays = above | ((equal > 0) & (tl.cumsum(equal, 0) <= room))
        tl.store(target + row * width + column, tl.where(stays, value, 0), mask=inside)
        tl.store(kept + row * width + column, stays.to(tl.int8), mask=inside)

    return keep


def forward(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """``x [n, width]`` with all but the ``k`` largest magnitudes of each row zeroed, and the mask of what stayed.

    Raises:
        KernelArgumentError: ``x`` is no matrix that is `supported`, or ``k`` not in 1 … width.
    """
    if x.ndim != 2 or not supported(x):
        raise KernelArgumentError(
            f"AbsTopK on a GPU takes a matrix of fp32, bf16 or fp16 there, at most {_WIDEST} wide, not {x.dtype} of "
            f"shape {list(x.shape)} on {x.device}."
        )
    triton = _triton()
    x = x.contiguous()
    rows, width = x.shape
    k = whole_number("k", k, 1, width)
    out, mask = torch.empty_like(x), torch.empty(x.shape, dtype=torch.int8, device=x.device)
    if rows:
        bits = _MAGNITUDE_BITS[x.dtype]
        whole = torch.int32 if bits == 31 else torch.int16
        block = triton.next_power_of_2(width)
        _kernel()[(rows,)](
            x.view(whole),
            out.view(whole),
            mask,
            width,
            k,
            bits=bits,
            block=block,
            num_warps=max(1, min(8, block // 512)),
        )
    return out, mask.view(torch.bool)
