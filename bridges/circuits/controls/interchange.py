"""Do whole model and circuit react alike when nodes of the circuit take their values on the other prompt?"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from torch import Tensor

from bridges.circuits.bridge_context import on_other
from bridges.circuits.circuit import only
from bridges.circuits.controls.case import Case, Row, control
from bridges.circuits.node_sets import NodeSets, exact_parts, set_logit_diffs
from bridges.circuits.task import Prompts, prompts

SHARES = (0.25, 0.5, 0.75, 1.0)


def _reaction(case: Case, some: Prompts, sets: NodeSets, world: AbstractContextManager) -> Tensor:
    """Logit differences ``[S, 2n]`` in one world, the sets' nodes at that world's values on the pair's other prompt."""
    with world:
        swapped = {point: on_other(value) for point, value in case.node_values(some.ids).items()}
        return set_logit_diffs(case.stack, some, sets, swapped)


@control("interchange")
def interchange(case: Case) -> list[Row]:
    """Share of prompts on which whole model and circuit alone favour the same candidate, after random shares of the
    circuit's nodes were exchanged between the prompts of a pair in either.

    Only pairs of equally long prompts count.
    """
    equal = case.pairs.equal_length.nonzero()[:, 0].tolist()
    if not equal:
        return []
    some = prompts(case.pairs.take(equal), case.device)
    draws = [share for share in SHARES for _ in range(1 if share == 1.0 else case.config.draws)]
    sets = exact_parts(case.circuit, draws, case.generator("interchange"))
    whole = _reaction(case, some, sets, nullcontext())
    alone = _reaction(case, some, sets, only(case.stack, case.circuit))
    alike = (whole > 0) == (alone > 0)
    if len(equal) < len(case.pairs):
        value = float(alike.double().mean())
        return [case.row("interchange", "agreement", value, decides=True, n_pairs=len(equal))]
    rows = [
        case.row(
            "interchange", f"agreement_{share:g}", case.mean(alike[[i for i, s in enumerate(draws) if s == share]])
        )
        for share in SHARES
    ]
    return [*rows, case.row("interchange", "agreement", case.mean(alike), decides=True)]
