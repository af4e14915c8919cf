"""The replaceable operations against brute force and written-out reference formulas."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import Tensor

from bridges.sparse.ops import abs_topk, linear, sink_attention, top_k_threshold


def _chosen(row: list[float], k: int) -> list[int]:
    return sorted(range(len(row)), key=lambda i: (-abs(row[i]), i))[:k]


def _brute_top_k(x: Tensor, k: int) -> Tensor:
    out = torch.zeros_like(x)
    for source, target in zip(x.reshape(-1, x.shape[-1]), out.view(-1, x.shape[-1]), strict=True):
        for i in _chosen(source.tolist(), k):
            target[i] = source[i]
    return out


def _values(kind: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if kind == "continuous":
        return torch.randn(shape, generator=generator)
    if kind == "ties":
        return torch.randint(-3, 4, shape, generator=generator).float()
    if kind == "nonzero ties":
        sign = torch.randint(2, shape, generator=generator) * 2.0 - 1
        return sign * torch.randint(1, 4, shape, generator=generator)
    return torch.randn(shape, generator=generator) * (torch.rand(shape, generator=generator) < 0.2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["continuous", "ties", "nonzero ties", "mostly zeros"])
def test_abs_topk_against_brute_force(kind, dtype):
    rng, generator = random.Random(kind), torch.Generator().manual_seed(len(kind))
    for width in range(1, 71):
        shape = rng.choice([(width,), (3, width), (2, 2, width)])
        x = _values(kind, shape, generator).to(dtype)
        for k in {1, width, width + 3, rng.randint(1, width), max(1, width // 4)}:
            assert torch.equal(abs_topk(x, k), _brute_top_k(x, k)), (kind, shape, k)


def test_abs_topk_of_zeros_of_many_rows_and_of_strided_input():
    assert torch.equal(abs_topk(torch.zeros(2, 9), 4), torch.zeros(2, 9))
    generator = torch.Generator().manual_seed(0)
    many = torch.randn(5000, 40, generator=generator)
    index = many.abs().topk(10).indices
    assert torch.equal(abs_topk(many, 10), torch.zeros_like(many).scatter(1, index, many.gather(1, index)))
    strided = torch.randn(7, 5, 3, generator=generator).transpose(0, 2)[:, ::2]
    assert torch.equal(abs_topk(strided, 2), _brute_top_k(strided.contiguous(), 2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_abs_topk_in_other_formats(dtype):
    x = torch.randn(4, 33, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert abs_topk(x, 5).dtype == dtype
    assert torch.equal(abs_topk(x, 5), _brute_top_k(x, 5))


@pytest.mark.parametrize("kind", ["continuous", "nonzero ties"])
def test_gradient_of_abs_topk_flows_through_the_kept_entries_only(kind):
    generator = torch.Generator().manual_seed(1)
    for width, k in ((1, 1), (8, 1), (8, 3), (33, 8), (33, 40)):
        x = _values(kind, (2, 3, width), generator).requires_grad_()
        weight = torch.randn(2, 3, width, generator=generator)
        (abs_topk(x, k) * weight).sum().backward()
        assert torch.equal(x.grad, weight * (_brute_top_k(x.detach(), k) != 0))


def test_gradient_of_abs_topk_reaches_k_entries_where_zeros_tie():
    x = torch.tensor([[0.0, 0.0, 5.0, 0.0]], requires_grad=True)
    abs_topk(x, 2).sum().backward()
    assert x.grad.tolist() == [[1.0, 0.0, 1.0, 0.0]]


def _reference_attention(q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None) -> Tensor:
    out = torch.zeros_like(v)
    rows = []
    for t in range(q.shape[2]):
        scores = torch.einsum("bhd,bhsd->bhs", q[:, :, t], k[:, :, : t + 1]) / math.sqrt(q.shape[-1])
        terms = scores.exp()
        total = terms.sum(-1)
        if sink is not None:
            total = total + sink.exp()
        rows.append(torch.einsum("bhs,bhsd->bhd", terms / total.unsqueeze(-1), v[:, :, : t + 1]))
    return out + torch.stack(rows, 2)


@pytest.mark.parametrize("with_sink", [True, False])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 1, 4), (2, 3, 7, 1), (1, 2, 17, 4), (2, 2, 32, 16)])
def test_sink_attention_against_the_softmax_written_out_in_double(shape, with_sink):
    generator = torch.Generator().manual_seed(sum(shape))
    # Strided as in the model, where heads are split off the channels.
    made = [torch.randn(shape[0], shape[2], shape[1], shape[3], generator=generator).transpose(1, 2) for _ in range(4)]
    q, k, v, weight = (2 * made[0], 2 * made[1], *made[2:])
    sink = 3 * torch.randn(shape[1], generator=generator) if with_sink else None
    mine = [t.clone().requires_grad_() if t is not None else None for t in (q, k, v, sink)]
    true = [t.double().requires_grad_() if t is not None else None for t in (q, k, v, sink)]
    out, reference = sink_attention(*mine), _reference_attention(*true)
    torch.testing.assert_close(out.double(), reference, rtol=1e-4, atol=1e-5)
    (out * weight).sum().backward()
    (reference * weight.double()).sum().backward()
    for name, a, b in zip("qkvs", mine, true, strict=True):
        if a is not None:
            torch.testing.assert_close(a.grad.double(), b.grad, rtol=1e-3, atol=2e-5, msg=lambda t, n=name: f"{n}: {t}")


def test_extreme_sinks():
    q, k, v = torch.randn(3, 1, 2, 5, 4, generator=torch.Generator().manual_seed(0)).unbind()
    plain = sink_attention(q, k, v, None)
    torch.testing.assert_close(sink_attention(q, k, v, torch.full((2,), -200.0)), plain)
    torch.testing.assert_close(sink_attention(q, k, v, torch.full((2,), 200.0)), torch.zeros_like(plain))
    mixed = sink_attention(q, k, v, torch.tensor([200.0, -200.0]))
    torch.testing.assert_close(mixed, torch.stack([torch.zeros_like(plain[:, 0]), plain[:, 1]], 1))


def test_linear_is_the_product_with_the_transposed_weight():
    x, weight, bias = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 0.0], [0.0, -1.0], [1.0, 1.0]]), torch.ones(3)
    assert linear(x, weight).tolist() == [[3.0, -2.0, 3.0]]
    assert linear(x, weight, bias).tolist() == [[4.0, -1.0, 4.0]]


def _brute_mask(flat: list[float], k: int) -> list[bool]:
    kept = set(_chosen(flat, max(0, k)))
    return [i in kept for i in range(len(flat))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["continuous", "ties", "mostly zeros"])
def test_threshold_mask_is_exact_whatever_the_guess(kind, dtype):
    rng, generator = random.Random(kind), torch.Generator().manual_seed(2)
    for _ in range(60):
        shape = rng.choice([(rng.randint(1, 60),), (rng.randint(1, 9), rng.randint(1, 9))])
        magnitude = _values(kind, shape, generator).abs().to(dtype)
        n = magnitude.numel()
        k = rng.choice([0, 1, n, n + 2, rng.randint(0, n)])
        flat = magnitude.flatten().tolist()
        exact = sorted(flat, reverse=True)[min(k, n) - 1] if k else 0.0
        for guess in (None, 0.0, -1.0, 1e-9, exact, exact * 1.05, exact * 1.06, exact * 2, 1e9, math.inf, rng.random()):
            mask, threshold = top_k_threshold(magnitude, k, guess)
            assert mask.shape == magnitude.shape and mask.dtype == torch.bool
            assert mask.flatten().tolist() == _brute_mask(flat, k), (shape, k, guess)
            if 0 < k < n:
                assert threshold == pytest.approx(exact, rel=1e-6)
