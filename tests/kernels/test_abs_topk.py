"""The AbsTopK kernel against a plain sort, on shapes and values of every kind."""

from __future__ import annotations

import math

import pytest
import torch

from bridges import kernels
from bridges.kernels import abs_topk
from bridges.kernels.build import KernelsUnavailable, library


@pytest.fixture(autouse=True)
def compiled():
    try:
        library()
    except KernelsUnavailable as error:
        pytest.skip(f"no compiled kernels: {error}")


def by_sorting(x: torch.Tensor, k: int) -> torch.Tensor:
    """The mask of what stays: a stable sort by magnitude, NaN first."""
    size = x.double().abs().nan_to_num(nan=math.inf, posinf=1e300)
    order = size.argsort(dim=-1, descending=True, stable=True)[:, :k]
    return torch.zeros_like(x, dtype=torch.bool).scatter_(1, order, True)


def _values(kind: int, shape: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    x = torch.randn(shape, generator=generator)
    if kind == 1:  # many ties, both signs, zeros
        return x.mul(2).round() / 2
    if kind == 2:  # values that are not finite
        special = torch.tensor([math.inf, -math.inf, math.nan, 0.0, -0.0, 1e-40])
        pick = torch.randint(0, 6, shape, generator=generator)
        return torch.where(torch.rand(shape, generator=generator) < 0.3, special[pick], x)
    if kind == 3:
        return torch.zeros(shape)
    return x * 10 ** (6 * torch.rand(shape, generator=generator) - 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_thousand_random_shapes_and_values(dtype):
    generator = torch.Generator().manual_seed(0)
    for case in range(500):
        rows, width = (int(torch.randint(1, high, (), generator=generator)) for high in (9, 90))
        width = 20_000 + width if case % 100 == 99 else width
        k = int(torch.randint(1, width + 1, (), generator=generator))
        x = _values(case % 4, (rows, width), generator).to(dtype)
        out, mask = abs_topk.forward(x, k)
        assert torch.equal(mask, by_sorting(x, k)), (case, rows, width, k)
        bits = torch.int32 if dtype == torch.float32 else torch.int16
        assert torch.equal(out.view(bits), torch.where(mask, x.view(bits), 0)), case
        grad = torch.randn(rows, width, generator=generator).to(dtype)
        assert torch.equal(abs_topk.backward(grad, mask), torch.where(mask, grad, torch.zeros_like(grad)))


def test_the_operation_is_the_same_with_and_without_kernels(monkeypatch):
    from bridges.sparse.ops import abs_topk as operation

    x = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(1)).transpose(0, 1)
    found = []
    for chosen in ("python", "cpp"):
        monkeypatch.setattr(kernels, "_chosen", chosen)
        leaf = x.clone().requires_grad_()
        out = operation(leaf, 7)
        out.cos().sum().backward()
        found.append((out.detach(), leaf.grad))
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])
