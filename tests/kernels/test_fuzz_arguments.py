"""Every argument of every kernel in every wrong form: what comes out is right, or the kernel refuses.

Each case calls a kernel and plain mathematics in fp64 with the same arguments, one of them spoilt: another dtype,
another layout, another device, another shape. A kernel may convert or refuse; it may never give other numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bridges.kernels import abs_topk, attention, choose, gelu, gpu_topk, head, norm, sparse
from bridges.kernels.build import KernelsUnavailable, library
from bridges.kernels.call import KernelArgumentError, call
from bridges.kernels.transpose import transposed

Arguments = dict[str, Tensor]
HALF = torch.bfloat16


@pytest.fixture(autouse=True)
def compiled():
    try:
        library()
    except KernelsUnavailable as error:
        pytest.skip(f"no compiled kernels: {error}")


@dataclass
class Kernel:
    """A kernel, what it should compute, and good arguments for it."""

    run: Callable[..., list[Tensor]]
    plain: Callable[..., list[Tensor]]
    arguments: Callable[[torch.Generator, torch.dtype], Arguments]
    dtypes: tuple[torch.dtype, ...] = (torch.float32, HALF)


def normal(g: torch.Generator, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    # Sixteenths are the same numbers in every dtype that is tried, whole numbers apart.
    return (torch.randn(shape, generator=g) * 16).round().div(16).to(dtype)


def gradients(out: Tensor, leaves: list[Tensor], grad: Tensor) -> list[Tensor]:
    assert out.shape == grad.shape
    return list(torch.autograd.grad(out, leaves, grad.double()))


def leaf(x: Tensor) -> Tensor:
    return x.detach().double().requires_grad_()


def plain_topk(x: Tensor) -> list[Tensor]:
    assert x.ndim == 2
    order = x.double().abs().argsort(dim=-1, descending=True, stable=True)[:, :3]
    mask = torch.zeros(x.shape, dtype=torch.bool).scatter_(-1, order, True)
    return [torch.where(mask, x, 0), mask]


def plain_select(grad: Tensor, mask: Tensor) -> list[Tensor]:
    assert grad.shape == mask.shape and mask.dtype == torch.bool
    return [torch.where(mask, grad, 0)]


def plain_attention(q: Tensor, k: Tensor, v: Tensor, sink: Tensor) -> tuple[Tensor, Tensor]:
    assert q.shape == k.shape == v.shape and q.ndim == 4 and sink.shape == q.shape[1:2]
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -math.inf)
    scores = torch.cat([scores, sink.view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)], -1)
    return scores.softmax(-1)[..., :-1] @ v, scores.logsumexp(-1)


def run_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, sink: Tensor
) -> list[Tensor]:
    *grads, of_sink = attention.backward(grad, q, k, v, out, lse, sink, 0.5)
    assert of_sink is not None
    return [*grads, of_sink]


def plain_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, sink: Tensor
) -> list[Tensor]:
    leaves = [leaf(x) for x in (q, k, v, sink)]
    made, scores = plain_attention(*leaves)
    assert out.shape == made.shape and lse.shape == scores.shape
    return gradients(made, leaves, grad)


def attention_arguments(g: torch.Generator, dtype: torch.dtype) -> Arguments:
    made = {name: normal(g, 2, 3, 5, 4, dtype=dtype) for name in ("q", "k", "v")} | {"sink": normal(g, 3)}
    return made


def attention_backward_arguments(g: torch.Generator, dtype: torch.dtype) -> Arguments:
    made = attention_arguments(g, dtype)
    out, lse = attention.forward(**made, scale=0.5)
    return {"grad": normal(g, 2, 3, 5, 4, dtype=dtype), **made, "out": out, "lse": lse}


def plain_choose(x: Tensor, kept: Tensor, other: Tensor) -> list[Tensor]:
    assert kept.dtype == torch.bool and kept.ndim in (1, 2) and kept.shape[-1] == x.shape[-1] == other.shape[-1]
    rows = x.reshape(-1, x.shape[-1])
    masks, others = kept.reshape(-1, x.shape[-1]), other.reshape(-1, x.shape[-1])
    assert len(rows) % len(masks) == 0 and len(rows) % len(others) == 0
    masks = masks.repeat_interleave(len(rows) // len(masks), 0)
    return [torch.where(masks, rows, others.repeat(len(rows) // len(others), 1)).view(x.shape)]


def plain_choose_backward(grad: Tensor, x: Tensor, kept: Tensor, other: Tensor) -> list[Tensor]:
    assert grad.shape == x.shape
    of_x = plain_choose(grad, kept, torch.zeros_like(other))[0]
    everything = torch.zeros(x.shape[-1], dtype=torch.bool)
    instead = plain_choose(x, everything, other)[0]
    products = grad.double() * (x.double() - instead.double())
    return [of_x, products.reshape(-1, x.shape[-1]).sum(0)]


def plain_named(x: Tensor, kept: Tensor, other: Tensor, entries: Tensor) -> list[Tensor]:
    assert x.ndim == other.ndim == 3 and other.shape[1] >= x.shape[1] and entries.shape == x.shape[:1]
    assert bool((entries >= 0).all()) and entries.dtype != torch.bool and not entries.is_floating_point()
    return plain_choose(x, kept, other[entries.long(), : x.shape[1]])


def choose_arguments(g: torch.Generator, dtype: torch.dtype) -> Arguments:
    kept = torch.rand(2, 17, generator=g) < 0.5
    return {"x": normal(g, 4, 3, 17, dtype=dtype), "kept": kept, "other": normal(g, 2, 3, 17, dtype=dtype)}


def plain_head(logits: Tensor, labels: Tensor, target: Tensor, ce: Tensor, kl: Tensor) -> list[Tensor]:
    assert logits.ndim == 3 and logits.shape[1:] == target.shape and ce.shape == kl.shape == logits.shape[:1]
    assert labels.shape == logits.shape[1:2] and labels.dtype != torch.bool and not labels.is_floating_point()
    x, labels = leaf(logits), labels.long()
    logp = x.log_softmax(-1)
    own = -logp.gather(-1, labels.clamp_min(0).expand(len(x), -1)[..., None])[..., 0] * (labels >= 0)
    other = (target.double().exp() * (target.double() - logp)).sum(-1)
    total = (own * ce.double()[:, None] + other * kl.double()[:, None]).sum()
    return [own.detach(), other.detach(), torch.autograd.grad(total, x)[0]]


def head_arguments(g: torch.Generator, _: torch.dtype) -> Arguments:
    return {
        "logits": normal(g, 2, 3, 19),
        "labels": torch.tensor([4, -1, 18]),
        "target": normal(g, 3, 19).log_softmax(-1),
        "ce": normal(g, 2).abs(),
        "kl": normal(g, 2).abs(),
    }


def run_norm_backward(grad: Tensor, x: Tensor, weight: Tensor, scale: Tensor) -> list[Tensor]:
    of_x, of_gain = norm.backward(grad, x, weight, scale, (True, True))
    assert of_x is not None and of_gain is not None
    return [of_x, of_gain]


def plain_norm(x: Tensor, weight: Tensor) -> list[Tensor]:
    return [F.rms_norm(x.double(), x.shape[-1:], weight.double(), 1e-5)]


def plain_norm_backward(grad: Tensor, x: Tensor, weight: Tensor, scale: Tensor) -> list[Tensor]:
    assert scale.shape == x.shape[:-1]
    leaves = [leaf(x), leaf(weight)]
    return gradients(plain_norm(*leaves)[0], leaves, grad)


def norm_arguments(g: torch.Generator, dtype: torch.dtype) -> Arguments:
    return {"x": normal(g, 2, 3, 18, dtype=dtype), "weight": normal(g, 18)}


def norm_backward_arguments(g: torch.Generator, dtype: torch.dtype) -> Arguments:
    made = norm_arguments(g, dtype)
    scale = torch.rsqrt(made["x"].float().square().mean(-1) + 1e-5)
    return {"grad": normal(g, 2, 3, 18, dtype=dtype), **made, "scale": scale}


def packed(weight: Tensor) -> sparse.Packed:
    return sparse.Packed(weight, sparse._count(weight), torch.float32)


def sparse_arguments(g: torch.Generator, dtype: torch.dtype) -> Arguments:
    weight = normal(g, 7, 18) * (torch.rand(7, 18, generator=g) < 0.3)
    return {"x": normal(g, 2, 5, 18, dtype=dtype), "weight": weight, "bias": normal(g, 7)}


def product_arguments(g: torch.Generator, dtype: torch.dtype) -> Arguments:
    return {"a": normal(g, 6, 4, dtype=dtype), "b": normal(g, 6, 3, dtype=dtype)}


def plain_gelu_backward(grad: Tensor, x: Tensor) -> list[Tensor]:
    x = leaf(x)
    return gradients(F.gelu(x), [x], grad)


KERNELS = {
    "abs_topk": Kernel(
        lambda x: list(abs_topk.forward(x, 3)), plain_topk, lambda g, d: {"x": normal(g, 6, 21, dtype=d)}
    ),
    "abs_topk backward": Kernel(
        lambda grad, mask: [abs_topk.backward(grad, mask)],
        plain_select,
        lambda g, d: {"grad": normal(g, 6, 21, dtype=d), "mask": torch.rand(6, 21, generator=g) < 0.3},
    ),
    "attention": Kernel(
        lambda q, k, v, sink: list(attention.forward(q, k, v, sink, 0.5)),
        lambda q, k, v, sink: list(plain_attention(*(x.double() for x in (q, k, v, sink)))),
        attention_arguments,
    ),
    "attention backward": Kernel(run_attention_backward, plain_attention_backward, attention_backward_arguments),
    "choose": Kernel(lambda **a: [choose.forward(**a)], plain_choose, choose_arguments),
    "choose by entries": Kernel(
        lambda **a: [choose.forward(**a)],
        plain_named,
        lambda g, d: choose_arguments(g, d) | {"entries": torch.tensor([1, 0, 1, 1])},
    ),
    "choose backward": Kernel(
        lambda grad, x, kept, other: [t for t in choose.backward(grad, x, kept, other, True) if t is not None],
        plain_choose_backward,
        lambda g, d: {"grad": normal(g, 4, 3, 17, dtype=d), **choose_arguments(g, d)},
    ),
    "gelu": Kernel(
        lambda x: [gelu.forward(x, "tanh")],
        lambda x: [F.gelu(x.double(), approximate="tanh")],
        lambda g, d: {"x": normal(g, 3, 7, 5, dtype=d)},
    ),
    "gelu backward": Kernel(
        lambda grad, x: [gelu.backward(grad, x, "none")],
        plain_gelu_backward,
        lambda g, d: {"grad": normal(g, 3, 7, dtype=d), "x": normal(g, 3, 7, dtype=d)},
    ),
    "head": Kernel(lambda **a: list(head.loss_and_gradient(**a)), plain_head, head_arguments, (torch.float32,)),
    "norm": Kernel(lambda x, weight: [norm.forward(x, weight, 1e-5, x.dtype)[0]], plain_norm, norm_arguments),
    "norm backward": Kernel(run_norm_backward, plain_norm_backward, norm_backward_arguments),
    "sparse product": Kernel(
        lambda x, weight, bias: [packed(weight).forward.product(x, bias)],
        lambda x, weight, bias: [F.linear(x.double(), weight.double(), bias.double())],
        sparse_arguments,
    ),
    "sparse back": Kernel(
        lambda grad, weight: [packed(weight).back(grad)],
        lambda grad, weight: [grad.double() @ weight.double()],
        lambda g, d: {"grad": normal(g, 2, 5, 7, dtype=d), "weight": sparse_arguments(g, d)["weight"]},
    ),
    "column sums": Kernel(
        lambda x: [sparse.column_sums(x)],
        lambda x: [x.double().reshape(math.prod(x.shape[:-1]), x.shape[-1]).sum(0)],
        lambda g, d: {"x": normal(g, 2, 5, 18, dtype=d)},
    ),
    "transpose": Kernel(
        lambda x: [transposed(x)],
        lambda x: [x.double().T] if x.ndim == 2 else [],
        lambda g, d: {"x": normal(g, 33, 35, dtype=d)},
        (HALF,),
    ),
}


def outcome(kernel: Kernel, arguments: Arguments) -> list[Tensor] | str:
    """What the kernel gives, or why it refuses; any other error is a failure."""
    try:
        return kernel.run(**arguments)
    except KernelArgumentError as error:
        return str(error)


def expected(kernel: Kernel, arguments: Arguments) -> list[Tensor] | None:
    """What should come out; None where the arguments have no meaning."""
    try:
        return kernel.plain(**arguments)
    except (AssertionError, RuntimeError, IndexError, ValueError, ZeroDivisionError):
        return None


def check(kernel: Kernel, arguments: Arguments, about: str, refusal: bool = True) -> None:
    got, wanted = outcome(kernel, arguments), expected(kernel, arguments)
    if isinstance(got, str):
        assert refusal and len(got) > 20, (about, got)
        return
    assert wanted is not None, f"{about}: computed, but it has no meaning"
    assert len(got) == len(wanted), about
    for a, b in zip(got, wanted, strict=True):
        assert a.shape == b.shape, about
        half = any(x.dtype in (HALF, torch.float16) for x in [a, *arguments.values()])
        size = 1 + b.double().abs().amax() if b.numel() else 1
        assert ((a.double() - b.double()).abs() <= (0.03 if half else 1e-5) * size).all(), about


def layouts(x: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The same numbers, otherwise in memory."""
    noise = torch.ones_like(x) if x.dtype == torch.bool else x + 1
    yield "every second number", torch.stack([x, noise], -1)[..., 0]
    if x.ndim > 1:
        yield "transposed", x.transpose(0, -1).contiguous().transpose(0, -1)
    if x.is_floating_point():
        yield "a negative view", torch._neg_view(-x)


def shapes(x: Tensor) -> Iterator[tuple[str, Tensor]]:
    yield "flat", x.flatten()
    yield "one dimension more", x.unsqueeze(0)
    yield "a number", x.flatten()[0]
    for dim in range(x.ndim):
        yield f"longer in {dim}", torch.cat([x, x.narrow(dim, 0, 1)], dim)
        yield f"shorter in {dim}", x.narrow(dim, 0, x.shape[dim] - 1)
        yield f"empty in {dim}", x.narrow(dim, 0, 0)


DTYPES = (torch.float64, torch.float32, torch.float16, HALF, torch.int64, torch.int32, torch.uint8, torch.bool)


@pytest.mark.parametrize("name", KERNELS)
def test_what_comes_out_is_right_or_refused(name):
    kernel, count = KERNELS[name], 0
    for dtype in kernel.dtypes:
        good = kernel.arguments(torch.Generator().manual_seed(7), dtype)
        check(kernel, good, f"{name} as it should be", refusal=False)
        for argument, x in good.items():
            about = f"{name}, {argument} of {dtype}"
            for other in DTYPES:
                if other != x.dtype:
                    check(kernel, good | {argument: x.to(other)}, f"{about} as {other}")
            for layout, same in layouts(x):
                # A weight that is packed must lie as it is: its versions are counted.
                packs = argument == "weight" and name.startswith("sparse")
                check(kernel, good | {argument: same}, f"{about}: {layout}", refusal=packs)
            for shape, wrong in shapes(x):
                check(kernel, good | {argument: wrong}, f"{about}: {shape}")
                count += 1
            for unreadable in (x.to("meta"), x.to_sparse()):
                assert isinstance(outcome(kernel, good | {argument: unreadable}), str), about
    assert count > 5


@pytest.mark.parametrize("k", [-1, 0, 22])
def test_abs_topk_keeps_a_number_that_there_is(k):
    with pytest.raises(KernelArgumentError, match=f"k={k} must be between 1 and 21"):
        abs_topk.forward(torch.zeros(6, 21), k)


@pytest.mark.parametrize("wrong", [[0, 19, 1], [2**40, 0, 0]])
def test_a_label_outside_the_vocabulary_is_refused(wrong):
    given = head_arguments(torch.Generator(), torch.float32) | {"labels": torch.tensor(wrong)}
    with pytest.raises(KernelArgumentError, match=r"labels holds .* 18 are valid"):
        head.loss_and_gradient(**given)


@pytest.mark.parametrize("wrong", [[0, 1, 2, 0], [0, -1, 0, 0]])
def test_an_entry_that_does_not_exist_is_refused(wrong):
    given = choose_arguments(torch.Generator(), torch.float32) | {"entries": torch.tensor(wrong)}
    with pytest.raises(KernelArgumentError, match=r"entries holds .* 0 … 1 are valid"):
        choose.forward(**given)


def test_the_kernel_for_gpus_takes_nothing_from_a_cpu():
    with pytest.raises(KernelArgumentError, match="on cpu"):
        gpu_topk.forward(torch.zeros(3, 4), 2)


def test_no_unchecked_tensor_reaches_a_kernel():
    with pytest.raises(KernelArgumentError, match="operand"):
        call("gelu_none_f32", torch.zeros(3), torch.zeros(3), 3)  # type: ignore[arg-type]
