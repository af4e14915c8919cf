"""Where a Hugging Face model keeps its nodes, and the hooks that let a `NodeBus` act there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from bridges.nodes import NodeBus


@dataclass(frozen=True)
class NodePoint:
    """One node point of one layer: channels of a module's (first) input or output, ``[B, T, channels]``.

    Attributes:
        module: the submodule whose value holds the nodes.
        width: number of node channels.
        where: whether the nodes are what enters the module or what leaves it.
        columns: which channels of that value, where a fused projection holds several kinds; None is all.
    """

    module: nn.Module
    width: int
    where: Literal["input", "output"] = "output"
    columns: slice | Tensor | None = None


def attach(name: str, point: NodePoint, bus: NodeBus) -> RemovableHandle:
    """Let the functions that ``bus`` holds for ``name`` act on ``point`` until the handle is removed."""
    columns = point.columns
    if isinstance(columns, Tensor):
        columns = columns.to(next(point.module.parameters()).device)

    def act(value: Tensor) -> Tensor:
        if columns is None:
            return bus(name, value)
        part = value[..., columns]
        new = bus(name, part)
        # A slice is a view, so only a new tensor needs scattering; an index is a copy, which a function may
        # have changed in place.
        if new is part and isinstance(columns, slice):
            return value
        value = value.clone()
        value[..., columns] = new
        return value

    def before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return (act(args[0]), *args[1:]) if bus.active(name) else None

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if not bus.active(name):
            return None
        return (act(output[0]), *output[1:]) if isinstance(output, tuple) else act(output)

    if point.where == "input":
        return point.module.register_forward_pre_hook(before)
    return point.module.register_forward_hook(after)
