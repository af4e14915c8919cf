"""How far beyond the frames it was found on does the circuit explain the model?"""

from __future__ import annotations

import torch

from bridges.circuits.bootstrap import Resampler
from bridges.circuits.circuit import only
from bridges.circuits.controls.case import Case, Row, control
from bridges.circuits.faithful import faithfulness_estimates
from bridges.circuits.task import logit_diff, prompts


@control("reach")
def reach(case: Case) -> list[Row]:
    """Unexplained variance, faithfulness and accuracy on frames that no search has seen."""
    if case.reach is None:
        return []
    pairs = case.reach.take(range(min(case.config.pairs, len(case.reach))))
    some = prompts(pairs, case.device)
    with torch.no_grad():
        model = logit_diff(case.stack, some)
        with only(case.stack, case.circuit):
            found = logit_diff(case.stack, some)
    draws = Resampler(len(pairs), case.bootstrap, case.seed, tuple(p.template for p in pairs.pairs))
    estimates = faithfulness_estimates(found, model, some.sign, draws)
    more = {"split": "reach", "n_pairs": len(pairs)}
    return [case.row("reach", name, value, decides=name == "fvu", **more) for name, value in estimates.items()]
