"""Is there a pattern of ablations outside the circuit that undoes the behaviour?"""

from __future__ import annotations

import torch
from torch import Tensor

from bridges.circuits.controls.case import Case, Row, control, fitted_loss
from bridges.circuits.controls.sets import NodeSets, complement, set_margins
from bridges.circuits.task import answer_margins, task_loss
from bridges.nodes import NodeFunction, intervene


def _scaled(point: str, gates: dict[str, Tensor], outside: dict[str, Tensor], means: dict[str, Tensor]) -> NodeFunction:
    def function(x: Tensor) -> Tensor:
        share = torch.where(outside[point], gates[point], 1.0).to(x)
        return means[point].to(x) + (x - means[point].to(x)) * share

    return function


def worst_pattern(case: Case, start: Tensor, steps: int) -> Tensor:
    """Ablate (0) or keep (1) each node outside the circuit, ``[nodes]``, by signed gradient steps up the task loss.

    Args:
        start: ``[nodes]`` gates from 0 to 1 to begin with. steps: so many, of size 1/steps; then rounded.
    """
    device = case.device
    outside = {p: kept.to(device) for p, kept in complement(case.circuit.nodes).items()}
    means = {p: case.circuit.reference[p].to(device) for p in outside}
    widths = [len(m) for m in outside.values()]
    flat = start.to(device)
    for _ in range(steps):
        flat = flat.detach().requires_grad_()
        gates = dict(zip(outside, flat.split(widths), strict=True))
        with torch.enable_grad(), intervene(case.stack, {p: _scaled(p, gates, outside, means) for p in outside}):
            loss = task_loss(answer_margins(case.stack, case.few))
            (grad,) = torch.autograd.grad(loss, [flat])
        flat = (flat.detach() + grad.sign() / steps).clamp(0, 1)
    return (flat.detach() >= 0.5).cpu()


@control("adversarial")
def adversarial(case: Case) -> list[Row]:
    """One pattern of ablations outside the circuit for the whole batch of prompts, chosen to do the most harm.

    An adversary that chose for every prompt apart could carry the answer itself; one pattern for all cannot. It climbs
    from two starts, all halfway and random. Its loss is calibrated on the very prompts afterwards, so that only lost
    information counts, and passed up to ``adversarial`` nats.
    """
    outside = complement(case.circuit.nodes)
    widths = [len(kept) for kept in outside.values()]
    total, generator = sum(widths), case.generator("adversarial")
    starts = [torch.full((total,), 0.5), torch.rand(total, generator=generator)]
    kept = torch.stack([worst_pattern(case, start, case.config.adversary_steps) for start in starts])
    ablated: NodeSets = {p: ~k & outside[p] for p, k in zip(outside, kept.split(widths, 1), strict=True)}
    margins = set_margins(case.stack, case.few, ablated, case.circuit.reference)
    losses = [fitted_loss(m, case.few.sign) for m in margins]
    sizes = torch.stack([a.sum(1) for a in ablated.values()]).sum(0).tolist()
    more = {"n_pairs": len(case.few) // 2}
    rows = [
        case.row("adversarial", "loss", loss, draw=i, size=size, **more)
        for i, (loss, size) in enumerate(zip(losses, sizes, strict=True))
    ]
    worst, bar = max(losses), case.config.adversarial
    return [*rows, case.row("adversarial", "worst_loss", worst, threshold=bar, passed=worst <= bar, **more)]
