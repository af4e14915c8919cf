"""How much of a circuit its largest nodes carry: the logit difference with only the top k by attribution kept."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from bridges.circuits.circuit import Circuit, only
from bridges.circuits.node_sets import set_logit_diffs
from bridges.circuits.task import Prompts
from bridges.stack import ResidualStack

# Sizes of the core that are measured: fine where a reader looks, coarse where little changes.
_FINE = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100)


def core_sizes(total: int) -> list[int]:
    """The sizes k that are measured of a circuit of so many nodes, in rising order; the last is the whole circuit."""
    sizes, k = list(_FINE), _FINE[-1]
    while k < total:
        k = round(1.3 * k, -1)
        sizes.append(k)
    return [*(k for k in sizes if k < total), total] if total else []


@torch.no_grad()
def recovered_shares(
    stack: ResidualStack, circuit: Circuit, some: Prompts, ranked: Sequence[tuple[str, int]]
) -> dict[int, float]:
    """Share of the circuit's effect that its first k nodes recover by themselves, ``{k: share}``.

    The effect is how far the mean logit difference of the circuit lies above that with every node at its mean; with
    the first k nodes kept and the rest at their means the share is (m(k) − m(0)) / (m(all) − m(0)). It can be below 0
    and above 1: nodes that work against the answer come last or first as their attribution says.

    Args:
        some: prompts. ranked: the circuit's nodes, ``(point, channel)``, the largest attribution first.

    Returns:
        a share for every size of `core_sizes`; NaN where the circuit has no effect to share.
    """
    sizes = core_sizes(len(ranked))
    if not sizes:
        return {}
    # The last set replaces every node of the circuit.
    sets = {p: torch.zeros(len(sizes) + 1, len(kept), dtype=torch.bool) for p, kept in circuit.nodes.items()}
    for rank, (point, channel) in enumerate(ranked):
        gone = [i for i, k in enumerate(sizes) if rank >= k]
        sets[point][[*gone, len(sizes)], channel] = True
    with only(stack, circuit):
        means = set_logit_diffs(stack, some, sets, circuit.reference).double().mean(1).cpu()
    nothing = float(means[-1])
    whole = float(means[-2]) - nothing
    if abs(whole) < 1e-9:
        return dict.fromkeys(sizes, math.nan)
    return {k: (float(mean) - nothing) / whole for k, mean in zip(sizes, means[:-1].tolist(), strict=True)}
