"""On a CUDA device: the same results as on the CPU, and a training that runs."""

from __future__ import annotations

import math

import pytest
import torch

from bridges.bridge import Bridges, pair_sites
from bridges.sparse import Projector, SparseTransformer, SparseTransformerConfig
from bridges.sparse.ops import abs_topk, sink_attention, top_k_threshold
from bridges.training.precision import autocast
from bridges.training.terms import TERMS, Objective

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("width", "k"), [(5, 1), (37, 9), (544, 136), (2048, 512), (6144, 1536), (40000, 100)])
def test_abs_topk_keeps_what_the_cpu_keeps(width, k, dtype):
    x = torch.randn(33, width, generator=torch.Generator().manual_seed(width)).to(dtype)
    # Rows of equal magnitudes, of zeros and of alternating signs.
    x[0], x[1], x[2, ::2], x[3] = 0, 1, 3, (-1) ** torch.arange(width)
    on_gpu = x.cuda().requires_grad_()
    out = abs_topk(on_gpu, k)
    want = abs_topk(x, k)
    if width > 16384:
        assert (out != 0).sum(1).tolist() == (want != 0).sum(1).tolist()
    else:
        assert torch.equal(out.cpu(), want)
    out.float().sum().backward()
    assert on_gpu.grad is not None
    assert int(on_gpu.grad.count_nonzero()) == k * len(x)


def _plain(q, k, v, sink):
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    future = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool, device=q.device).triu(1)
    scores = scores.masked_fill(future, -math.inf)
    column = sink.view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
    return torch.cat([scores, column], -1).softmax(-1)[..., :-1] @ v


@pytest.mark.parametrize("d_head", [16, 20, 64])
def test_flash_attention_with_a_sink_is_exact(d_head):
    generator = torch.Generator("cuda").manual_seed(d_head)
    q, k, v, grad = (torch.randn(2, 3, 75, d_head, generator=generator, device="cuda").bfloat16() for _ in range(4))
    sink = torch.randn(3, generator=generator, device="cuda").bfloat16()
    results = []
    for dtype in (torch.float64, torch.bfloat16):
        leaves = [t.to(dtype, copy=True).requires_grad_() for t in (q, k, v, sink)]
        out = (_plain if dtype == torch.float64 else sink_attention)(*leaves)
        out.backward(grad.to(dtype))
        results.append([out.detach(), *(leaf.grad for leaf in leaves)])
    for want, got in zip(*results, strict=True):
        assert float((got.double() - want).norm() / want.norm()) < 1e-2


def test_threshold_keeps_what_the_cpu_keeps():
    x = torch.rand(300, 500, generator=torch.Generator().manual_seed(0)).mul(50).round()
    for k in (1, 7, 1000, 149_999):
        assert torch.equal(top_k_threshold(x.cuda(), k)[0].cpu(), top_k_threshold(x, k)[0])


def test_objective_and_gradients_agree_with_the_cpu():
    torch.manual_seed(0)
    shape = {"vocab_size": 64, "n_layer": 2, "context": 32}
    dense = SparseTransformer(
        SparseTransformerConfig(
            d_model=32, activation_fraction=None, attention_sink=False, position="learned", bigram="none", **shape
        )
    ).requires_grad_(False)
    sparse = SparseTransformer(SparseTransformerConfig(d_model=64, **shape))
    bridges = Bridges(32, 64, pair_sites(4, 4), 0.25)
    Projector(sparse.sparse_matrices()).project(0.1)
    ids = torch.randint(0, 64, (4, 32))
    found = {}
    for name, device, precision in (("cpu", "cpu", "fp32"), ("fp32", "cuda", "fp32"), ("bf16", "cuda", "bf16")):
        models = [m.to(device) for m in (dense, sparse, bridges)]
        with autocast(precision, torch.device(device)):
            total = Objective(*models, dict.fromkeys(TERMS, 1.0))(ids.to(device), range(5), range(5)).total
        total.backward()
        parameters = [p for m in models[1:] for p in m.parameters() if p.requires_grad]
        found[name] = (float(total), torch.cat([p.grad.flatten().cpu() for p in parameters]))
        for p in parameters:
            p.grad = None
    loss, grad = found["cpu"]
    for name, of_loss, of_grad in (("fp32", 1e-4, 1e-2), ("bf16", 5e-3, 0.1)):
        assert abs(found[name][0] - loss) < of_loss * loss, name
        assert float((found[name][1] - grad).norm() / grad.norm()) < of_grad, name
