"""Products with a matrix of few nonzeros, which cost what the nonzeros cost; see ``sparse.cpp``."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from bridges.kernels.call import SUFFIX, KernelArgumentError, Operand, call, contiguous, on_cpu, operand, parameter
from bridges.kernels.transpose import product_over_tokens

# The share of nonzeros up to which a sparse product was measured to be the faster one.
DENSEST = 0.15
# Below so many weights a dense product is as fast.
SMALLEST = 1 << 14


def supported(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether there is a kernel for this input, weight and bias; shapes that do not fit are left to PyTorch's error."""
    if x.ndim == 0 or weight.ndim != 2 or not (on_cpu(x) and on_cpu(weight)):
        return False
    fits = x.shape[-1] == weight.shape[1]
    if bias is not None:
        fits = fits and bias.shape == weight.shape[:1] and bias.device == x.device and bias.is_floating_point()
    # Inference tensors do not count their versions, so that a change could not be seen.
    kept = weight.dtype == torch.float32 and weight.is_contiguous() and not weight.is_inference()
    return fits and kept


def _matrix(weight: Tensor) -> Operand:
    if weight.ndim != 2:
        raise KernelArgumentError(f"A weight is a matrix, not a tensor of shape {list(weight.shape)}.")
    return operand("weight", weight, torch.float32, weight.shape)


def _count(weight: Tensor) -> Tensor:
    given, (rows, columns) = _matrix(weight), weight.shape
    count = torch.empty(rows, dtype=torch.int64)
    call("sparse_count", given, operand("count", count, torch.int64, (rows,)), rows, columns)
    return count


def _activations(name: str, x: Tensor, width: int) -> Operand:
    """``x [..., width]`` of fp32 or bf16."""
    if x.ndim == 0 or x.shape[-1] != width:
        raise KernelArgumentError(f"{name} has shape {list(x.shape)}; its last dimension must be {width}.")
    return operand(name, contiguous(x), tuple(SUFFIX), x.shape)


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

    @property
    def operands(self) -> tuple[Operand, Operand, Operand]:
        """What a kernel reads of it."""
        count = len(self.index)
        return (
            operand("start", self.start, torch.int64, self.start.shape[:1]),
            operand("index", self.index, torch.int32, (count,)),
            operand("value", self.value, torch.float32, (count,)),
        )

    def product(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """``x [..., columns]`` times the transposed matrix, ``[..., rows]``; sums are fp32.

        Raises:
            KernelArgumentError: ``x`` or ``bias`` is of another dtype, shape or device than fits.
        """
        source, outputs = _activations("x", x, self.columns), len(self.start) - 1
        out = x.new_empty(*x.shape[:-1], outputs)
        offset = None if bias is None else operand("bias", parameter(bias), torch.float32, (outputs,))
        sizes = (x.numel() // max(1, self.columns), self.columns, outputs)
        target = operand("out", out, x.dtype, out.shape)
        call(f"sparse_product_{SUFFIX[x.dtype]}", source, target, *self.operands, offset, *sizes)
        return out

    def transposed(self) -> Rows:
        """The same matrix with rows and columns exchanged."""
        count = torch.bincount(self.index, minlength=self.columns)
        start = torch.zeros(self.columns + 1, dtype=torch.int64)
        torch.cumsum(count, 0, out=start[1:])
        rows = len(self.start) - 1
        other = Rows(rows, start, torch.empty_like(self.index), torch.empty_like(self.value))
        _, index, value = other.operands
        # The kernel moves where each column begins to where it ends.
        moved = operand("start", start.clone(), torch.int64, start.shape)
        call("sparse_transpose", *self.operands, rows, moved, index, value)
        return other


class Packed:
    """The nonzeros of a weight ``[out, in]`` as it is now, for products in one dtype."""

    def __init__(self, weight: Tensor, count: Tensor, dtype: torch.dtype):
        rows, columns = weight.shape
        start = torch.zeros(rows + 1, dtype=torch.int64)
        torch.cumsum(count, 0, out=start[1:])
        index = torch.empty(int(start[-1]), dtype=torch.int32)
        value = torch.empty(len(index))
        self.forward = Rows(columns, start, index, value)
        sizes = (rows, columns, int(dtype == torch.bfloat16))
        call("sparse_fill", _matrix(weight), *self.forward.operands, *sizes)
        self._backward: Rows | None = None

    @property
    def backward(self) -> Rows:
        """The transposed matrix, made when it is first needed."""
        if self._backward is None:
            self._backward = self.forward.transposed()
        return self._backward

    def back(self, grad: Tensor) -> Tensor:
        """``grad [..., out]`` times the matrix, ``[..., in]``; channels that are zero in every token cost nothing.

        Raises:
            KernelArgumentError: ``grad`` is of another dtype, shape or device than fits.
        """
        there, back = self.forward, self.backward
        source = _activations("grad", grad, back.columns)
        out = grad.new_empty(*grad.shape[:-1], there.columns)
        target = operand("out", out, grad.dtype, out.shape)
        sizes = (grad.numel() // max(1, back.columns), back.columns, there.columns)
        call(f"sparse_back_{SUFFIX[grad.dtype]}", source, target, *there.operands, *back.operands, *sizes)
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
    if x.ndim == 0:
        raise KernelArgumentError("A single number has no columns to sum.")
    source, width = _activations("x", x, x.shape[-1]), x.shape[-1]
    out = torch.empty(width)
    target = operand("out", out, torch.float32, (width,))
    call(f"column_sums_{SUFFIX[x.dtype]}", source, target, x.numel() // max(1, width), width)
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
