"""How faithful a circuit's logit difference is to the whole model's, with intervals over frames and pairs."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from bridges.circuits.bootstrap import Estimate, Resampler, estimate


def faithfulness_estimates(found: Tensor, model: Tensor, sign: Tensor, draws: Resampler) -> dict[str, Estimate]:
    """``fvu``, ``faithfulness``, ``accuracy``, and the model's own ``model_accuracy``.

    Args:
        found, model: logit differences of the circuit alone and of the whole model, ``[2n]``, without calibration.
        sign: of `bridges.circuits.task.Prompts`. draws: over the n pairs.

    Returns:
        ``fvu``: unexplained variance, see `bridges.circuits.task.unexplained`, its interval over resamples;
        ``faithfulness``: mean logit difference of the circuit over that of the model (MIB's f with nothing at 0);
        shares of prompts decided rightly.
    """
    z, m, s = (x.double().cpu().view(-1, 2).numpy() for x in (found, model, sign))
    turned = m * s
    ones = np.full(len(m), 2.0)
    mean = draws.ratio(turned.sum(1), ones)
    variance = draws.ratio((turned**2).sum(1), ones) - mean**2
    error = draws.ratio(((z - m) ** 2).sum(1), ones)
    fvu = np.divide(error, variance, out=np.full_like(error, np.nan), where=variance > 1e-12)
    return {
        "fvu": estimate(fvu),
        "faithfulness": estimate(draws.ratio(z.sum(1), m.sum(1))),
        "accuracy": estimate(draws.ratio((z > 0).sum(1), ones)),
        "accuracy_share": estimate(draws.ratio((z > 0).sum(1).astype(float), (m > 0).sum(1).astype(float))),
        "model_accuracy": estimate(draws.ratio((m > 0).sum(1), ones)),
    }
