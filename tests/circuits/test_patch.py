"""Keeping and replacing node values: the kernel against plain PyTorch, and the gradient of a gate."""

from __future__ import annotations

import pytest
import torch

from bridges import kernels
from bridges.circuits.patch import patch


@pytest.fixture(params=["cpp", "python"])
def backend(request, monkeypatch):
    if request.param == "cpp" and kernels.select("auto") != "cpp":
        pytest.skip("the C++ kernels cannot be built here")
    monkeypatch.setattr(kernels, "_chosen", request.param)
    return request.param


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [1, 15, 16, 33, 512])
def test_channels_are_kept_or_replaced(backend, dtype, width):
    g = torch.Generator().manual_seed(width)
    x = torch.randn(6, 5, width, generator=g).to(dtype)
    mean, values = torch.randn(width, generator=g), torch.randn(6, 5, width, generator=g).to(dtype)
    kept, masks = torch.rand(width, generator=g) < 0.5, torch.rand(3, width, generator=g) < 0.5
    assert torch.equal(patch(x, kept, mean), torch.where(kept, x, mean.to(dtype)))
    assert torch.equal(patch(x, kept, values), torch.where(kept, x, values))
    rows = masks.repeat_interleave(2, 0).unsqueeze(1)
    assert torch.equal(patch(x, masks, mean), torch.where(rows, x, mean.to(dtype)))
    assert torch.equal(patch(x, masks, values[:2]), torch.where(rows, x, values[:2].repeat(3, 1, 1)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("prompts", "tokens", "width", "length"), [(6, 5, 33, 5), (1, 1, 1, 4), (40, 7, 48, 9)])
def test_every_prompt_reads_the_entry_of_a_pool_that_it_names(backend, dtype, prompts, tokens, width, length):
    g = torch.Generator().manual_seed(width)
    x = torch.randn(prompts, tokens, width, generator=g).to(dtype).requires_grad_()
    pool, grad = torch.randn(3, length, width, generator=g).to(dtype), torch.randn(x.shape, generator=g).to(dtype)
    entries = torch.randint(3, (prompts,), generator=g)
    tau = torch.randn(width, generator=g).requires_grad_()
    found = patch(x, tau.detach() > 0, pool, tau, 0.5, entries)
    wanted = patch(x, tau.detach() > 0, pool[entries, :tokens], tau, 0.5)
    assert torch.equal(found, wanted)
    for a, b in zip(
        torch.autograd.grad(found, (x, tau), grad), torch.autograd.grad(wanted, (x, tau), grad), strict=True
    ):
        assert torch.equal(a, b)


def test_what_is_replaced_may_be_nan(backend):
    x = torch.tensor([[[torch.nan, 1.0]]], requires_grad=True)
    out = patch(x, torch.tensor([False, True]), torch.zeros(2))
    assert out.tolist() == [[[0.0, 1.0]]]
    assert torch.autograd.grad(out.sum(), x)[0].tolist() == [[[0.0, 1.0]]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(4, 3, 7), (70, 9, 48)])
def test_the_gates_gradient_is_that_of_the_sigmoid(backend, dtype, shape):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=g).to(dtype).requires_grad_()
    other, grad = torch.randn(shape[-1], generator=g), torch.randn(shape, generator=g)
    tau = torch.randn(shape[-1], generator=g).requires_grad_()
    out = patch(x, tau.detach() > 0, other, tau, temperature=0.5)
    of_x, of_tau = torch.autograd.grad(out, (x, tau), grad.to(dtype))
    soft = torch.sigmoid(tau / 0.5)
    gate = (tau > 0).float() + soft - soft.detach()
    written_out = other.to(dtype).float() + gate * (x.float() - other.to(dtype).float())
    wanted = torch.autograd.grad(written_out, (x, tau), grad.to(dtype).float())
    torch.testing.assert_close(of_x, wanted[0].to(dtype))
    torch.testing.assert_close(of_tau, wanted[1], rtol=1e-4, atol=1e-4)
