"""``python -m bridges bench``: how fast a training step of the full objective is, and whether it is the same step.

Two implementations of one objective on one batch and one set of weights: Bridges', with every hybrid in one stacked
pass, and a plain one of the kind published code uses (one hybrid after the other, ``topk`` and ``scatter``, attention
probabilities written out, fp32). Their losses are compared, their times quoted as a ratio, and the time of Bridges'
step as a share of the machine's measured matmul rate. ``--peer`` times a published model itself beside ours.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest import mock

import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bridges.bridge import Bridges, pair_sites
from bridges.cli.peer import import_peer, peer_rows, peer_text
from bridges.cli.scaling import report, scaling_table
from bridges.config import Config, TrainConfig
from bridges.errors import BridgesError
from bridges.hybrid import Path as MixedPath
from bridges.hybrid import path_logits
from bridges.losses import kl_from_reference, nmse
from bridges.runs.initialise import FULL_BIGRAM_LIMIT
from bridges.sparse import Projector, SparseTransformer, SparseTransformerConfig
from bridges.training.moments import Moments
from bridges.training.plan import GIB, estimate
from bridges.training.precision import autocast, resolve_precision
from bridges.training.terms import TERMS, Objective


def _plain_topk(x: Tensor, k: int) -> Tensor:
    index = x.abs().topk(min(k, x.shape[-1]), dim=-1).indices
    return torch.zeros_like(x).scatter(-1, index, x.gather(-1, index))


def _plain_attention(q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None) -> Tensor:
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    future = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool, device=q.device).triu(1)
    scores = scores.masked_fill(future, -math.inf)
    if sink is None:
        return scores.softmax(-1) @ v
    column = sink.view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
    return torch.cat([scores, column], -1).softmax(-1)[..., :-1] @ v


@contextmanager
def plain_operations() -> Iterator[None]:
    """The sparse model with textbook operations in place of `bridges.sparse.ops`."""
    with (
        # Linear maps, norms and activations are then PyTorch's own.
        mock.patch("bridges.kernels._chosen", "python"),
        mock.patch("bridges.sparse.model.abs_topk", _plain_topk),
        mock.patch("bridges.bridge.abs_topk", _plain_topk),
        mock.patch("bridges.sparse.model.sink_attention", _plain_attention),
    ):
        yield


def plain_objective(dense, sparse, bridges: Bridges, ids: Tensor) -> Tensor:
    """The full objective term by term, one hybrid at a time: the reference for value and speed."""
    with torch.no_grad():
        reference = dense.logits(ids).log_softmax(-1)
        h_dense = dense.run(ids).sites
    run = sparse.run(ids)
    logits = sparse.unembed(run.final[0], ids)
    total = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    total = total + kl_from_reference(reference, logits.log_softmax(-1)).mean()
    for i, pair in enumerate(bridges.pairs):
        x, y = h_dense[pair.dense], run.sites[pair.sparse]
        total = total + nmse(bridges[i].encode(x), y.detach(), Moments.of(y).mean)
        total = total + nmse(bridges[i].decode(y), x, Moments.of(x).mean)
        for first in "DS":
            mixed = path_logits(MixedPath(first, (i,)), dense, sparse, bridges, ids)
            total = total + kl_from_reference(reference, mixed.log_softmax(-1)).mean()
    return total


def matmul_rate(dtype: torch.dtype, device: torch.device, seconds: float = 1.0) -> float:
    """Measured floating point operations per second of a square matmul."""
    n = 2048
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    a @ b
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        count += 1
    return 2 * n**3 * count / (time.perf_counter() - started)


def step_flops(sparse: SparseTransformerConfig, dense: SparseTransformerConfig, tokens: int, crossings: int) -> float:
    """Floating point operations of the matrix products of one step, forward and backward."""

    def layer(c: SparseTransformerConfig) -> float:
        return 4 * c.d_model * c.n_head * c.d_head + 2 * c.d_model * c.d_mlp

    passes = 1 + crossings / 2
    head = sparse.d_model * sparse.vocab_size * (1 + crossings) * 6
    dense_head = dense.d_model * dense.vocab_size * (crossings * 4 + 2)
    bridges = dense.d_model * sparse.d_model * crossings * 6 * 2
    sparse_work = 6 * sparse.n_layer * layer(sparse) * passes
    # The frozen stack needs no weight gradient.
    dense_work = dense.n_layer * layer(dense) * (2 + 4 * crossings / 2)
    return tokens * (sparse_work + head + dense_work + dense_head + bridges)


def peak_memory(device: torch.device) -> int:
    """The most bytes this process has held so far, on the GPU where it computes on one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def held_memory(device: torch.device) -> int:
    """The bytes that this process holds now, on the GPU where it computes on one."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else psutil.Process().memory_info().rss


def _timed(function: Callable[[], Tensor], repeats: int) -> tuple[float, float]:
    """Best of ``repeats`` wall times, and the value."""
    best = math.inf
    for _ in range(repeats):
        started = time.perf_counter()
        value = float(function())
        best = min(best, time.perf_counter() - started)
    return best, value


def _scaling(args: argparse.Namespace) -> int:
    table = scaling_table(["--precision", args.precision, "--repeats", str(args.repeats)])
    print(report(table))
    if args.out:
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(args.out, index=False)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bridges bench", description=__doc__)
    parser.add_argument("--d-sparse", type=int, default=1024)
    parser.add_argument("--d-dense", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--vocab", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--sparsity", type=float, default=0.01)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    parser.add_argument("--skip-plain", action="store_true", help="only Bridges' own step")
    parser.add_argument(
        "--peer",
        metavar="FOLDER",
        help="a checkout of github.com/openai/circuit_sparsity, whose sparse model is timed beside ours",
    )
    parser.add_argument("--scaling", action="store_true", help="a table over sizes instead, one varied at a time")
    parser.add_argument("--out", metavar="FILE.csv", help="where the table of --scaling is written as well")
    args = parser.parse_args()
    if args.out and not args.scaling:
        parser.error("--out goes with --scaling")
    if args.peer and args.scaling:
        parser.error("--peer does not go with --scaling")
    try:
        return _scaling(args) if args.scaling else _bench(args)
    except BridgesError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _bench(args: argparse.Namespace) -> int:
    # A folder that is none must not wait until minutes have been measured.
    peer = import_peer(args.peer) if args.peer else None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = resolve_precision(args.precision, device)
    before = held_memory(device)
    torch.manual_seed(0)
    shape = {"vocab_size": args.vocab, "n_layer": args.layers, "context": args.context}
    dense_config = SparseTransformerConfig(
        d_model=args.d_dense, activation_fraction=None, attention_sink=False, position="learned", bigram="none", **shape
    )
    # As a run has it: a table for every pair of tokens where there is room for one, and frozen.
    settings = Config(train=TrainConfig(batch=args.batch, tokens=args.batch * args.context), sparsity=args.sparsity)
    table = "full" if args.vocab <= FULL_BIGRAM_LIMIT else "low_rank"
    sparse_config = SparseTransformerConfig(
        d_model=args.d_sparse, bigram=table, bigram_rank=settings.sparse.bigram_rank, **shape
    )
    dense = SparseTransformer(dense_config).eval().requires_grad_(False)
    sparse = SparseTransformer(sparse_config)
    for model in (dense, sparse):
        nn.Module.to(model, device)
    bridges = Bridges(args.d_dense, args.d_sparse, pair_sites(dense.n_sublayers, sparse.n_sublayers), 0.25).to(device)
    Projector(sparse.sparse_matrices()).project(args.sparsity)
    assert sparse.bigram is not None
    sparse.bigram.requires_grad_(settings.sparse.train_bigram)
    plan = estimate(settings, dense, sparse_config, len(bridges), args.context, precision, 1, device)
    ids = torch.randint(0, args.vocab, (args.batch, args.context), device=device)
    objective = Objective(dense, sparse, bridges, dict.fromkeys(TERMS, 1.0))
    tokens, every = ids.numel(), list(range(len(bridges)))
    trained = [p for m in (sparse, bridges) for p in m.parameters() if p.requires_grad]

    def own(d2s: list[int], s2d: list[int]) -> Tensor:
        with autocast(precision, device):
            total = objective(ids, d2s, s2d).total
        total.backward()
        for p in trained:
            p.grad = None
        return total.detach()

    def plain() -> Tensor:
        with plain_operations():
            total = plain_objective(dense, sparse, bridges, ids)
            total.backward()
        for p in trained:
            p.grad = None
        return total.detach()

    rate = matmul_rate(torch.bfloat16 if precision == "bf16" else torch.float32, device)
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"{device.type}, {machine}, {precision}; matmul {rate / 1e9:,.0f} GFLOP/s")
    rows: dict[str, dict[str, float]] = {}
    for name, sites in (("bridges, all sites", every), ("bridges, 1 sampled site", [len(bridges) // 2])):
        seconds, value = _timed(partial(own, sites, sites), args.repeats)
        flops = step_flops(sparse_config, dense_config, tokens, len(sites))
        rows[name] = {
            "s/step": seconds,
            "tokens/s": tokens / seconds,
            "share of matmul peak": flops / seconds / rate,
            "loss": value,
        }
        if len(sites) == len(bridges):
            rows[name]["peak GiB"] = peak_memory(device) / GIB
            # There is no optimizer here, with two moments of all that is trained.
            rows[name]["GiB of the step"] = (peak_memory(device) - before) / GIB
            rows[name]["GiB estimated"] = (plan.memory - 8 * sum(p.numel() for p in trained)) / GIB
    if not args.skip_plain:
        seconds, value = _timed(plain, 1)
        rows["plain, fp32, all sites"] = {"s/step": seconds, "tokens/s": tokens / seconds, "loss": value}
        ours = rows["bridges, all sites"]
        difference = abs(value - ours["loss"])
        print(f"times faster than plain: {seconds / ours['s/step']:.2f}")
        print(f"loss difference: {difference:.2e} ({difference / abs(value):.1e} of it)")
    if peer is not None:
        # Last: the peak of memory is the process's.
        found = peer_rows(peer, sparse, ids, precision, args.repeats)
        print(peer_text(found))
        rows |= found
    for name, row in rows.items():
        print(f"{name:<26}" + "  ".join(f"{k} {v:.4g}" for k, v in row.items()))
    print(json.dumps(rows))
    return 0
