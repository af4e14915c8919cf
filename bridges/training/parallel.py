"""A training step on several processes: the module that an engine wraps, and the engines.

Accelerate says how many processes there are and which engine was asked for; PyTorch's engine does the work. Sparse
model and bridges are called by parts, so what is wrapped is one module whose forward is a whole objective.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, fully_shard, register_fsdp_forward_method
from torch.nn.parallel import DistributedDataParallel

from bridges.config import TrainConfig
from bridges.errors import ConfigError
from bridges.shards import is_sharded
from bridges.stack import Streams
from bridges.training.terms import Losses, Objective, StreamMoments

# Engines of Accelerate that train whole copies of the model, one a process.
_COPIES = (
    DistributedType.NO,
    DistributedType.MULTI_CPU,
    DistributedType.MULTI_GPU,
    DistributedType.MULTI_XPU,
)


def _fsdp(accelerator: Accelerator) -> FullyShardedDataParallelPlugin | None:
    """Accelerate's settings of FSDP, where that was asked for; on CPUs it knows them and calls itself MULTI_CPU."""
    asked = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if accelerator.distributed_type == DistributedType.FSDP or asked:
        return getattr(accelerator.state, "fsdp_plugin", None) or FullyShardedDataParallelPlugin()
    return None


def strategy(accelerator: Accelerator, config: TrainConfig | None = None) -> str:
    """How training is spread: ``one`` process, or ``ddp`` or ``fsdp2`` over several.

    Args:
        config: settings to hold against it.

    Raises:
        ConfigError: Accelerate was told to use an engine that Bridges does not train on, or one that these settings do
            not go with.
    """
    if accelerator.num_processes == 1:
        return "one"
    fsdp = _fsdp(accelerator)
    if fsdp is None and accelerator.distributed_type in _COPIES:
        return "ddp"
    if fsdp is None or fsdp.fsdp_version != 2:
        engine = "FSDP 1" if fsdp else accelerator.distributed_type.value
        raise ConfigError(
            f"Accelerate was launched with {engine}, which Bridges does not train on. Launch with `accelerate launch "
            "--multi_gpu` (DDP) or `accelerate launch --use_fsdp --fsdp_version 2`."
        )
    if isinstance(fsdp.cpu_offload, CPUOffloadPolicy):
        raise ConfigError("Bridges trains on shards that stay on the device: launch with --fsdp_offload_params false.")
    if config is not None and config.optimizer == "muon":
        raise ConfigError(
            "train.optimizer=muon steps whole matrices, which FSDP splits. Use train.optimizer=adamw, or launch with "
            "`accelerate launch --multi_gpu` (DDP)."
        )
    return "fsdp2"


class Step(nn.Module):
    """The objective as one module that owns what is trained, so that an engine sees a step as one forward.

    The frozen dense stack is no part of it: it has no gradients, and every process keeps it whole.

    Args:
        objective: whose sparse model and bridges are trained.
    """

    def __init__(self, objective: Objective):
        super().__init__()
        self.sparse, self.bridges = cast(nn.Module, objective.sparse), objective.bridges
        self.objective = objective

    def forward(self, *arguments: Any) -> tuple[Tensor, Losses]:
        """What `Objective` computes: the tensor to call ``backward`` on, and all losses."""
        losses = self.objective(*arguments)
        return losses.total, losses

    @torch.no_grad()
    def moments(self, batches: Sequence[Tensor]) -> StreamMoments:
        """See `Objective.moments`."""
        return self.objective.moments(batches)

    @torch.no_grad()
    def streams(self, ids: Tensor) -> Streams:
        """The sparse model's plain pass."""
        return self.objective.sparse.run(ids)


class Engine:
    """One process: a step's module as it is.

    Args:
        step: the module.

    Attributes:
        step: the module. module: what is called, the engine's own around it.
    """

    sharded = False

    def __init__(self, step: Step):
        self.step = step
        self.module: nn.Module = step

    def __call__(self, *arguments: Any) -> tuple[Tensor, Losses]:
        return self.module(*arguments)

    def part(self, last: bool) -> AbstractContextManager:
        """Around forward and backward of one of the parts that a step's batch is split into."""
        return nullcontext()

    def changed(self) -> None:
        """To be told that weights were stepped, or are about to be written."""


class CopiesEngine(Engine):
    """Several processes with a copy each; gradients are averaged in buckets while backward goes on (PyTorch's DDP).

    Args:
        unused: whether a step may leave a parameter without a gradient, which then has to be looked for.
    """

    def __init__(self, step: Step, unused: bool):
        super().__init__(step)
        with warnings.catch_warnings():
            # PyTorch 2.13 has a new name for `broadcast_buffers`, which 2.8 does not know.
            warnings.simplefilter("ignore", FutureWarning)
            # A parameter that no process used keeps no gradient, as on one process: no weight decay reaches it.
            self.module = DistributedDataParallel(
                step, find_unused_parameters=unused, broadcast_buffers=False, gradient_as_bucket_view=True
            )

    def part(self, last: bool) -> AbstractContextManager:
        return nullcontext() if last else cast(DistributedDataParallel, self.module).no_sync()


class ShardsEngine(Engine):
    """Several processes that hold some rows each of every parameter, gradient and moment (PyTorch's FSDP2).

    Weights of a block are whole while it computes, those of bridges, embedding and unembedding while a step does.
    Every part of a step's batch is reduced at once, so that no process ever keeps a whole gradient between two parts.

    Args:
        whole_after_forward: keep the blocks' weights whole between forward and backward.
    """

    sharded = True

    def __init__(self, step: Step, accelerator: Accelerator, whole_after_forward: bool):
        super().__init__(step)
        mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
        # An encoder is called several times in one forward, from several places; such a part is FSDP's outermost one,
        # whose gradients are reduced when all of backward is done. Each block is called in one place.
        blocks = list(cast(nn.ModuleList, step.sparse.blocks))
        for block in blocks:
            fully_shard(block, mesh=mesh, reshard_after_forward=not whole_after_forward)
        fully_shard(step, mesh=mesh)
        # What a block writes is added to the stream and never changed in place.
        warnings.filterwarnings("ignore", message=r"FSDP2-wrapped module .* returned a view tensor")
        for method in ("moments", "streams"):
            register_fsdp_forward_method(step, method)
        for part in (*blocks, step):
            part.register_forward_pre_hook(self._see)
        self._steps, self._seen = 0, dict.fromkeys([*blocks, step], -1)

    def _see(self, part: nn.Module, arguments: Any) -> None:
        # Weights are gathered into the tensors of the step before, without a trace in their versions, by which packed
        # sparse weights know that they have changed.
        if self._seen[part] != self._steps:
            self._seen[part] = self._steps
            torch.autograd.graph.increment_version([p for p in part.parameters() if not is_sharded(p)])

    def changed(self) -> None:
        self._steps += 1
        cast(FSDPModule, self.step).reshard()


def engine_for(accelerator: Accelerator, step: Step, unused: bool) -> Engine:
    """The engine that Accelerate was launched with, around a step's module.

    Args:
        unused: whether a step may leave a parameter without a gradient.
    """
    kind = strategy(accelerator)
    if kind == "fsdp2":
        fsdp = _fsdp(accelerator)
        assert fsdp is not None
        return ShardsEngine(step, accelerator, whole_after_forward=fsdp.reshard_after_forward is False)
    return CopiesEngine(step, unused) if kind == "ddp" else Engine(step)
