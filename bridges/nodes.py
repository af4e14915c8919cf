"""Nodes: the named channels of a stack, and the one mechanism that reads and changes them.

A node *point* is one kind of node in one layer, written ``"<layer>.<kind>"`` such as ``"2.mlp_neuron"``; its channels
are the nodes (paper, section 2.2). Recording, ablating, interchanging, steering and masking are all functions put on a
point by a context manager that takes them away again, whatever happens inside it:

    with record(model, "*.mlp_neuron") as seen:
        model.logits(ids)
    seen["0.mlp_neuron"]                                   # [B, T, channels]

    with intervene(model, {"1.q": lambda x: 0 * x}):
        model.logits(ids)

The *stream* at site i is ``"stream.<i>"``, ``[B, T, d_model]``. It is read and changed in the same way; no glob over
node points names it, since its channels are no nodes of a circuit.

Names of TransformerLens's hooks are accepted as well, globs of them too, in every stack:

    blocks.<l>.hook_resid_pre        stream before layer l          blocks.<l>.hook_attn_out         <l>.attn_out
    blocks.<l>.hook_resid_mid        stream between its sublayers   blocks.<l>.ln2.hook_normalized   <l>.mlp_in
    blocks.<l>.hook_resid_post       stream after layer l           blocks.<l>.mlp.hook_post         <l>.mlp_neuron
    blocks.<l>.ln1.hook_normalized   <l>.attn_in                    blocks.<l>.hook_mlp_out          <l>.mlp_out
    blocks.<l>.attn.hook_q, hook_k, hook_v                          <l>.q, <l>.k, <l>.v

Heads are not split, ``[B, T, heads · d_head]`` where TransformerLens has ``[B, T, heads, d_head]``; ``attn_in`` and
``mlp_in`` of a sparse transformer come after AbsTopK and with the channels of concatenated positions. Where attention
and MLP are parallel there is no ``hook_resid_mid``. What is recorded is kept under the name it was asked for.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from torch import Tensor

from bridges.config.literals import NODE_KINDS
from bridges.errors import BridgesError, nearest

__all__ = ["NODE_KINDS", "NodeBus", "NodeFunction", "hook_names", "intervene", "record"]

NodeFunction = Callable[[Tensor], Tensor]

STREAM = "stream."
# TransformerLens's names below ``blocks.<layer>.`` and the node kinds they stand for.
_HOOKS = {
    "ln1.hook_normalized": "attn_in",
    "attn.hook_q": "q",
    "attn.hook_k": "k",
    "attn.hook_v": "v",
    "hook_attn_out": "attn_out",
    "ln2.hook_normalized": "mlp_in",
    "mlp.hook_post": "mlp_neuron",
    "hook_mlp_out": "mlp_out",
}


class NodeBus:
    """The node points of one stack and the functions now acting on them.

    Args:
        widths: channels of each point, ``{"0.attn_in": d, …}``, in the order of the forward pass.
    """

    def __init__(self, widths: Mapping[str, int]):
        self.widths = dict(widths)
        self._functions: dict[str, list[NodeFunction]] = {}
        # How many streams have functions: a pass asks this once a site, and nothing more where there are none.
        self.streams = 0
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

    def stream(self, site: int, h: Tensor) -> Tensor:
        """The stream ``[B, T, d_model]`` at ``site`` after every function there."""
        return self(f"{STREAM}{site}", h) if self.streams else h

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
            if not point.startswith(STREAM):
                self.match(point)
        if not self._functions and functions and self.on_first:
            self.on_first()
        for point, function in functions.items():
            self._functions.setdefault(point, []).append(function)
            self.streams += point.startswith(STREAM)
        try:
            yield
        finally:
            for point, function in functions.items():
                # By identity and from the end: one function may stand on a point twice.
                stack = self._functions[point]
                del stack[max(i for i, f in enumerate(stack) if f is function)]
                self.streams -= point.startswith(STREAM)
                if not stack:
                    del self._functions[point]
            if not self._functions and functions and self.on_last:
                self.on_last()


def hook_names(stack) -> dict[str, str]:
    """TransformerLens's names of a stack's node points and streams, ``{"blocks.0.hook_resid_pre": "stream.0", …}``."""
    per_layer = stack.n_sublayers // stack.n_layers
    names = {}
    for layer in range(stack.n_layers):
        block, site = f"blocks.{layer}.", per_layer * layer
        names[f"{block}hook_resid_pre"] = f"{STREAM}{site}"
        for hook, kind in _HOOKS.items():
            if hook == "ln2.hook_normalized" and per_layer == 2:
                names[f"{block}hook_resid_mid"] = f"{STREAM}{site + 1}"
            if f"{layer}.{kind}" in stack.nodes.widths:
                names[block + hook] = f"{layer}.{kind}"
        names[f"{block}hook_resid_post"] = f"{STREAM}{site + per_layer}"
    return names


def _named(stack, patterns: str | Sequence[str]) -> dict[str, str]:
    """The names that match at least one glob, and the node point or stream that each stands for.

    Raises:
        BridgesError: a pattern matches nothing.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    found: dict[str, str] = {}
    plain = []
    for pattern in patterns:
        if pattern.startswith(STREAM):
            known = {f"{STREAM}{site}": f"{STREAM}{site}" for site in range(stack.n_sublayers + 1)}
        elif pattern.startswith("blocks.") or "hook_" in pattern:
            known = hook_names(stack)
        else:
            plain.append(pattern)
            continue
        matching = [name for name in known if fnmatch.fnmatchcase(name, pattern)]
        if not matching:
            raise BridgesError(f"This stack has no {pattern!r}. {nearest(pattern, known)}")
        found |= {name: known[name] for name in matching}
    if plain or not patterns:
        found = {point: point for point in stack.nodes.match(plain)} | found
    return found


@contextmanager
def record(stack, patterns: str | Sequence[str] = "*") -> Iterator[dict[str, Tensor]]:
    """Collect node values and streams while the block runs: ``{name: [B, T, channels]}``, the last pass's where there
    are several.

    Args:
        stack: a `ResidualStack`.
        patterns: globs over node points, streams and TransformerLens's hook names; one that matches nothing is an
            error.
    """
    seen: dict[str, Tensor] = {}
    names: dict[str, list[str]] = {}
    for name, point in _named(stack, patterns).items():
        names.setdefault(point, []).append(name)

    def keep(point: str) -> NodeFunction:
        def function(x: Tensor) -> Tensor:
            for name in names[point]:
                seen[name] = x
            return x

        return function

    with stack.nodes.acting({point: keep(point) for point in names}):
        yield seen


@contextmanager
def intervene(stack, functions: Mapping[str, NodeFunction]) -> Iterator[None]:
    """Change node values and streams while the block runs.

    Args:
        stack: a `ResidualStack`.
        functions: ``{glob over points, streams and hook names: function of the value [B, T, channels]}``; one that
            matches nothing is an error.
    """
    with ExitStack() as acting:
        for pattern, function in functions.items():
            points = _named(stack, pattern).values()
            acting.enter_context(stack.nodes.acting(dict.fromkeys(points, function)))
        yield
