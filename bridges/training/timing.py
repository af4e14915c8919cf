"""How long a training will take, found out by trial steps before it begins."""

from __future__ import annotations

import copy
import math
import time
from itertools import pairwise

import torch

from bridges.bridge import fit_ridge
from bridges.training.loop import Trainer
from bridges.training.plan import available_memory
from bridges.training.precision import autocast
from bridges.training.rates import optimizer_for
from bridges.training.refit import stream_pairs

# Training is timed at one step for so many, at most at so many before the first crossing and behind it, each chosen
# out of so many; a fit of the bridges on one of so many parts of its text.
_STEPS_PER_TRIAL, _TRIALS, _CANDIDATES, _PART = 50, 3, 32, 8


def _work(trainer: Trainer, step: int) -> float:
    """What a step takes, in arbitrary units: the tokens of its rows times the layers that its crossings pass."""
    data, train = trainer.data, trainer.config.train
    length = data.context
    if data.lengths is not None:
        length = data.lengths["train"][data.rows(step, train.batch, trainer.config.seed)].max()
    sparse = sum(p.numel() for p in trainer.sparse.parameters())
    dense = sum(p.numel() for p in trainer.dense.parameters())  # type: ignore[attr-defined]
    pairs = trainer.bridges.pairs
    d2s, s2d = trainer.sampler(step)
    behind = sum(1 - pairs[b].sparse / trainer.sparse.n_sublayers for b in d2s.bridges)
    # Frozen weights have no gradient of their own: two passes' worth instead of three.
    crossed = sum(1 - pairs[b].dense / trainer.dense.n_sublayers for b in s2d.bridges)
    return float(length) * (3 * sparse * (1 + behind) + dense * (1 + 2 * crossed))


def _typical(trainer: Trainer, first: int, last: int) -> int:
    """Of the steps in ``[first, last)`` one that takes what they take on average."""
    steps = range(first, last, max(1, (last - first) // _CANDIDATES))
    work = [_work(trainer, step) for step in steps]
    mean = sum(work) / len(work)
    return min(zip(work, steps, strict=True), key=lambda found: abs(found[0] - mean))[1]


def _refit_seconds(trainer: Trainer) -> float:
    """Seconds of one regression of the bridges, from one on a part of its text and into a copy."""
    config, data = trainer.config, trainer.data
    rows, device = config.train.batch, trainer.accelerator.device
    chunks = data.chunk_rows("train", max(1, round(config.eval.ridge_tokens / data.mean_length)), rows)
    started = time.perf_counter()
    streams = stream_pairs(
        trainer.dense,
        trainer.sparse.run,
        data,
        config.eval.ridge_tokens,
        rows,
        device,
        lambda: autocast(trainer.precision, device),
        trainer.stored,
        every=_PART,
    )
    fit_ridge(copy.deepcopy(trainer.bridges), streams, config.bridge.ridge)
    return (time.perf_counter() - started) * len(chunks) / len(chunks[::_PART])


def time_step(trainer: Trainer) -> float:
    """Seconds of one training step, on average over the steps that are left; weights and optimizer stay as they are.

    Trial steps stand for parts of the training, each in the middle of what its part takes: before the first crossing
    and after it, with rows of the usual length, and with as few weights as are left by then. To them come the step of
    the optimizer, the projection, and the fits of the bridges. Not counted: checkpoints, and on several processes
    anything but the passes.
    """
    done, steps = trainer.progress.step, trainer.steps
    first = min(max(trainer.sampler.first, done), steps)
    matrices = list(trainer.projector.matrices.values())
    # A second optimizer and a copy of the weights, where there is room for them; else passes alone are timed. Of
    # several processes each would find other room, and wait for the rest.
    room = sum(8 * p.numel() for p in trainer.parameters) + sum(4 * p.numel() for p in matrices)
    alone = trainer.accelerator.num_processes == 1
    whole = alone and room <= available_memory(trainer.accelerator.device) / 4
    kept = [p.detach().clone() for p in matrices] if whole else []
    total = 0.0
    try:
        for begin, end in ((done, first), (first, steps)):
            count = min(_TRIALS, math.ceil((end - begin) / _STEPS_PER_TRIAL))
            edges = [begin + (end - begin) * i // max(1, count) for i in range(count + 1)]
            for i, (a, b) in enumerate(pairwise(edges)):
                step = _typical(trainer, a, b)
                trainer.anneal_to(step)
                if whole and not trainer.config.train.freeze_sparse:
                    trainer.projector.project(trainer.schedule.fraction(step))
                # The first pass with and without crossings compiles and allocates.
                for _ in range(2 if i == 0 else 1):
                    trainer.optimizer.zero_grad()
                    started = time.perf_counter()
                    trainer.gradients(step)
                    if whole and not trainer.config.train.freeze_sparse:
                        trainer.projector.project(trainer.schedule.fraction(step))
                    elapsed = time.perf_counter() - started
                total += elapsed * (b - a)
        if whole:
            total += _update_seconds(trainer) * (steps - done)
        if alone and (refits := sum(step >= done for step in trainer.refits)):
            total += _refit_seconds(trainer) * refits
    finally:
        trainer.optimizer.zero_grad()
        with torch.no_grad():
            for p, value in zip(matrices, kept, strict=False):
                p.copy_(value)
    return total / (steps - done)


def _update_seconds(trainer: Trainer) -> float:
    """Seconds of one step of an optimizer like the trainer's, at rate 0, with the gradients that are there."""
    optimizer = optimizer_for(trainer.config.train, trainer.sparse, trainer.bridges)
    for _ in range(2):
        started = time.perf_counter()
        trainer.rescale_gradients()
        optimizer.step(0.0)
        elapsed = time.perf_counter() - started
    return elapsed
