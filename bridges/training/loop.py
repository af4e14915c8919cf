"""The training loop: sparse model and bridges together, beside a frozen dense model."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accelerate import Accelerator
from torch import Tensor

from bridges.bridge import Bridges, fit_ridge
from bridges.config import Config
from bridges.data.blocks import TokenBlocks
from bridges.errors import ConfigError
from bridges.shards import load_whole_state, local, norm, whole_state
from bridges.sparse import Projector, Schedule, SparseTransformer
from bridges.stack import ResidualStack, Streams
from bridges.training.checkpoint import Progress, check_finite, load_checkpoint, save_checkpoint
from bridges.training.crossings import DIRECTIONS, Crossings, Sampler
from bridges.training.moments import Moments
from bridges.training.parallel import Engine, Step, engine_for, strategy
from bridges.training.precision import autocast, resolve_precision
from bridges.training.rates import optimizer_for
from bridges.training.readings import TrainingBar
from bridges.training.refit import refit_steps, stream_pairs
from bridges.training.stored import StoredStreams, stored_bytes
from bridges.training.terms import Objective

log = logging.getLogger(__name__)

LogRow = Callable[[dict[str, Any], int], None]


class Trainer:
    """Trains one run.

    Args:
        config: the run's settings.
        dense: the frozen dense stack. sparse, bridges: what is trained, in fp32, on the accelerator's device.
        data: blocks of tokens.
        accelerator: device and processes.
        checkpoints: folder of the checkpoints.
        log_row: called with each row of the training table and its step.
        start: fraction of weights that are not zero at the start.
        anneal_activation: let AbsTopK and the encoders keep everything at first, and anneal them with the weights; the
            bigram table comes in as the weights go.
        rate: factor on every learning rate.
        keep_bridges: the bridges come trained: they are never fitted anew, whatever ``bridge.refit`` says.
    """

    def __init__(
        self,
        config: Config,
        dense: ResidualStack,
        sparse: SparseTransformer,
        bridges: Bridges,
        data: TokenBlocks,
        accelerator: Accelerator,
        checkpoints: Path,
        log_row: LogRow = lambda row, step: None,
        start: float = 1.0,
        anneal_activation: bool = False,
        rate: float = 1.0,
        keep_bridges: bool = False,
    ):
        train = config.train
        self.config, self.data, self.accelerator = config, data, accelerator
        self.dense, self.sparse, self.bridges = dense, sparse, bridges
        self.checkpoints, self.log_row = checkpoints, log_row
        strategy(accelerator, train)
        share = accelerator.num_processes * train.accumulate
        if train.batch % share:
            raise ConfigError(
                f"train.batch={train.batch} must be a multiple of processes × train.accumulate = "
                f"{accelerator.num_processes} × {train.accumulate}."
            )
        self.precision = resolve_precision(train.precision, accelerator.device)
        self.steps = max(1, math.ceil(train.tokens / (train.batch * data.mean_length)))
        self.schedule = Schedule(
            self.steps,
            config.sparsity,
            start=start,
            warmup=train.warmup,
            anneal=train.anneal,
            shape=train.anneal_shape,
            sharkfin=train.sharkfin,
        )
        self.projector = Projector(sparse.sparse_matrices(), config.sparse.floor)
        if train.freeze_sparse:
            sparse.requires_grad_(False)
        elif sparse.bigram is not None:
            sparse.bigram.requires_grad_(config.sparse.train_bigram)
        self.anneal_activation, self.rate = anneal_activation, rate
        self.optimizer = optimizer_for(train, sparse, bridges)
        self.objective = Objective(
            dense,
            sparse,
            bridges,
            train.terms.coefficients(),
            config.bridge.detach_encoder_target,
            self._shared_moments,
            train.terms.answer,
        )
        self._engine: Engine | None = None
        wanted = len(bridges) if train.hybrid_sites == "all" else int(train.hybrid_sites)
        first = round(self.steps * train.hybrid_from)
        self.sampler = Sampler(len(bridges), wanted, config.seed, train.hybrid_sampling == "importance", first)
        # A checkpoint keeps the progress, and with it what the sampler has seen.
        self.progress = Progress(0, 0.0, [], [], self.sampler.means)
        self.sizes = torch.ones(len(bridges))
        self.crossed: dict[str, tuple[Crossings, Tensor]] = {}
        self.stored: StoredStreams | None = None
        self.refits = refit_steps(self.steps, 0 if keep_bridges else config.bridge.refit)

    def _tokens(self, steps: int) -> int:
        """Tokens of so many steps, rows of different lengths counted as the mean one."""
        return round(steps * self.config.train.batch * self.data.mean_length)

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        return [p for module in (self.sparse, self.bridges) for p in module.parameters() if p.requires_grad]

    @property
    def engine(self) -> Engine:
        """What runs the step on all processes; made when first asked for, around the weights as they are then."""
        if self._engine is None:
            # Annealing begins without the bigram table.
            unused = self.anneal_activation or not self.objective.reaches_every_bridge
            self._engine = engine_for(self.accelerator, Step(self.objective), unused)
            if self._engine.sharded:
                # Sharding puts other parameters in the place of those that were there.
                self.optimizer = optimizer_for(self.config.train, self.sparse, self.bridges)
                self.projector = Projector(self.sparse.sparse_matrices(), self.config.sparse.floor)
        return self._engine

    def _shared_moments(self, h: Tensor) -> Moments:
        mine = Moments.of(h)
        if self.accelerator.num_processes == 1:
            return mine
        packed = self.accelerator.reduce(torch.cat([mine.mean, mine.square.view(1)]), reduction="mean")
        return Moments(packed[:-1], packed[-1])  # type: ignore[index]

    def micro_batches(self, step: int) -> list[Tensor]:
        """This process's share of the step's batch, split for accumulation: ids ``[b, T]`` each."""
        train, accelerator = self.config.train, self.accelerator
        ids = self.data.batch(step, train.batch, self.config.seed)
        mine = ids.chunk(accelerator.num_processes)[accelerator.process_index].to(accelerator.device)
        return list(mine.chunk(train.accumulate))

    def _stored(self, step: int, length: int) -> Streams | None:
        """The dense streams of this process's share of a step, where they are kept."""
        if self.stored is None:
            return None
        rows = torch.from_numpy(self.data.rows(step, self.config.train.batch, self.config.seed))
        mine = rows.chunk(self.accelerator.num_processes)[self.accelerator.process_index]
        return self.stored(mine.numpy(), length)

    def store(self) -> bool:
        """Compute the dense streams of the text once, where that is worth it and fits into memory.

        Returns:
            whether they are kept.
        """
        device = self.accelerator.device
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        sites = [pair.dense for pair in self.bridges.pairs]
        width = self.dense.d_model
        if not stored_bytes(self.config, self.data, self.steps, len(sites), width, self.precision):
            return False
        self.stored = StoredStreams(
            self.dense, self.data, sites, dtype, device, lambda: autocast(self.precision, device)
        )
        return True

    def gradients(self, step: int) -> dict[str, Tensor]:
        """Forward and backward of one step; gradients stay on the parameters.

        Returns:
            ``total`` and each term, raw and ``_weighted``, averaged over the global batch.
        """
        accumulate = self.config.train.accumulate
        d2s, s2d = self.sampler(step)
        sums: dict[str, Tensor] = {}
        crossed: dict[str, Tensor] = {}
        sizes = torch.zeros(len(self.bridges), device=self.accelerator.device)
        batches = self.micro_batches(step)
        answered = self.data.answers(step, self.config.train.batch, self.config.seed)
        moments = None
        if accumulate > 1 and self.objective.normalises:
            with autocast(self.precision, self.accelerator.device):
                moments = self.engine.step.moments(batches)
        for part, ids in enumerate(batches, 1):
            with self.engine.part(last=part == accumulate):
                with autocast(self.precision, self.accelerator.device):
                    total, losses = self.engine(ids, d2s, s2d, moments, answered, self._stored(step, ids.shape[1]))
                # The tensor that is logged as `total` is the one that is back-propagated.
                (total / accumulate).backward()
            named = {"total": total.detach(), **losses.values}
            named |= {f"{term}_weighted": value for term, value in losses.weighted.items()}
            assert losses.sizes is not None
            sizes = sizes + losses.sizes / accumulate
            for direction, value in losses.crossed.items():
                crossed[direction] = crossed.get(direction, 0) + value / accumulate
            for name, value in named.items():
                sums[name] = sums.get(name, 0) + value / accumulate
        if self.accelerator.num_processes > 1:
            flat = self.accelerator.reduce(torch.stack(list(sums.values())), reduction="mean")
            sums = dict(zip(sums, flat.unbind(), strict=True))
            sizes = self.accelerator.reduce(sizes, reduction="mean")  # type: ignore[assignment]
            crossed = {d: self.accelerator.reduce(v, reduction="mean") for d, v in crossed.items()}  # type: ignore[misc]
        self.sizes = sizes
        self.crossed = {d: (c, crossed[d]) for d, c in zip(DIRECTIONS, (d2s, s2d), strict=True) if d in crossed}
        return sums

    def refit(self) -> None:
        """Fit the bridges anew by ridge regression between the streams as they are now; their momentum is forgotten."""
        streams = stream_pairs(
            self.dense,
            self.engine.step.streams,
            self.data,
            self.config.eval.ridge_tokens,
            self.config.train.batch,
            self.accelerator.device,
            lambda: autocast(self.precision, self.accelerator.device),
            self.stored,
        )
        bridges = self.bridges.like() if self.engine.sharded else self.bridges
        fit_ridge(bridges, streams, self.config.bridge.ridge)
        if self.engine.sharded:
            # Weights that the passes gathered are let go, or the next pass would read those.
            self.engine.changed()
            load_whole_state(self.bridges, bridges.state_dict())
        self.optimizer.forget(self.bridges.parameters())

    def rescale_gradients(self) -> float:
        """Clip or normalise the RMS over all gradients; returns what it was."""
        grads = [p.grad for p in self.parameters if p.grad is not None]
        rms = float(norm(grads)) / math.sqrt(sum(g.numel() for g in grads))
        limit = self.config.train.max_grad_rms
        if math.isfinite(rms) and rms > 0 and (self.config.train.gradient_rms == "normalise" or rms > limit):
            torch._foreach_mul_([local(g) for g in grads], limit / rms)
        return rms

    def step(self) -> dict[str, Any]:
        """One optimizer step; returns its row of the training table."""
        step, train = self.progress.step, self.config.train
        self.anneal_to(step)
        if step in self.refits:
            self.refit()
        values = {name: float(value) for name, value in self.gradients(step).items()}
        grad_rms = self.rescale_gradients()
        check_finite(values, self.objective.coefficients, grad_rms, step, self.steps, self.checkpoints)
        self.optimizer.step(self.rate * self.schedule.lr_factor(step), self.schedule.boost(step))
        self.optimizer.zero_grad()
        self.bridges.follow(self.sizes)
        if self.sampler.importance:
            self.sampler.see({d: (c, values.tolist()) for d, (c, values) in self.crossed.items()})
        fraction = self.schedule.fraction(step)
        if not train.freeze_sparse:
            self.projector.project(fraction)
        self.engine.changed()
        self.progress.step += 1
        if self.progress.step % train.log_every and self.progress.step != self.steps:
            return values
        nonzeros = sum(self.projector.nonzeros().values())
        numel = sum(p.numel() for p in self.projector.matrices.values())
        row = {"step": self.progress.step, "tokens": self._tokens(self.progress.step), **values}
        row |= {
            "lr": self.rate * train.lr * self.schedule.lr_factor(step),
            "l0_target": fraction,
            "l0_actual": nonzeros / numel,
            "grad_rms": grad_rms,
            "dead_neurons": self.projector.dead_neurons(),
        }
        self.progress.training.append(row)
        return row

    def anneal_to(self, step: int) -> None:
        """Let AbsTopK, the encoders and the bigram table count as they do at a step, where they are annealed."""
        if not self.anneal_activation:
            return
        progress = self.schedule.progress(step)

        def now(final: float | None) -> float:
            return 1.0 + ((1.0 if final is None else final) - 1.0) * progress

        self.sparse.activation_fraction = now(self.sparse.config.activation_fraction)
        self.sparse.bigram_share = progress
        self.bridges.keep(now(self.bridges.config.activation_fraction))

    def restore(self) -> bool:
        """Go on from the newest checkpoint, if there is one."""
        if self.checkpoints.exists() and any(self.checkpoints.glob("step-*")) and strategy(self.accelerator) == "fsdp2":
            # No process loads whole moments.
            _ = self.engine
        found = load_checkpoint(self.checkpoints, self.sparse, self.bridges, self.optimizer)
        if found is not None:
            self.progress = found
            found.crossing_means = self.sampler.means = found.crossing_means or self.sampler.means
        return found is not None

    def whole(self) -> tuple[SparseTransformer, Bridges]:
        """Sparse model and bridges as ordinary modules; where they are sharded, the main process gets copies of them,
        the others what they have, and all of them must call this."""
        if not self.engine.sharded:
            return self.sparse, self.bridges
        main = self.accelerator.is_main_process
        weights, translation = (whole_state(module, keep=main) for module in (self.sparse, self.bridges))
        if not main:
            return self.sparse, self.bridges
        with torch.random.fork_rng(devices=[]):
            sparse, bridges = SparseTransformer(self.sparse.config), self.bridges.like()
        sparse.load_state_dict(weights)
        bridges.load_state_dict(translation)
        return sparse.to(self.accelerator.device), bridges

    def fit(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Train to the end; returns the training and timing tables."""
        train, main = self.config.train, self.accelerator.is_main_process
        for module in (self.sparse, self.bridges):
            module.train()
        before, started = self.progress.seconds, time.monotonic()
        # Closed also where a step fails, so that the message stands alone.
        with TrainingBar(self.steps, self.progress.step, len(self.bridges), self._tokens(1), shown=main) as bar:
            while self.progress.step < self.steps:
                values = self.step()
                self.progress.seconds = before + time.monotonic() - started
                done = self.progress.step
                bar.add(values)
                if "l0_actual" in values:
                    self._log(values)
                    bar.describe()
                last = done % train.checkpoint_every == 0 or done == self.steps
                if last and (main or self.engine.sharded):
                    save_checkpoint(
                        self.checkpoints,
                        self.sparse,
                        self.bridges,
                        self.optimizer,
                        self.progress,
                        train.keep_checkpoints,
                        write=main,
                    )
                bar.update()
        return pd.DataFrame(self.progress.training), pd.DataFrame(self.progress.timing)

    def _log(self, row: dict[str, Any]) -> None:
        previous = self.progress.timing[-1] if self.progress.timing else {"step": 0, "seconds": 0.0}
        tokens = self._tokens(row["step"] - previous["step"])
        spent = max(self.progress.seconds - previous["seconds"], 1e-9)
        timing = {"step": row["step"], "seconds": self.progress.seconds, "tokens_per_second": tokens / spent}
        self.progress.timing.append(timing)
        if self.accelerator.is_main_process:
            self.log_row({**row, **timing}, row["step"])
