"""The GELU kernel against fp64: every number of bf16, and fp32 to the bounds that are claimed of it."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from bridges import kernels
from bridges.kernels.build import KernelsUnavailable, library
from bridges.sparse.ops import gelu

FORMS = ("none", "tanh")


@pytest.fixture(autouse=True)
def compiled(monkeypatch):
    try:
        library()
    except KernelsUnavailable as error:
        pytest.skip(f"no compiled kernels: {error}")
    monkeypatch.setattr(kernels, "_chosen", "cpp")


def exact(x: torch.Tensor, form: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Value and derivative in fp64."""
    leaf = x.double().requires_grad_()
    out = F.gelu(leaf, approximate=form)
    return out.detach(), torch.autograd.grad(out.sum(), leaf)[0]


def ours(x: torch.Tensor, form: str) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = x.clone().requires_grad_()
    out = gelu(leaf, form)
    return out.detach(), torch.autograd.grad(out, leaf, torch.ones_like(out))[0]


@pytest.mark.parametrize("form", FORMS)
def test_every_number_of_bf16(form):
    x = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(torch.bfloat16)
    for got, wanted in zip(ours(x, form), exact(x, form), strict=True):
        rounded = wanted.to(torch.bfloat16)
        assert torch.equal(got.isnan(), rounded.isnan()) and torch.equal(got.isinf(), rounded.isinf())
        # The nearest number of bf16, or its neighbour where fp32 and fp64 fall on different sides of the middle.
        finite = rounded.isfinite()
        assert ((got.double() - wanted).abs() <= 0.51 * 2**-7 * wanted.abs() + 3e-7)[finite].all()
        assert (got != rounded)[finite].float().mean() < 0.01


@pytest.mark.parametrize("form", FORMS)
def test_fp32_on_a_fine_grid(form):
    x = torch.linspace(-15, 15, 1_000_003)
    (value, slope), (wanted, derivative) = ours(x, form), exact(x, form)
    # An error of 2e-7 in the error function is one of 1e-7 in Φ; the rest is the rounding of the result.
    assert ((value - wanted).abs() <= 1.01e-7 * x.abs() + 2**-24 * wanted.abs()).all()
    assert (slope - derivative).abs().max() < 4e-7


def test_the_tail_is_right_relative_to_its_own_size():
    x = torch.linspace(-12.5, -1, 100_001)
    value, slope = ours(x, "none")
    true = x.double() * 0.5 * torch.special.erfc(-x.double() / math.sqrt(2))
    assert ((value - true) / true).abs().max() < 1e-5
    derivative = true / x + x * torch.exp(-0.5 * x.double() ** 2) / math.sqrt(2 * math.pi)
    assert ((slope - derivative) / derivative).abs().max() < 1e-5


@pytest.mark.parametrize("form", FORMS)
def test_numbers_far_out(form):
    x = torch.tensor([0.0, -0.0, 1e-45, 1e4, -1e4, 1e13, -1e13, 1e20, -1e20, 3e38, -3e38])
    value, slope = ours(x, form)
    assert torch.equal(value, torch.where(x >= 1, x, torch.where(x <= -1, 0.0, x / 2)))
    assert slope.tolist() == [0.5, 0.5, 0.5, *[1.0, 0.0] * 4]
    value, slope = ours(torch.tensor([math.inf, -math.inf, math.nan]), form)
    assert value[0] == math.inf and value[1:].isnan().all() and slope.isnan().all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("count", [0, 1, 15, 17, 4095, 4097, 40_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_entry_of_every_length(form, count, dtype):
    x = torch.randn(count, generator=torch.Generator().manual_seed(count)).to(dtype)
    grad = torch.randn(count, generator=torch.Generator().manual_seed(count + 1)).to(dtype)
    leaf = x.clone().requires_grad_()
    value, (slope,) = gelu(leaf, form), torch.autograd.grad(gelu(leaf, form), leaf, grad)
    wanted, derivative = exact(x, form)
    tolerance = 1e-6 if dtype == torch.float32 else 8e-3
    torch.testing.assert_close(value.detach().double(), wanted, rtol=tolerance, atol=3e-7)
    torch.testing.assert_close(slope.double(), derivative * grad, rtol=tolerance, atol=1e-6)


def test_strided_input_and_gradient():
    x = torch.randn(6, 5, 7, generator=torch.Generator().manual_seed(0)).permute(2, 0, 1)[::2]
    leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
    assert not leaf.is_contiguous()
    gelu(leaf).sum().backward()
    torch.testing.assert_close(leaf.grad.double(), exact(x, "none")[1])


def test_what_has_no_kernel_is_left_to_pytorch():
    for dtype in (torch.float64, torch.float16):
        x = torch.linspace(-3, 3, 9).to(dtype)
        assert torch.equal(gelu(x, "tanh"), F.gelu(x, approximate="tanh"))
    with pytest.raises(RuntimeError, match="none or tanh"):
        gelu(torch.zeros(3), "sigmoid")
    x = torch.ones(3, requires_grad=True)
    (slope,) = torch.autograd.grad(gelu(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()
