"""The RMSNorm kernel against PyTorch's, in every pair of dtypes and inside the model."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bridges import kernels
from bridges.kernels import norm
from bridges.kernels.build import KernelsUnavailable, library
from bridges.sparse import ops


@pytest.fixture(autouse=True)
def compiled(monkeypatch):
    try:
        library()
    except KernelsUnavailable as error:
        pytest.skip(f"no compiled kernels: {error}")
    monkeypatch.setattr(kernels, "_chosen", "cpp")


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
@pytest.mark.parametrize("shape", [(1,), (5,), (3, 16), (2, 65, 33), (300, 70), (2, 128, 512), (0, 7)])
@pytest.mark.parametrize("gain", [None, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("eps", [None, 0.01])
def test_values_and_gradients_are_those_of_pytorch(shape, gain, dtype, tolerance, eps):
    x, grad = _random(*shape).to(dtype), _random(*shape, seed=1).to(dtype)
    weight = None if gain is None else (1 + _random(shape[-1], seed=2)).to(gain)
    found = []
    for call in (ops.rms_norm, lambda x, weight, eps: F.rms_norm(x, x.shape[-1:], weight, eps)):
        leaves = [t.clone().requires_grad_() for t in (x, weight) if t is not None]
        out = call(leaves[0], *(leaves[1:] or [None]), eps)
        found.append([out.detach(), *torch.autograd.grad(out, leaves, grad)])
    for got, wanted in zip(*found, strict=True):
        assert got.dtype == wanted.dtype and got.shape == wanted.shape
        torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance * max(1.0, len(grad) ** 0.5))


def test_bf16_output_of_fp32_is_one_rounding_of_the_fp32_one():
    x, weight, grad = _random(9, 77), 1 + _random(77, seed=1), _random(9, 77, seed=2).bfloat16()
    found = []
    for rounded in (True, False):
        leaves = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
        with torch.autocast("cpu", torch.bfloat16):
            out = ops.rms_norm(*leaves, 1e-5, into_linear=rounded)
        assert out.dtype == (torch.bfloat16 if rounded else torch.float32)
        found.append([out.bfloat16(), *torch.autograd.grad(out, leaves, grad.to(out.dtype))])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_rounding_to_bf16_is_that_of_pytorch():
    # Every upper half with lower halves around the middle: ties, overflow to infinity and NaN that a carry would undo.
    upper = torch.arange(1 << 16).repeat_interleave(5)
    bits = (upper << 16) + torch.tensor([0, 0x7FFF, 0x8000, 0x8001, 0xFFFF]).repeat(1 << 16)
    gain = bits.to(torch.int32).view(torch.float32)
    out, scale = norm.forward(torch.ones(1, len(gain)), gain, 0.0, torch.bfloat16)
    assert scale == 1
    torch.testing.assert_close(out[0], gain.bfloat16(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("wanted", [(True, False), (False, True), (False, False)])
def test_only_the_gradients_that_are_wanted(wanted):
    x, weight = _random(4, 20), _random(20, seed=1)
    out = ops.rms_norm(x.requires_grad_(wanted[0]), weight.requires_grad_(wanted[1]), None)
    assert out.requires_grad == any(wanted)
    if any(wanted):
        out.square().sum().backward()
    assert ((x.grad is not None), (weight.grad is not None)) == wanted
    scale = torch.ones(4)
    assert [g is not None for g in norm.backward(x, x, weight, scale, wanted)] == list(wanted)


def test_the_gain_s_gradient_does_not_depend_on_the_number_of_threads():
    x, grad, weight, threads = _random(1000, 40), _random(1000, 40, seed=1), torch.ones(40), torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            out, scale = norm.forward(x, weight, 1e-6, torch.float32)
            found.append([out, *norm.backward(grad, x, weight, scale, (True, True))])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_rows_of_zeros_and_of_numbers_whose_squares_overflow():
    x = torch.zeros(3, 8)
    x[1], x[2] = 1e30, 1e-30
    leaf, same = x.clone().requires_grad_(), x.clone().requires_grad_()
    out, wanted = ops.rms_norm(leaf, None, 1e-6), F.rms_norm(same, (8,), None, 1e-6)
    torch.testing.assert_close(out, wanted)
    grads = torch.autograd.grad(out.sum(), leaf)[0], torch.autograd.grad(wanted.sum(), same)[0]
    torch.testing.assert_close(*grads, equal_nan=True)


def test_strided_input_and_gradient():
    leaf = _random(8, 6, 5).requires_grad_()
    x = leaf.transpose(0, 2)
    (got,) = torch.autograd.grad(ops.rms_norm(x, None, 0.1).transpose(0, 1).cos().sum(), leaf)
    (wanted,) = torch.autograd.grad(F.rms_norm(x, (8,), None, 0.1).transpose(0, 1).cos().sum(), leaf)
    torch.testing.assert_close(got, wanted)


def test_what_has_no_kernel_is_left_to_pytorch():
    for dtype in (torch.float64, torch.float16):
        x = _random(3, 5).to(dtype)
        assert torch.equal(ops.rms_norm(x, None, None), F.rms_norm(x, (5,)))
    with pytest.raises(RuntimeError, match="weight"):
        ops.rms_norm(_random(3, 5), torch.ones(4), None)
    x = _random(3, 5).requires_grad_()
    (slope,) = torch.autograd.grad(ops.rms_norm(x, None, None).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_the_model_s_norms_are_the_kernel_s(tiny_sparse, monkeypatch, precision):
    # Without AbsTopK, whose choices a rounding can change.
    model = tiny_sparse(norm_gain=True, position="concat", activation_fraction=None)
    assert {name for name, m in model.named_modules() if isinstance(m, nn.RMSNorm)} == {
        "norm", *(f"blocks.{i}.read.norm" for i in range(4))
    }  # fmt: skip
    ids = torch.randint(29, (2, 9), generator=torch.Generator().manual_seed(0))
    found = []
    for chosen in ("cpp", "python"):
        monkeypatch.setattr(kernels, "_chosen", chosen)
        model.zero_grad()
        with torch.autocast("cpu", precision, enabled=precision is not None):
            model(ids, labels=ids).loss.backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if "norm" in name})
    assert len(found[0]) == 5
    for name, grad in found[1].items():
        tolerance = 1e-5 if precision is None else 0.05 * float(grad.abs().max())
        torch.testing.assert_close(found[0][name], grad, rtol=1e-3, atol=tolerance)
