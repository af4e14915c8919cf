"""A thousand random cases: every kernel gives what plain mathematics in fp64 gives, NaN and infinity included."""

from __future__ import annotations

import math
import platform

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bridges import kernels
from bridges.kernels import build, head, sparse
from bridges.kernels.transpose import transposed
from bridges.sparse import ops

DTYPES = (torch.float32, torch.bfloat16)
# Of the size of what is summed: rounding of the result, and for fp32 of its sums.
TOLERANCE = {torch.float32: 4e-6, torch.bfloat16: 5e-3}
KINDS = ("normal", "ties", "zeros", "many sizes", "not finite")


@pytest.fixture(scope="module", params=["native", "x86-64-v3", "x86-64-v2"], autouse=True)
def compiled(request, tmp_path_factory):
    """The kernels as this processor takes them, and as one does whose vectors are of eight or of four floats."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param != "native":
            if platform.machine() not in ("x86_64", "AMD64"):
                pytest.skip("no x86 processor")
            if request.param == "x86-64-v3" and not {"avx2", "fma", "bmi2"} <= set(build._processor().split()):
                pytest.skip("this processor has no AVX2")
            flags = tuple(flag.replace("=native", f"={request.param}") for flag in build.FLAGS)
            patch.setattr(build, "FLAGS", flags)
            patch.setenv("BRIDGES_CACHE", str(tmp_path_factory.mktemp("kernels")))
            build.library.cache_clear()
        try:
            build.library()
        except build.KernelsUnavailable as error:
            pytest.skip(f"no compiled kernels: {error}")
        patch.setattr(kernels, "_chosen", "cpp")
        yield
    if request.param != "native":
        build.library.cache_clear()


class Case:
    """Random shapes and values of one case, all from its seed; fp32 and bf16 and the kinds of value take turns."""

    def __init__(self, seed: int):
        self.seed, self.generator = seed, torch.Generator().manual_seed(seed)
        self.dtype, self.kind = DTYPES[seed % 2], KINDS[seed // 2 % len(KINDS)]

    def below(self, high: int) -> int:
        """1 to high - 1, and 1 itself in a fifth of the cases."""
        wanted = int(torch.randint(1, high, (), generator=self.generator))
        return 1 if torch.rand((), generator=self.generator) < 0.2 else wanted

    def values(self, *shape: int, kind: str | None = None, special: float = 0.05) -> Tensor:
        """fp32 values that bf16 holds too where that is the dtype."""
        kind, x = kind or self.kind, torch.randn(shape, generator=self.generator)
        chance = torch.rand(shape, generator=self.generator)
        if kind == "ties":
            x = x.mul(2).round() / 2
        elif kind == "zeros":
            x = torch.where(chance < 0.8, 0.0, x)
        elif kind == "many sizes":
            x = x * 10 ** (4 * torch.rand(shape, generator=self.generator) - 2)
        elif kind == "not finite":
            odd = torch.tensor([math.inf, -math.inf, math.nan, -0.0, 1e-40])
            x = torch.where(chance < special, odd[torch.randint(5, shape, generator=self.generator)], x)
        return x.to(self.dtype).float()

    def equal(self, what: str, got: Tensor, wanted: Tensor, size: Tensor | float = 1.0) -> None:
        """NaN and infinity at the same places, everything else to the rounding of numbers of this ``size``."""
        about, got = f"{what} of case {self.seed} ({self.kind}, {self.dtype})", got.double()
        assert got.shape == wanted.shape, about
        assert torch.equal(got.isnan(), wanted.isnan()), about
        assert torch.equal(got.isinf() * got.sign(), wanted.isinf() * wanted.sign()), about
        wrong = (got - wanted).abs() > TOLERANCE[self.dtype] * size + 1e-37
        assert not (wrong & wanted.isfinite()).any(), (about, (got - wanted)[wrong], wanted[wrong])


def finite(x: Tensor) -> Tensor:
    return x.abs().nan_to_num(0.0, 0.0, 0.0)


@pytest.mark.parametrize("seed", range(0, 200, 50))
def test_abs_topk(seed):
    for case in map(Case, range(seed, seed + 50)):
        shape, width = [case.below(4), case.below(6)], case.below(90)
        k = 1 if case.seed % 7 == 0 else case.below(width + 3)
        x = case.values(*shape, width).to(case.dtype).requires_grad_()
        grad = case.values(*shape, width, kind="normal").to(case.dtype)
        # A stable sort by magnitude, NaN before infinity; NaN of either sign is one magnitude here.
        size = x.detach().double().abs().nan_to_num(nan=math.inf, posinf=1e300)
        kept = torch.zeros(x.shape, dtype=torch.bool)
        kept.scatter_(-1, size.argsort(dim=-1, descending=True, stable=True)[..., :k], True)
        out = ops.abs_topk(x, k)
        wanted = torch.where(kept, x.detach(), 0)
        assert torch.equal(out.detach().nan_to_num(7.0), wanted.nan_to_num(7.0)), case.seed
        assert torch.equal(out.isnan(), wanted.isnan()), case.seed
        assert torch.equal(torch.autograd.grad(out, x, grad)[0], torch.where(kept, grad, 0)), case.seed


def causal(q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None) -> Tensor:
    """Query after query, so that nothing of a later token is ever touched."""
    rows = []
    for t in range(q.shape[2]):
        scores = torch.einsum("bhd,bhsd->bhs", q[:, :, t], k[:, :, : t + 1]) / math.sqrt(q.shape[-1])
        if sink is not None:
            scores = torch.cat([scores, sink.view(1, -1, 1).expand(len(q), -1, 1)], -1)
        rows.append(torch.einsum("bhs,bhsd->bhd", scores.softmax(-1)[..., : t + 1], v[:, :, : t + 1]))
    return torch.stack(rows, 2)


@pytest.mark.parametrize("seed", range(1000, 1200, 50))
def test_sink_attention(seed):
    """Where a value is not finite, whatever depends on it must say so; eight queries are worked on together, so that
    those beside it may say so too, as in PyTorch's own, but no query of the groups before."""
    for case in map(Case, range(seed, seed + 50)):
        batch, heads, tokens, width = case.below(4), case.below(4), case.below(22), case.below(40)
        kind = "normal" if case.kind == "many sizes" else case.kind
        # As in the model, where heads are split off the channels.
        q, k, v, grad = (
            case.values(batch, tokens, heads, width, kind=kind, special=0.002).transpose(1, 2) for _ in range(4)
        )
        sink = 2 * torch.randn(heads, generator=case.generator) if case.seed % 3 else None
        made = [None if t is None else t.double().requires_grad_() for t in (q, k, v, sink)]
        leaves = [None if t is None else t.to(case.dtype).requires_grad_() for t in (q, k, v)]
        leaves.append(None if sink is None else sink.clone().requires_grad_())
        reference, out = causal(*made), ops.sink_attention(*leaves)
        asked = [[t for t in them if t is not None] for them in (made, leaves)]
        wanted = [reference.detach(), *torch.autograd.grad(reference, asked[0], grad.double())]
        got = [out.detach(), *torch.autograd.grad(out, asked[1], grad.to(case.dtype))]
        odd = ~(q * k * v * grad).isfinite().all(-1).all(1).all(0)
        first = int(odd.nonzero()[0]) // 8 * 8 if odd.any() else tokens
        for name, a, b in zip(("out", "dq", "dk", "dv", "dsink"), got, wanted, strict=False):
            about = (name, case.seed)
            assert a.dtype == (torch.float32 if name == "dsink" else case.dtype) and a.shape == b.shape, about
            assert not (a.isfinite() & ~b.isfinite()).any(), about
            assert name not in ("out", "dq") or a[:, :, :first].isfinite().all(), about
            assert odd.any() or a.isfinite().all(), about
            both = a.isfinite() & b.isfinite()
            size = 4 * finite(b).max().clamp_min(1.0)
            assert ((a.double() - b)[both].abs() <= TOLERANCE[case.dtype] * size).all(), about


@pytest.mark.parametrize("seed", range(2000, 2200, 50))
def test_sparse_product(seed, monkeypatch):
    """A weight of zero stands for no connection: NaN and infinity do not pass through it, as they would in a dense
    product; through every other weight they do. The gradient of the weight is that of a dense product."""
    monkeypatch.setattr(sparse, "SMALLEST", 0)
    monkeypatch.setattr(sparse, "DENSEST", 1.0)
    for case in map(Case, range(seed, seed + 50)):
        rows, width, outputs = case.below(150) - (case.seed % 17 == 0), case.below(50), case.below(50)
        x, grad = case.values(rows, width), case.values(rows, outputs)
        share = (0.0, 0.05, 0.3, 1.0)[case.seed % 4]
        weight = case.values(outputs, width) * 0.3
        weight[torch.rand(outputs, width, generator=case.generator) >= share] = 0
        weight[torch.rand(outputs, generator=case.generator) < 0.2] = 0
        bias = case.values(outputs, kind="normal") if case.seed % 3 else None
        leaves = [x.to(case.dtype).requires_grad_(), weight.clone().requires_grad_()]
        leaves += [] if bias is None else [bias.clone().requires_grad_()]
        out = ops.linear(*leaves)
        assert type(out.grad_fn).__name__ == "SparseProductBackward"
        of_x, of_weight, *of_bias = torch.autograd.grad(out, leaves, grad.to(case.dtype))
        x, w, g = x.double(), weight.to(case.dtype).double(), grad.double()
        terms = torch.where(weight != 0, x[:, None] * w, 0.0)
        base = torch.zeros(outputs).double() if bias is None else bias.double()
        case.equal("output", out.detach(), terms.sum(-1) + base, finite(terms).sum(-1) + base.abs())
        terms = torch.where(weight != 0, g[:, :, None] * w, 0.0)
        case.equal("gradient of x", of_x, terms.sum(1), finite(terms).sum(1))
        # Against PyTorch's own product in this dtype, which in bf16 takes the smallest numbers for zero or not as the
        # matrices lie in memory.
        wanted = grad.to(case.dtype).T.contiguous() @ leaves[0].detach()
        case.equal("gradient of the weight", of_weight, wanted.double(), finite(g).T @ finite(x))
        if bias is not None:
            case.equal("gradient of the bias", of_bias[0], g.sum(0), finite(g).sum(0))


@pytest.mark.parametrize("seed", range(4000, 4200, 50))
def test_head_loss(seed):
    """CE, KL and their gradient; tokens that are ruled out have logits of minus infinity in both models or in one."""
    for case in map(Case, range(seed, seed + 50)):
        streams, n, width = case.below(4), case.below(6), case.below(90) + 1
        logits, other = case.values(streams, n, width, special=0.01), case.values(n, width, special=0.01)
        if case.kind == "ties":
            logits[..., 0], other[..., 0] = -math.inf, -math.inf
        target = other.log_softmax(-1)
        labels = torch.randint(-1, width, (n,), generator=case.generator)
        weights = torch.rand(2, streams, generator=case.generator)
        got_ce, got_kl, got = head.loss_and_gradient(logits, labels, target, *weights)
        x, t = logits.double(), target.double()
        logp, p, known = x.log_softmax(-1), t.exp(), labels >= 0
        ce = -logp.gather(-1, labels.clamp_min(0).expand(streams, n)[..., None])[..., 0]
        # Zero where there is no label, even beside NaN.
        case.equal("cross-entropy", got_ce, torch.where(known, ce, 0.0), 1 + finite(ce) + finite(x).amax(-1))
        # The exponential of less than -87 is zero in the kernel.
        terms = torch.where(p.float() <= 2e-38, 0.0, p * (t - logp))
        case.equal("KL", got_kl, terms.sum(-1), 1 + finite(terms).sum(-1) + finite(x).amax(-1))
        ce_weight, kl_weight = (
            weights.double()[:, :, None, None] * torch.stack([known[:, None], torch.ones(n, 1)])[:, None]
        )
        grad = (ce_weight + kl_weight) * logp.exp() - kl_weight * p
        grad -= ce_weight * (torch.arange(width) == labels[:, None])
        case.equal("gradient", got, grad, 2.0)


@pytest.mark.parametrize("shape", [(1, 1), (32, 32), (64, 96), (33, 65), (31, 200), (100, 31), (0, 5), (5, 0), (96, 7)])
def test_transpose(shape):
    # Every pattern of bits, NaN of every kind among them, is only moved.
    bits = torch.randint(-(1 << 15), 1 << 15, shape, generator=torch.Generator().manual_seed(5), dtype=torch.int16)
    turned = transposed(bits.view(torch.bfloat16))
    assert turned.is_contiguous() and torch.equal(turned.view(torch.int16), bits.T)


@pytest.mark.parametrize("seed", range(3000, 3200, 50))
def test_rms_norm(seed):
    for case in map(Case, range(seed, seed + 50)):
        rows, width, eps = (case.below(4), case.below(80)), case.below(90), (None, 1e-5, 0.1)[case.seed % 3]
        x, grad = case.values(*rows, width, special=0.01), case.values(*rows, width, special=0.01)
        gain = case.values(width, kind="normal") if case.seed % 4 else None
        given = [t for t in (x, gain) if t is not None]
        leaves = [x.to(case.dtype).requires_grad_(), *(t.clone().requires_grad_() for t in given[1:])]
        made = [t.double().requires_grad_() for t in given]
        out = ops.rms_norm(leaves[0], *(leaves[1:] or [None]), eps)
        assert type(out.grad_fn).__name__ == "RMSNormBackward"
        machine = torch.finfo(torch.float32).eps
        reference = F.rms_norm(made[0], (width,), *(made[1:] or [None]), machine if eps is None else eps)
        case.equal("output", out.detach(), reference.detach(), finite(reference.detach()))
        got = torch.autograd.grad(out, leaves, grad.to(case.dtype))
        wanted = torch.autograd.grad(reference, made, grad.double())
        scale = torch.rsqrt(finite(x).double().square().mean(-1, keepdim=True) + (machine if eps is None else eps))
        scaled = finite(grad).double() * (1 if gain is None else gain.double().abs())
        case.equal("gradient of x", got[0], wanted[0], 4 * scale * scaled.amax(-1, keepdim=True))
        if gain is not None:
            size = (finite(grad) * finite(x) * scale).flatten(0, 1).sum(0)
            case.equal("gradient of the gain", got[1], wanted[1], size)


@pytest.mark.parametrize("seed", range(4000, 4200, 50))
def test_gelu(seed):
    for case in map(Case, range(seed, seed + 50)):
        shape, form = (case.below(5), case.below(40), case.below(60)), ("none", "tanh")[case.seed // 2 % 2]
        # Infinity times a derivative near zero depends on how that is rounded.
        x, grad = 2 * case.values(*shape), case.values(*shape).nan_to_num(math.nan, 1.0, -1.0)
        leaf, made = x.to(case.dtype).requires_grad_(), x.double().requires_grad_()
        out, reference = ops.gelu(leaf, form), F.gelu(made, approximate=form)
        assert type(out.grad_fn).__name__ == "GELUBackward"
        case.equal("output", out.detach(), reference.detach(), finite(x))
        (got,) = torch.autograd.grad(out, leaf, grad.to(case.dtype))
        (wanted,) = torch.autograd.grad(reference, made, grad.double())
        case.equal("gradient", got, wanted, finite(grad))
