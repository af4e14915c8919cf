"""Where a Hugging Face model keeps its nodes and the weights between them, and the hooks that let a `NodeBus` act."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers.pytorch_utils import Conv1D

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


@dataclass(frozen=True)
class NodeWeight:
    """The weights from the nodes of one kind to those of another, in one layer.

    Attributes:
        module: a linear map, or what keeps its weight as ``[in, out]``: a Conv1D of GPT-2, an embedding of tokens.
        rows: which of its outputs are the target's channels, in their order, where it is a fused projection; None: all.
        columns: which of its inputs are the source's channels, in their order, where several heads share one head of
            values; None: all. Never both.
    """

    module: nn.Module
    rows: slice | Tensor | None = None
    columns: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        """``[target channels, source channels]``, a view where the layout allows."""
        whole = self._whole()
        if self.columns is not None:
            return whole[:, self.columns]
        return whole if self.rows is None else whole[self.rows]

    @property
    def bias(self) -> Tensor | None:
        """``[target channels]``, or None."""
        bias = getattr(self.module, "bias", None)
        return bias if bias is None or self.rows is None else bias[self.rows]

    @torch.no_grad()
    def put(self, weight: Tensor, bias: Tensor | None) -> None:
        """Write both back, in the shapes that `weight` and `bias` have."""
        where: Any = (slice(None) if self.rows is None else self.rows, slice(None))
        self._whole()[where if self.columns is None else (slice(None), self.columns)] = weight
        if bias is not None:
            self.module.bias[where[0]] = bias  # type: ignore[index,operator]

    def _whole(self) -> Tensor:
        weight: Tensor = self.module.weight  # type: ignore[assignment]
        return weight.T if isinstance(self.module, (Conv1D, nn.Embedding)) else weight


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
