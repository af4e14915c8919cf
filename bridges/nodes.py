"""Nodes: the named channels of a stack, and the one mechanism that reads and changes them.

A node *point* is one kind of node in one layer, written ``"<layer>.<kind>"`` such as ``"2.mlp_neuron"``; its channels
are the nodes (paper, section 2.2). Recording, ablating, interchanging, steering and masking are all functions put on a
point by a context manager that takes them away again, whatever happens inside it:

    with record(model, "*.mlp_neuron") as seen:
        model.logits(ids)
    seen["0.mlp_neuron"]                                   # [B, T, channels]

    with intervene(model, {"1.q": lambda x: 0 * x}):
        model.logits(ids)
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from torch import Tensor

from bridges.config.literals import NODE_KINDS
from bridges.errors import BridgesError, nearest

__all__ = ["NODE_KINDS", "NodeBus", "NodeFunction", "intervene", "record"]

NodeFunction = Callable[[Tensor], Tensor]


class NodeBus:
    """The node points of one stack and the functions now acting on them.

    Args:
        widths: channels of each point, ``{"0.attn_in": d, …}``, in the order of the forward pass.
    """

    def __init__(self, widths: Mapping[str, int]):
        self.widths = dict(widths)
        self._functions: dict[str, list[NodeFunction]] = {}
        self.on_first: Callable[[], None] | None = None
        self.on_last: Callable[[], None] | None = None
        self._halted = False

    def __call__(self, point: str, x: Tensor) -> Tensor:
        """The value ``[B, T, channels]`` at ``point`` after every function there, in the order they were put on."""
        for function in self._functions.get(point, ()):
            x = function(x)
        return x

    def active(self, point: str) -> bool:
        """Whether any function acts on ``point``."""
        return point in self._functions

    def halt(self) -> None:
        """Every later `acting` raises: how whatever works in this stack on another thread is stopped."""
        self._halted = True

    def match(self, patterns: str | Sequence[str]) -> list[str]:
        """The points that match at least one glob, in forward order.

        Raises:
            BridgesError: a pattern matches nothing.
        """
        patterns = [patterns] if isinstance(patterns, str) else list(patterns)
        if all(pattern in self.widths for pattern in patterns):
            return [point for point in self.widths if point in patterns]
        for pattern in patterns:
            if not fnmatch.filter(self.widths, pattern):
                raise BridgesError(f"No node point matches {pattern!r}. {nearest(pattern, self.widths)}")
        return [point for point in self.widths if any(fnmatch.fnmatchcase(point, p) for p in patterns)]

    @contextmanager
    def acting(self, functions: Mapping[str, NodeFunction]) -> Iterator[None]:
        """Put one function on each named point for the length of the ``with`` block."""
        if self._halted:
            raise BridgesError("Stopped.")
        for point in functions:
            self.match(point)
        if not self._functions and functions and self.on_first:
            self.on_first()
        for point, function in functions.items():
            self._functions.setdefault(point, []).append(function)
        try:
            yield
        finally:
            for point, function in functions.items():
                # By identity and from the end: one function may stand on a point twice.
                stack = self._functions[point]
                del stack[max(i for i, f in enumerate(stack) if f is function)]
                if not stack:
                    del self._functions[point]
            if not self._functions and functions and self.on_last:
                self.on_last()


@contextmanager
def record(stack, patterns: str | Sequence[str] = "*") -> Iterator[dict[str, Tensor]]:
    """Collect node values while the block runs: ``{point: [B, T, channels]}``, the last pass's where there are several.

    Args:
        stack: a `ResidualStack`.
        patterns: globs over node points; one that matches nothing is an error.
    """
    seen: dict[str, Tensor] = {}

    def keep(point: str) -> NodeFunction:
        def function(x: Tensor) -> Tensor:
            seen[point] = x
            return x

        return function

    with stack.nodes.acting({point: keep(point) for point in stack.nodes.match(patterns)}):
        yield seen


@contextmanager
def intervene(stack, functions: Mapping[str, NodeFunction]) -> Iterator[None]:
    """Change node values while the block runs.

    Args:
        stack: a `ResidualStack`.
        functions: ``{glob over points: function of the value [B, T, channels]}``; one that matches nothing is an error.
    """
    with ExitStack() as acting:
        for pattern, function in functions.items():
            acting.enter_context(stack.nodes.acting(dict.fromkeys(stack.nodes.match(pattern), function)))
        yield
