"""A training step on several processes: the module that an engine wraps, and the engines.

Accelerate says how many processes there are and which engine was asked for; PyTorch's engine does the work. Sparse
model and bridges are called by parts, so what is wrapped is one module whose forward is a whole objective.
"""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bridges.errors import ConfigError
from bridges.training.terms import Losses, Objective

# Engines of Accelerate that train whole copies of the model, one a process.
_COPIES = (
    DistributedType.NO,
    DistributedType.MULTI_CPU,
    DistributedType.MULTI_GPU,
    DistributedType.MULTI_XPU,
)


def strategy(accelerator: Accelerator) -> str:
    """How training is spread: ``one`` process, or ``ddp`` over several.

    Raises:
        ConfigError: Accelerate was told to use an engine that Bridges does not train on.
    """
    if accelerator.num_processes == 1:
        return "one"
    if accelerator.distributed_type in _COPIES:
        return "ddp"
    raise ConfigError(
        f"Accelerate was launched with {accelerator.distributed_type.value}, which Bridges does not train on. Launch "
        "with `accelerate launch --multi_gpu` (DDP)."
    )


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


class Engine:
    """One process: a step's module as it is.

    Args:
        step: the module.

    Attributes:
        module: what is called.
    """

    def __init__(self, step: Step):
        self.module: nn.Module = step

    def __call__(self, *arguments: Any) -> tuple[Tensor, Losses]:
        return self.module(*arguments)

    def part(self, last: bool) -> AbstractContextManager:
        """Around forward and backward of one of the parts that a step's batch is split into."""
        return nullcontext()


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


def engine_for(accelerator: Accelerator, step: Step, unused: bool) -> Engine:
    """The engine that Accelerate was launched with, around a step's module.

    Args:
        unused: whether a step may leave a parameter without a gradient.
    """
    return CopiesEngine(step, unused) if strategy(accelerator) == "ddp" else Engine(step)
