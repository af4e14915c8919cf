"""Products with a matrix of few nonzeros, which cost what the nonzeros cost; see ``sparse.cpp``."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from bridges.kernels.call import SUFFIX, call, on_cpu
from bridges.kernels.transpose import product_over_tokens

# The share of nonzeros up to which a sparse product was measured to be the faster one.
DENSEST = 0.15
# Below so many weights a dense product is as fast.
SMALLEST = 1 << 14


def supported(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether there is a kernel for this input, weight and bias; shapes that do not fit are left to PyTorch's error."""
    cpu = on_cpu(x) and all(t is None or t.device.type == "cpu" for t in (weight, bias))
    fits = x.shape[-1] == weight.shape[1] and (bias is None or bias.shape == weight.shape[:1])
    # Inference tensors do not count their versions, so that a change could not be seen.
    kept = weight.dtype == torch.float32 and weight.is_contiguous() and not weight.is_inference()
    return cpu and fits and kept


def _count(weight: Tensor) -> Tensor:
    rows, columns = weight.shape
    count = torch.empty(rows, dtype=torch.int64)
    call("sparse_count", weight, count, rows, columns)
    return count


@dataclass(frozen=True)
class Rows:
    """The nonzeros of a matrix ``[rows, columns]``, row after row.

    Attributes:
        start: ``[rows + 1]`` where each row begins. index: column of each nonzero. value: in fp32, rounded to the dtype
            of the products.
    """

    columns: int
    start: Tensor
    index: Tensor
    value: Tensor

    def product(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """``x [..., columns]`` times the transposed matrix, ``[..., rows]``; sums are fp32."""
        x, outputs = x.contiguous(), len(self.start) - 1
        out = x.new_empty(*x.shape[:-1], outputs)
        bias = None if bias is None else bias.detach().float().contiguous()
        sizes = (x.numel() // max(1, self.columns), self.columns, outputs)
        call(f"sparse_product_{SUFFIX[x.dtype]}", x, out, self.start, self.index, self.value, bias, *sizes)
        return out

    def transposed(self) -> Rows:
        """The same matrix with rows and columns exchanged."""
        count = torch.bincount(self.index, minlength=self.columns)
        start = torch.zeros(self.columns + 1, dtype=torch.int64)
        torch.cumsum(count, 0, out=start[1:])
        index, value = torch.empty_like(self.index), torch.empty_like(self.value)
        rows = len(self.start) - 1
        call("sparse_transpose", self.start, self.index, self.value, rows, start.clone(), index, value)
        return Rows(rows, start, index, value)


class Packed:
    """The nonzeros of a weight ``[out, in]`` as it is now, for products in one dtype."""

    def __init__(self, weight: Tensor, count: Tensor, dtype: torch.dtype):
        rows, columns = weight.shape
        start = torch.zeros(rows + 1, dtype=torch.int64)
        torch.cumsum(count, 0, out=start[1:])
        index = torch.empty(int(start[-1]), dtype=torch.int32)
        value = torch.empty(len(index))
        sizes = (rows, columns, int(dtype == torch.bfloat16))
        call("sparse_fill", weight, start, index, value, *sizes)
        self.forward = Rows(columns, start, index, value)
        self._backward: Rows | None = None

    @property
    def backward(self) -> Rows:
        """The transposed matrix, made when it is first needed."""
        if self._backward is None:
            self._backward = self.forward.transposed()
        return self._backward

    def back(self, grad: Tensor) -> Tensor:
        """``grad [..., out]`` times the matrix, ``[..., in]``; channels that are zero in every token cost nothing."""
        grad, there, back = grad.contiguous(), self.forward, self.backward
        out = grad.new_empty(*grad.shape[:-1], there.columns)
        matrices = (there.start, there.index, there.value, back.start, back.index, back.value)
        sizes = (grad.numel() // max(1, back.columns), back.columns, there.columns)
        call(f"sparse_back_{SUFFIX[grad.dtype]}", grad, out, *matrices, *sizes)
        return out


class _Known:
    """What is known of one weight until it changes."""

    def __init__(self, weight: Tensor):
        self.state = _state(weight)
        self.count = _count(weight)
        self.sparse = int(self.count.sum()) <= DENSEST * weight.numel()
        self.packed: dict[torch.dtype, Packed] = {}


def _state(weight: Tensor) -> tuple[int, int]:
    # Every change in place counts the version up; a new storage has a new address.
    return weight._version, weight.data_ptr()


_known: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def packed(weight: Tensor, dtype: torch.dtype) -> Packed | None:
    """A weight's nonzeros, packed anew when it has changed; None where a dense product is faster."""
    if weight.numel() < SMALLEST:
        return None
    known = _known.get(weight)
    if known is None or known.state != _state(weight):
        known = _known[weight] = _Known(weight.detach())
    if not known.sparse:
        return None
    if dtype not in known.packed:
        known.packed[dtype] = Packed(weight.detach(), known.count, dtype)
    return known.packed[dtype]


def column_sums(x: Tensor) -> Tensor:
    """Sums over all but the last dimension of ``[..., columns]``, in fp32.

    PyTorch's sum of bf16 in fp32 makes a whole copy in fp32 first.
    """
    x = x.contiguous()
    out = torch.empty(x.shape[-1])
    call(f"column_sums_{SUFFIX[x.dtype]}", x, out, x.numel() // max(1, x.shape[-1]), x.shape[-1])
    return out


class SparseProduct(torch.autograd.Function):
    """``x Wᵀ + b`` by the nonzeros of W; the gradient of W itself is a dense product."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, nonzeros: Packed) -> Tensor:  # type: ignore[override]
        ctx.nonzeros, ctx.dtypes = nonzeros, (weight.dtype, None if bias is None else bias.dtype)
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None)
        return nonzeros.forward.product(x, bias)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        (x,) = ctx.saved_tensors
        of_x = ctx.nonzeros.back(grad) if ctx.needs_input_grad[0] else None
        flat = grad.reshape(-1, grad.shape[-1])
        of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight = product_over_tokens(flat, x.reshape(-1, x.shape[-1])).to(ctx.dtypes[0])
        of_bias = column_sums(flat).to(ctx.dtypes[1]) if ctx.needs_input_grad[2] else None
        return of_x, of_weight, of_bias, None
