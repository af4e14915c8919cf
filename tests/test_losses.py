"""Divergences against torch.distributions, and the chunked loss head against logits held all at once."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Categorical, kl_divergence
from torch.nn import functional as F

from bridges import kernels, losses
from bridges.losses import Reference, head_loss, head_values, kl_from_reference, nmse
from bridges.training.moments import Moments


def test_kl_equals_torch_distributions():
    generator = torch.Generator().manual_seed(0)
    p, q = (3 * torch.randn(2, 4, 7, 11, generator=generator, dtype=torch.float64)).log_softmax(-1)
    mine = kl_from_reference(p, q)
    assert mine.shape == (4, 7)
    torch.testing.assert_close(mine, kl_divergence(Categorical(logits=p), Categorical(logits=q)))
    torch.testing.assert_close(kl_from_reference(p[:1], q), kl_from_reference(p[:1].expand_as(q), q))


def test_direction_of_kl_by_hand():
    reference, model = torch.tensor([0.75, 0.25]).log(), torch.tensor([0.5, 0.5]).log()
    forward = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    backward = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(2.0)
    assert abs(forward - backward) > 0.01
    assert float(kl_from_reference(reference, model)) == pytest.approx(forward, rel=1e-6)
    assert float(kl_from_reference(model, reference)) == pytest.approx(backward, rel=1e-6)


def test_nmse_by_hand():
    # Deviations from the mean (1, 0) are 1, 4 and 9; errors are 4, 1 and 0.
    target = torch.tensor([[[2.0, 0.0], [1.0, 2.0], [-2.0, 0.0]]])
    estimate = torch.tensor([[[2.0, 2.0], [0.0, 2.0], [-2.0, 0.0]]])
    assert float(nmse(estimate, target, torch.tensor([1.0, 0.0]))) == pytest.approx((4 / 1 + 1 / 4 + 0) / 3)


def test_nmse_of_the_mean_is_one_and_its_normaliser_takes_no_gradient():
    target = torch.randn(2, 5, 30, generator=torch.Generator().manual_seed(0)).requires_grad_()
    mean = target.detach().mean((0, 1))
    assert nmse(mean.expand(2, 5, 30), target, mean).item() == pytest.approx(1.0)
    estimate = torch.zeros(2, 5, 30)
    nmse(estimate, target, mean).backward()
    deviation = (target.detach() - mean).square().sum(-1, keepdim=True)
    torch.testing.assert_close(target.grad, 2 * target.detach() / deviation / 10)


def test_a_token_on_the_mean_does_not_decide_the_nmse():
    target = torch.tensor([[[0.0], [1.0], [-1.0]]])
    # Its error counts as if it were a tenth of the variance, of two thirds, away.
    value = float(nmse(target + 0.1, target, torch.zeros(1)))
    assert value == pytest.approx((0.01 / (0.1 * 2 / 3) + 0.02) / 3)
    value = float(nmse(target + 0.1, target, torch.zeros(1), torch.tensor(4.0)))
    assert value == pytest.approx((0.01 / 0.4 + 0.02) / 3)


@pytest.fixture
def case(make_pair):
    """Three streams of the sparse stack, the dense reference, and coefficients with zeros among them."""
    p = make_pair(bigram="low_rank", norm_gain=True)
    generator = torch.Generator().manual_seed(5)
    streams = [torch.randn(5, 10, 16, generator=generator).requires_grad_() for _ in range(3)]
    with torch.no_grad():
        reference = Reference(p.dense, p.dense.run(p.ids).final[0])
    return p, streams, reference, [1.0, 0.0, 0.7], [0.0, 2.0, 0.3]


def _direct(p, streams, ce_weights, kl_weights):
    total, values = torch.zeros(()), []
    with torch.no_grad():
        dense = Categorical(logits=p.dense.logits(p.ids))
    for h, a, b in zip(streams, ce_weights, kl_weights, strict=True):
        logits = p.sparse.unembed(h, p.ids)
        ce = F.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), p.ids[:, 1:].reshape(-1))
        kl = kl_divergence(dense, Categorical(logits=logits)).mean()
        total = total + a * ce + b * kl
        values.append([ce.item(), kl.item()])
    return total, torch.tensor(values).T


# 29 tokens, three streams: one position, four positions, seven (which do not divide fifty), all at once.
@pytest.mark.parametrize("entries", [1, 29 * 3 * 4 + 5, 29 * 3 * 7, 1 << 24])
def test_chunked_head_loss_equals_the_direct_one(case, monkeypatch, entries):
    p, streams, reference, ce, kl = case
    monkeypatch.setattr(losses, "CHUNK_ENTRIES", entries)
    names, params = zip(*p.sparse.named_parameters(), strict=True)
    total, values = head_loss(p.sparse, streams, p.ids, reference, ce, kl)
    direct, direct_values = _direct(p, streams, ce, kl)
    torch.testing.assert_close(total, direct)
    torch.testing.assert_close(values, direct_values)
    assert not values.requires_grad
    # A factor in front shows that the gradient that was formed early is still scaled by what comes later.
    mine = torch.autograd.grad(1.7 * total, [*streams, *params], allow_unused=True)
    true = torch.autograd.grad(1.7 * direct, [*streams, *params], allow_unused=True)
    reached = {name for name, grad in zip(["0", "1", "2", *names], true, strict=True) if grad is not None}
    assert {"0", "1", "2", "head.weight", "head.bias", "norm.weight", "bigram.0.weight", "bigram.1.weight"} == reached
    for name, a, b in zip(["0", "1", "2", *names], mine, true, strict=True):
        assert (a is None) == (b is None), name
        if b is not None:
            torch.testing.assert_close(a, b, msg=lambda text, name=name: f"{name}: {text}")


def test_streams_that_share_a_source_add_their_gradients(case):
    p, streams, reference, ce, kl = case
    h = streams[0]
    mixed = [h, 0.5 * h, h + streams[1]]
    total, direct = head_loss(p.sparse, mixed, p.ids, reference, ce, kl)[0], _direct(p, mixed, ce, kl)[0]
    (mine,) = torch.autograd.grad(total, h, retain_graph=True)
    (true,) = torch.autograd.grad(direct, h)
    torch.testing.assert_close(mine, true)


def test_a_frozen_unembedding_takes_no_gradient_and_passes_it_on(case):
    p, streams, reference, ce, kl = case
    p.sparse.requires_grad_(False)
    total, _ = head_loss(p.sparse, streams, p.ids, reference, ce, kl)
    mine = torch.autograd.grad(total, streams)
    true = torch.autograd.grad(_direct(p, streams, ce, kl)[0], streams)
    torch.testing.assert_close(mine, true)
    assert all(q.grad is None for q in p.sparse.parameters())


def test_a_bigram_frozen_after_first_use_takes_no_gradient(case):
    p, streams, reference, ce, kl = case
    head_loss(p.sparse, streams, p.ids, reference, ce, kl)
    p.sparse.bigram.requires_grad_(False)
    head_loss(p.sparse, streams, p.ids, reference, ce, kl)[0].backward()
    assert p.sparse.head.weight.grad is not None
    assert all(q.grad is None for q in p.sparse.bigram.parameters())


def test_a_bigram_freed_after_first_use_takes_its_gradient(case):
    p, streams, reference, ce, kl = case
    p.sparse.bigram.requires_grad_(False)
    head_loss(p.sparse, streams, p.ids, reference, ce, kl)
    p.sparse.bigram.requires_grad_(True)
    head_loss(p.sparse, streams, p.ids, reference, ce, kl)[0].backward()
    assert all(q.grad is not None for q in p.sparse.bigram.parameters())


@pytest.mark.parametrize("entries", [1, 29 * 3 * 7, 1 << 24])
def test_head_values_are_the_same_numbers_per_position(case, monkeypatch, entries):
    p, streams, reference, ce, kl = case
    monkeypatch.setattr(losses, "CHUNK_ENTRIES", entries)
    values = head_values(p.sparse, streams, p.ids, reference)
    assert values.ce.shape == (3, 5, 9) and values.kl.shape == (3, 5, 10)
    _, means = head_loss(p.sparse, streams, p.ids, reference, ce, kl)
    torch.testing.assert_close(torch.stack([values.ce.mean((1, 2)), values.kl.mean((1, 2))]), means)
    with torch.no_grad():
        dense = Categorical(logits=p.dense.logits(p.ids))
        for s, h in enumerate(streams):
            logits = p.sparse.unembed(h, p.ids)
            torch.testing.assert_close(values.kl[s], kl_divergence(dense, Categorical(logits=logits)))
            own = F.cross_entropy(logits[:, :-1].mT, p.ids[:, 1:], reduction="none")
            torch.testing.assert_close(values.ce[s], own)


def test_without_a_reference_there_is_no_kl(case):
    p, streams, reference, *_ = case
    values = head_values(p.sparse, streams, p.ids, None)
    assert values.kl is None
    torch.testing.assert_close(values.ce, head_values(p.sparse, streams, p.ids, reference).ce)


def test_labels_are_the_next_tokens(tiny_sparse):
    model = tiny_sparse(d_model=2, bigram="none", bias=False)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.weight[7, 0] = 30.0
    ids = torch.tensor([[1, 7, 7, 2]])
    ce = head_values(model, [torch.tensor([[[1.0, -1.0]]]).expand(1, 4, 2)], ids, None).ce[0, 0]
    torch.testing.assert_close(ce, torch.tensor([0.0, 0.0, 30.0]), atol=1e-4, rtol=1e-4)


def test_masked_logits_count_nothing_in_kl():
    """Tokens that the reference excludes contribute 0, whether or not the model excludes them as well."""
    reference = torch.tensor([[2.0, 1.0, -torch.inf, -torch.inf]]).log_softmax(-1)
    logits = torch.tensor([[1.0, 1.0, 0.5, -torch.inf]], requires_grad=True)
    logp = logits.log_softmax(-1)
    p = reference[0, :2].exp()
    expected = (p * (reference[0, :2] - logp[0, :2])).sum()
    kl = kl_from_reference(reference, logp)
    torch.testing.assert_close(kl, expected.view(1))
    (grad,) = torch.autograd.grad(kl.sum(), logits)
    torch.testing.assert_close(grad[0], logp[0].detach().exp() - reference[0].exp())
    assert kl_from_reference(logp, reference).isinf()  # the model excludes what the reference does not


class Masked(torch.nn.Module):
    """A stack whose unembedding gives some tokens no probability, as models with reserved entries do."""

    def __init__(self, stack, masked):
        super().__init__()
        self.stack, self.masked = stack, masked
        self.d_model, self.vocab_size = stack.d_model, stack.vocab_size

    def unembed(self, h, ids):
        return self.stack.unembed(h, ids).index_fill(-1, torch.tensor(self.masked), -torch.inf)


def test_the_head_s_gradient_is_finite_where_logits_are_masked(tiny_sparse):
    dense, sparse = Masked(tiny_sparse(1), [3, 4]), tiny_sparse(2)
    ids = torch.randint(5, 29, (2, 6), generator=torch.Generator().manual_seed(0))
    h = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(1), requires_grad=True)
    reference = Reference(dense, h.detach() * 0.5)
    for stack in (sparse, Masked(sparse, [4, 3])):
        loss, values = head_loss(stack, [h], ids, reference, [1.0], [1.0])
        (grad,) = torch.autograd.grad(loss, h)
        p = reference.stack.unembed(reference.stream, ids).softmax(-1)
        logp = stack.unembed(h, ids).log_softmax(-1)
        kept = p > 0
        true = (p[kept] * (p[kept].log() - logp[kept])).sum() / ids.numel()
        torch.testing.assert_close(values[1, 0], true.detach())
        assert grad.isfinite().all() and grad.any()


def test_autocast_does_not_round_the_losses():
    """PyTorch's autocast list has inner products on it; a KL rounded to eight bits hides most differences."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 3, 5, 40, generator=generator)
    mean = a.mean((0, 1))
    exact = [kl_from_reference(a.log_softmax(-1), b.log_softmax(-1)), nmse(b, a, mean), Moments.of(a).square]
    with torch.autocast("cpu", torch.bfloat16):
        again = [kl_from_reference(a.log_softmax(-1), b.log_softmax(-1)), nmse(b, a, mean), Moments.of(a).square]
    for one, two in zip(exact, again, strict=True):
        assert two.dtype == torch.float32 and torch.equal(one, two)


@pytest.mark.parametrize("kernels_used", ["cpp", "python"])
@pytest.mark.parametrize("vocab", [29, 371])
def test_streams_in_bf16_give_the_gradients_of_the_same_streams_in_fp32(tiny_sparse, monkeypatch, kernels_used, vocab):
    """A model stored in bf16 hands its streams over as they are; what reads the logits is fp32 all the same."""
    if kernels_used == "cpp" and kernels.select("auto") != "cpp":
        pytest.skip("the C++ kernels cannot be built here")
    monkeypatch.setattr(kernels, "_chosen", kernels_used)
    monkeypatch.setattr(losses, "CHUNK_ENTRIES", 2 * vocab * 7)
    ids = torch.randint(vocab, (3, 9), generator=torch.Generator().manual_seed(0))
    streams = torch.randn(2, 3, 9, 16, generator=torch.Generator().manual_seed(1)).bfloat16()
    dense, sparse = (tiny_sparse(seed, vocab_size=vocab, bigram="none").requires_grad_(False) for seed in (1, 2))
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        # Weights that bf16 holds, so that the two differ by how results are rounded alone.
        for model in (dense, sparse):
            model.bfloat16().to(dtype)
        leaves = [h.to(dtype).requires_grad_() for h in streams]
        reference = Reference(dense, streams[0].to(dtype) * 0.5)
        total, values = head_loss(sparse, leaves, ids, reference, [1.0, 0.3], [0.5, 2.0])
        assert total.dtype == values.dtype == torch.float32
        gradients = torch.autograd.grad(total, leaves)
        assert all(g.dtype == dtype for g in gradients)
        found.append((total.detach(), values, torch.stack(gradients).float()))
    for half, full in zip(*found, strict=True):
        torch.testing.assert_close(half, full, rtol=2e-2, atol=2e-2 * float(full.abs().max()))
    # Of the other values alone a wrong order of magnitude would pass.
    assert torch.cosine_similarity(found[0][2].flatten(), found[1][2].flatten(), dim=0) > 0.999


def test_nmse_and_kl_of_bf16_are_summed_in_fp32():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 3, 5, 400, generator=generator).bfloat16()
    for function in (lambda x, y: nmse(x, y, y.mean((0, 1))), kl_from_reference):
        half, full = (function(*(t.to(dtype) for t in (a, b))) for dtype in (torch.bfloat16, torch.float32))
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, full, rtol=1e-2, atol=1e-3)


def test_a_bigram_table_that_comes_in_later_has_a_gradient_from_then_on(tiny_pair):
    """Which parameters the unembedding reads is found once, and again where a table begins to count."""
    sparse, dense, ids = tiny_pair.sparse, tiny_pair.dense, tiny_pair.ids
    reference = Reference(dense, dense.run(ids).final[0])
    for share, reached in ((0.0, False), (0.5, True), (1.0, True)):
        sparse.bigram_share = share
        sparse.zero_grad()
        total, _ = head_loss(sparse, [sparse.run(ids).final[0]], ids, reference, [1.0], [1.0])
        total.backward()
        assert (sparse.bigram.weight.grad is not None) == reached
