"""Products with few nonzeros: when they are taken, that a changed weight is seen, and that shapes are checked."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from bridges import kernels
from bridges.kernels import sparse
from bridges.sparse.ops import linear, sink_attention

pytestmark = pytest.mark.skipif(kernels.select("auto") != "cpp", reason="the C++ kernels cannot be built here")


@pytest.fixture(autouse=True)
def compiled(monkeypatch):
    monkeypatch.setattr(kernels, "_chosen", "cpp")


def weight(share: float = 0.05, shape: tuple[int, int] = (200, 160)) -> torch.nn.Parameter:
    g = torch.Generator().manual_seed(0)
    return torch.nn.Parameter(torch.randn(shape, generator=g) * (torch.rand(shape, generator=g) < share))


def test_dense_and_small_weights_are_left_to_the_dense_product():
    assert sparse.packed(weight(0.05), torch.float32) is not None
    assert sparse.packed(weight(0.5), torch.float32) is None
    assert sparse.packed(weight(0.05, (20, 20)), torch.float32) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_gradients_are_those_of_the_dense_product(dtype):
    w, bias = weight(), torch.nn.Parameter(torch.randn(200, generator=torch.Generator().manual_seed(1)))
    x = torch.randn(3, 41, 160, generator=torch.Generator().manual_seed(2))
    grad = torch.randn(3, 41, 200, generator=torch.Generator().manual_seed(3)).to(dtype)
    found = []
    for product in (linear, F.linear):
        leaf = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            out = product(leaf, w, bias)
        assert out.dtype == dtype
        found.append([out, *torch.autograd.grad(out, (leaf, w, bias), grad)])
    close = {"rtol": 2e-2, "atol": 5e-2} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-4}
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, **close)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("open_", [0, 1, 9, 40, 60, 200])
@pytest.mark.parametrize("tokens", [1, 31, 75])
def test_channels_without_a_gradient_are_passed_over(tokens, open_, dtype):
    """Both ways through the matrix, by the columns of few open channels and by rows, with tiles that are not whole."""
    g = torch.Generator().manual_seed(open_)
    w = weight(0.1, (203, 165)).detach()
    w[0], w[:, 0] = 0, 0
    grad = torch.randn(tokens, 203, generator=g).to(dtype)
    grad[:, torch.randperm(203, generator=g)[open_:]] = 0
    # One token is enough for a channel to count.
    grad[1:, torch.randperm(203, generator=g)[:20]] = 0
    packed = sparse.Packed(w, sparse._count(w), dtype)
    back = packed.back(grad)
    assert back.dtype == dtype and back.shape == (tokens, 165)
    wanted = grad.double() @ w.to(dtype).double()
    close = {"rtol": 1e-2, "atol": 1e-2} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(back.double(), wanted, **close)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1), (300, 257), (1000, 700), (0, 5)])
def test_column_sums_are_exact_to_fp32(shape, dtype):
    x = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 1).to(dtype)
    torch.testing.assert_close(sparse.column_sums(x).double(), x.double().sum(0), rtol=1e-6, atol=1e-4)


def test_a_changed_weight_is_seen_even_after_a_fused_optimizer_step():
    from bridges.training.optimizers import ParameterGroup, build_optimizer

    w = weight()
    x = torch.randn(4, 160, generator=torch.Generator().manual_seed(1))
    linear(x, w)
    with torch.no_grad():
        w.mul_(2)
    torch.testing.assert_close(linear(x, w), F.linear(x, w), rtol=1e-4, atol=1e-4)
    optimizer = build_optimizer([ParameterGroup([w], lr=0.1)], betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)
    w.grad = torch.where(w.detach() != 0, 1.0, 0.0)
    optimizer.step()
    torch.testing.assert_close(linear(x, w), F.linear(x, w), rtol=1e-4, atol=1e-4)


def test_shapes_that_do_not_fit_are_pytorchs_error():
    w = weight()
    for x, bias in ((torch.zeros(4, 320), None), (torch.zeros(4, 80), None), (torch.zeros(4, 160), torch.zeros(3))):
        with pytest.raises(RuntimeError):
            linear(x, w, bias)


def test_attention_takes_only_what_fits():
    q = torch.randn(1, 2, 5, 8, generator=torch.Generator().manual_seed(0))
    with pytest.raises(RuntimeError):
        sink_attention(q, q.bfloat16(), q, None)
    wide = torch.cat([q, q], -1)
    torch.testing.assert_close(
        sink_attention(q, q, wide, None), F.scaled_dot_product_attention(q, q, wide, is_causal=True)
    )
    with pytest.raises(RuntimeError):
        sink_attention(q, q, q, torch.zeros(3))


def test_weights_made_in_inference_mode_work():
    with torch.inference_mode():
        w = weight().detach().clone()
        x = torch.ones(2, 160)
        torch.testing.assert_close(linear(x, w), F.linear(x, w), rtol=1e-4, atol=1e-4)
