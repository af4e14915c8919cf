"""Guards: nodes that a circuit can do without, and its behaviour in the whole model cannot.

A search shows the circuit everything else at its mean, or at values from other text. In the whole model the rest is
at work, and a few of its nodes may hold it in check: without them the circuit's own nodes no longer say what they
said. A circuit that leaves them out is sufficient and not complete. An adversary on training pairs names them, and
they are ranked before all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bridges.circuits.circuit import Circuit
from bridges.circuits.flips import attack

if TYPE_CHECKING:
    from bridges.circuits.search import Search

# The adversary of a search, as strong as that of the control, on fewer pairs.
PAIRS, SHARE, STEPS = 24, 0.1, 6
# No guards are looked for below this two-way loss in nats: on prompts that the adversary has not seen it does less harm
# with some choices and more with others.
ENOUGH = 0.3


def guards_of(circuit: Circuit) -> dict[str, Tensor]:
    """The nodes of a circuit that the adversary named, ``{point: bool [channels]}``."""
    found = {p: torch.zeros_like(kept) for p, kept in circuit.nodes.items()}
    for point, channels in circuit.meta.get("guards", {}).items():
        found[point][channels] = True
    return found


def with_guards(search: Search, scores: Mapping[str, Tensor], circuit: Circuit) -> Circuit:
    """The circuit with its guards, cut out of the same ranking; as it is where none are needed or the target is lost.

    Args:
        scores: by which ``circuit`` was ranked.
    """
    some = search.prompts.take(slice(2 * PAIRS))
    guards = {p: torch.zeros_like(kept) for p, kept in circuit.nodes.items()}
    first = 1 + max(float(s.max()) for s in scores.values())
    for _ in range(search.settings.guard_rounds):
        tries = attack(search.stack, circuit, some, some, SHARE, STEPS).values()
        harmful = [tried.flipped(circuit) for tried in tries if max(tried.losses) > ENOUGH]
        if not harmful:
            break
        for flips in harmful:
            guards = {p: guards[p] | flips[p] for p in guards}
        tried = search.bisect({p: s.masked_fill(guards[p], first) for p, s in scores.items()})
        if not tried.reached:
            break
        kept = {p: (g & tried.nodes[p]).nonzero()[:, 0].tolist() for p, g in guards.items()}
        circuit = replace(tried, meta={**tried.meta, "guards": {p: c for p, c in kept.items() if c}})
    return circuit
