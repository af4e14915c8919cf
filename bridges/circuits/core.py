"""How much of a circuit hangs on its largest nodes: the logit difference with only the first k of them, and without."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from bridges.circuits.circuit import Circuit, only
from bridges.circuits.node_sets import set_logit_diffs
from bridges.circuits.task import Prompts
from bridges.stack import ResidualStack

# Sizes of the core that are measured: fine where a reader looks, coarse where little changes.
_FINE = (1, 5, 10, 12, 15, 20, 30, 40, 60, 80, 100)
# Beyond so many nodes only the whole circuit: a reader does not look at them one by one.
MOST = 400


class CoreShares(NamedTuple):
    """Shares of a circuit's effect.

    Attributes:
        recovered: by the first k nodes alone. lost: without the first k nodes.
    """

    recovered: float
    lost: float


def core_sizes(total: int) -> list[int]:
    """The sizes k that are measured of a circuit of so many nodes, in rising order; the last is the whole circuit."""
    sizes: list[int] = [*_FINE]
    while sizes[-1] < min(total, MOST):
        sizes.append(int(round(1.3 * sizes[-1], -1)))
    return [*(k for k in sizes if k < total), total] if total else []


@torch.no_grad()
def core_shares(
    stack: ResidualStack, circuit: Circuit, some: Prompts, ranked: Sequence[tuple[str, int]]
) -> dict[int, CoreShares]:
    """What the first k nodes of a circuit recover by themselves, and what is lost without them, ``{k: shares}``.

    The effect is how far the mean logit difference m of the circuit lies above that with every node at its mean. With
    only the first k nodes kept, (m(k) − m(0)) / (m(all) − m(0)) of it is recovered; with only those ablated,
    (m(all) − m(rest)) / (m(all) − m(0)) is lost. Both can be below 0 and above 1, and where nodes only work together
    the first stays near 0 long after the second has reached 1.

    Args:
        some: prompts. ranked: the circuit's nodes, ``(point, channel)``, the largest attribution first.

    Returns:
        shares for every size of `core_sizes`; NaN where the circuit has no effect to share.
    """
    sizes = core_sizes(len(ranked))
    if not sizes:
        return {}
    # Sets of nodes that are replaced: all but the first k, then the first k; the last set of these is the circuit.
    count = len(sizes)
    sets = {p: torch.zeros(2 * count, len(kept), dtype=torch.bool) for p, kept in circuit.nodes.items()}
    for rank, (point, channel) in enumerate(ranked):
        for i, k in enumerate(sizes):
            sets[point][i if rank >= k else count + i, channel] = True
    with only(stack, circuit):
        means = set_logit_diffs(stack, some, sets, circuit.reference).double().mean(1).tolist()
    whole, nothing = means[count - 1], means[-1]
    if abs(whole - nothing) < 1e-9:
        return dict.fromkeys(sizes, CoreShares(math.nan, math.nan))
    return {
        k: CoreShares((alone - nothing) / (whole - nothing), (whole - without) / (whole - nothing))
        for k, alone, without in zip(sizes, means[:count], means[count:], strict=True)
    }
