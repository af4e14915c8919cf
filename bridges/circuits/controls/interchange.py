"""Do whole model and circuit react alike when nodes of the circuit take their values on the other prompt?"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor

from bridges.circuits.circuit import only
from bridges.circuits.controls.case import Case, Row, control
from bridges.circuits.node_sets import NodeSets, exact_parts, set_margins
from bridges.circuits.task import Calibration, Prompts, prompts, task_loss
from bridges.nodes import record

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


def _values(case: Case, some: Prompts) -> dict[str, Tensor]:
    """Every node of the circuit on every prompt, ``{point: [2n, T, channels]}``."""
    with torch.no_grad(), record(case.stack) as seen:
        case.stack.run_segment(case.stack.embed(some.ids), 0, case.stack.n_sublayers)
    return dict(seen)


def _reaction(case: Case, some: Prompts, sets: NodeSets, world: AbstractContextManager) -> Tensor:
    """Margins ``[S, 2n]`` in one world, the sets' nodes at that world's values on the pair's other prompt."""
    with world:
        other = torch.arange(len(some), device=some.ids.device) ^ 1
        swapped = {point: value[other] for point, value in _values(case, some).items()}
        return set_margins(case.stack, some, sets, swapped)


@control("interchange")
def interchange(case: Case) -> list[Row]:
    """Random shares of the circuit's nodes are exchanged between the prompts of a pair, in the whole model and in the
    circuit alone; both must come to favour the same candidate.

    Agreement is the share of prompts and draws whose (for the circuit: calibrated) logit difference has the same sign;
    its mean over the shares above zero is passed from ``interchange`` on. Only pairs of equally long prompts count.
    The replication's variant stands beside it: the circuit's task loss with shares of its nodes at the whole model's
    values on the same prompt.
    """
    equal = case.heldout.equal_length.nonzero()[:, 0].tolist()[: case.config.set_pairs]
    if not equal:
        return [case.row("interchange", "agreement", np.nan, n_pairs=0)]
    some = prompts(case.heldout.take(equal), case.device)
    draws, more = case.config.draws, {"n_pairs": len(equal)}
    shares = [share for share in SHARES for _ in range(1 if share in (0.0, 1.0) else draws)]
    sets = exact_parts(case.circuit, shares, case.generator("interchange"))
    calibration = Calibration(case.circuit.scale, case.circuit.shift)
    whole = _reaction(case, some, sets, nullcontext())
    alone = calibration.apply(_reaction(case, some, sets, only(case.stack, case.circuit)), some.sign)
    full_values = _values(case, some)
    with only(case.stack, case.circuit):
        overwritten = calibration.apply(set_margins(case.stack, some, sets, full_values), some.sign)
    rows, agreements = [], []
    for share in SHARES:
        mine = [i for i, s in enumerate(shares) if s == share]
        finite = whole[mine].isfinite() & alone[mine].isfinite()
        agreement = float((finite & ((whole[mine] > 0) == (alone[mine] > 0))).float().mean())
        if share:
            agreements.append(agreement)
        size = round(share * case.circuit.size)
        rows.append(case.row("interchange", f"agreement_{share:g}", agreement, size=size, **more))
        loss = float(torch.stack([task_loss(overwritten[i]) for i in mine]).mean())
        rows.append(case.row("interchange", f"overwritten_loss_{share:g}", loss, size=size, **more))
    moved = np.array([i for i, s in enumerate(shares) if s])
    pair = np.stack([whole[moved].flatten().cpu().double().numpy(), alone[moved].flatten().cpu().double().numpy()])
    correlation = float(np.corrcoef(pair)[0, 1]) if (pair.std(1) > 0).all() else np.nan
    rows.append(case.row("interchange", "correlation", correlation, **more))
    mean, bar = float(np.mean(agreements)), case.config.interchange
    return [*rows, case.row("interchange", "agreement", mean, threshold=bar, passed=mean >= bar, **more)]
