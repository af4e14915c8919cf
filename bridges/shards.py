"""Tensors of which every process holds some rows: whole ones from them, and them from whole ones.

FSDP2 splits parameters, gradients and what an optimizer keeps into `DTensor` along the first dimension. Everything
here takes ordinary tensors too, and leaves them as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


def is_sharded(x: Tensor) -> bool:
    """Whether this process holds a part of the tensor only."""
    return isinstance(x, DTensor)


def local(x: Tensor) -> Tensor:
    """The rows that this process holds, in the same storage."""
    return cast(Tensor, x.to_local()) if isinstance(x, DTensor) else x


def whole(x: Tensor) -> Tensor:
    """All rows, from all processes: each of them must call this."""
    return cast(Tensor, x.full_tensor()) if isinstance(x, DTensor) else x


def sharded_like(x: Tensor, pattern: Tensor) -> Tensor:
    """A whole tensor, the same on all processes, split as ``pattern`` is; each takes its rows and sends nothing."""
    if not isinstance(pattern, DTensor) or x.shape != pattern.shape:
        return x
    x = x.to(pattern.device)
    return distribute_tensor(x, pattern.device_mesh, pattern.placements, src_data_rank=None)


def whole_state(module: nn.Module, keep: bool = True) -> dict[str, Tensor]:
    """A module's state dict of whole tensors on the CPU.

    Args:
        keep: whether this process wants it; where not, it takes its part in gathering, and the dict is empty.
    """
    state = {}
    for name, value in module.state_dict().items():
        full = whole(value.detach())
        if keep:
            state[name] = full.cpu().contiguous()
    return state


def load_whole_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a state dict of whole tensors, each process its rows."""
    patterns = module.state_dict()
    module.load_state_dict({k: sharded_like(v, patterns[k]) if k in patterns else v for k, v in state.items()})


def norm(tensors: Iterable[Tensor]) -> Tensor:
    """The Euclidean norm over all entries of several tensors, whole or sharded alike."""
    tensors = list(tensors)
    found = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(local(x)) for x in tensors]))
    return summed(found.square(), tensors[0]).sqrt() if is_sharded(tensors[0]) else found


def summed(x: Tensor, pattern: Tensor) -> Tensor:
    """An ordinary tensor's sum over the processes among which ``pattern`` is split, in place."""
    if isinstance(pattern, DTensor):
        dist.all_reduce(x, group=pattern.device_mesh.get_group())
    return x
