"""The attention kernel against plain fp64 mathematics, and inside transformers."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from bridges import kernels
from bridges.kernels import attention
from bridges.kernels.build import KernelsUnavailable, _processor, library
from bridges.sparse import ops


@pytest.fixture(autouse=True)
def compiled(monkeypatch):
    try:
        library()
    except KernelsUnavailable as error:
        pytest.skip(f"no compiled kernels: {error}")
    monkeypatch.setattr(kernels, "_chosen", "cpp")


def exact(q, k, v, sink, grad):
    """Output and gradients of attention with a sink, in fp64 by autograd."""
    q, k, v, sink = (t.detach().double().requires_grad_() for t in (q, k, v, sink))
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    future = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool).triu(1)
    column = sink.view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
    p = torch.cat([scores.masked_fill(future, -math.inf), column], -1).softmax(-1)[..., :-1]
    out = p @ v
    return out, torch.autograd.grad(out, (q, k, v, sink), grad.double())


SHAPES = [(1, 1, 1, 1), (2, 3, 37, 16), (1, 2, 64, 13), (2, 2, 5, 70), (1, 1, 300, 33)]
SHAPES += [(1, 21, 70, 16), (2, 5, 96, 130)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 3e-2)])
def test_gradients_of_any_shape(shape, dtype, tolerance):
    generator = torch.Generator().manual_seed(sum(shape))
    q, k, v, grad = (torch.randn(shape, generator=generator).to(dtype) for _ in range(4))
    sink = torch.randn(shape[1], generator=generator)
    reference, wanted = exact(q, k, v, sink, grad)
    leaves = [t.clone().requires_grad_() for t in (q, k, v, sink)]
    out = ops.sink_attention(*leaves)
    torch.testing.assert_close(out.double(), reference, atol=tolerance, rtol=tolerance)
    for got, want in zip(torch.autograd.grad(out, leaves, grad), wanted, strict=True):
        size = want.abs().max().clamp_min(1.0)
        assert ((got.double() - want).abs().max() / size) < tolerance


def test_products_of_pytorch_come_out_the_same_beside_attention():
    # Both may use the processor's matrix tiles, whose shape is a state of the thread.
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(256, 256, generator=generator).bfloat16() for _ in range(2))
    q = torch.randn(4, 8, 64, 16, generator=generator).bfloat16().requires_grad_()
    before = x @ y
    out = ops.sink_attention(q, q, q, torch.zeros(8))
    assert torch.equal(x @ y, before)
    (first,) = torch.autograd.grad(out, q, out.detach())
    assert torch.equal(x @ y, before)
    out = ops.sink_attention(q, q, q, torch.zeros(8))
    assert torch.equal(torch.autograd.grad(out, q, out.detach())[0], first)


def test_matrix_tiles_are_in_use_where_there_are_some():
    """Without them bf16 is computed as its values in fp32 are, to the last bit."""
    if "amx_bf16" not in _processor():
        pytest.skip("this processor has no matrix tiles")

    def differs(tokens: int) -> bool:
        q = torch.randn(2, 4, tokens, 16, generator=torch.Generator().manual_seed(0)).bfloat16()
        one, other = (attention.forward(x, x, x, None, 0.25)[1] for x in (q, q.float()))
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
        return not torch.equal(one, other)

    assert [differs(tokens) for tokens in (31, 64)] == [False, True]


def test_heads_that_are_views_of_one_projection():
    fused = torch.randn(2, 9, 3 * 24, generator=torch.Generator().manual_seed(0), requires_grad=True)
    parts = [p.unflatten(-1, (3, 8)).transpose(1, 2) for p in fused.chunk(3, -1)]
    ops.sink_attention(*parts, None).square().sum().backward()
    ours, fused.grad = fused.grad, None
    parts = [p.unflatten(-1, (3, 8)).transpose(1, 2) for p in fused.chunk(3, -1)]
    torch.nn.functional.scaled_dot_product_attention(*parts, is_causal=True).square().sum().backward()
    torch.testing.assert_close(ours, fused.grad, atol=1e-5, rtol=1e-4)


def test_scores_far_apart_give_finite_gradients():
    q = 40 * torch.randn(1, 2, 50, 16, generator=torch.Generator().manual_seed(0))
    k, v = q.flip(-1).clone(), q.roll(1, -1).clone()
    grad = torch.ones_like(q)
    _, wanted = exact(q, k, v, torch.zeros(2), grad)
    leaves = [t.requires_grad_() for t in (q, k, v)]
    got = torch.autograd.grad(ops.sink_attention(*leaves, torch.zeros(2)), leaves, grad)
    for a, b in zip(got, wanted, strict=False):
        assert a.isfinite().all()
        # Scores reach 9,400, where neighbouring fp32 numbers lie 1e-3 apart.
        assert (a.double() - b).abs().max() < 3e-3 * b.abs().max()


def test_nan_is_not_hidden():
    q = torch.randn(1, 1, 6, 4, generator=torch.Generator().manual_seed(0))
    q[0, 0, 3, 2] = math.nan
    leaves = [t.clone().requires_grad_() for t in (q, torch.ones_like(q), torch.ones_like(q))]
    grads = torch.autograd.grad(ops.sink_attention(*leaves, None), leaves, torch.ones_like(q))
    assert grads[0][0, 0, 3].isnan().any() and grads[0][0, 0, :3].isfinite().all()


def test_inside_a_gpt2_of_transformers():
    config = GPT2Config(vocab_size=50, n_positions=40, n_embd=24, n_layer=2, n_head=3, bos_token_id=0, eos_token_id=0)
    ids = torch.randint(0, 50, (2, 33), generator=torch.Generator().manual_seed(0))
    found = {}
    for name in ("eager", attention.register()):
        torch.manual_seed(0)
        config._attn_implementation = name
        model = GPT2LMHeadModel(config).eval()
        calls = []
        hook = attention.CausalAttention.apply
        attention.CausalAttention.apply = lambda *a, calls=calls, hook=hook: (calls.append(1), hook(*a))[1]
        try:
            model(ids, labels=ids).loss.backward()
        finally:
            attention.CausalAttention.apply = hook
        assert len(calls) == (2 if name == "bridges" else 0)
        found[name] = {n: p.grad for n, p in model.named_parameters()}
    for name, grad in found["eager"].items():
        torch.testing.assert_close(found["bridges"][name], grad, atol=1e-6, rtol=1e-4)
