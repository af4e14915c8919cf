"""Do sparse model and circuit decide as the dense model does, prompt by prompt, and do they find the same text hard?

Shapes: n pairs with two prompts each.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from bridges.behaviours.encoded import EncodedPairs
from bridges.circuits.bootstrap import Estimate, Resampler, estimate
from bridges.circuits.bridge_context import device_of
from bridges.circuits.circuit import Circuit, only
from bridges.circuits.faithful import faithfulness_estimates
from bridges.circuits.task import logit_diff, prompts, split
from bridges.data.blocks import Text, in_batches
from bridges.losses import head_values
from bridges.stack import ResidualStack

Row = dict[str, Any]
# Prompts in one forward pass.
BATCH = 64


@torch.no_grad()
def pair_logit_diffs(stack: ResidualStack, encoded: EncodedPairs, circuit: Circuit | None = None) -> np.ndarray:
    """Logit differences of both prompts of every pair, ``[n, 2]``: the right candidate's logit minus the other's.

    Args:
        circuit: reduce the stack to it; nothing is calibrated.
    """
    some = prompts(encoded, device_of(stack))
    with nullcontext() if circuit is None else only(stack, circuit):
        found = torch.cat([logit_diff(stack, part) for part in split(some, BATCH)])
    return found.view(-1, 2).double().cpu().numpy()


def explained_rows(behaviour: str, diffs: dict[str, np.ndarray], sign: np.ndarray, draws: Resampler) -> list[Row]:
    """Rows of table ``agreement`` on what the circuit explains of its own model, nothing calibrated.

    Args:
        diffs: logit differences, ``{model: [n, 2]}``, among them ``sparse`` and ``circuit``. sign: as below.
        draws: over frames and pairs.
    """
    circuit, model, turned = (torch.from_numpy(x).flatten() for x in (diffs["circuit"], diffs["sparse"], sign))
    found = faithfulness_estimates(circuit, model, turned, draws)
    row: Row = {"behaviour": behaviour, "first": "sparse", "second": "circuit"}
    return [
        row | {"quantity": name} | value.columns() | {"n": sign.size, "seed": draws.seed}
        for name, value in found.items()
    ]


def agreement_rows(behaviour: str, margins: dict[str, np.ndarray], sign: np.ndarray, draws: Resampler) -> list[Row]:
    """Rows of table ``agreement`` of one behaviour, with intervals over pairs.

    ``logit_difference_correlation`` turns every margin to the same candidate of its pair, so that it is high wherever
    both models are mostly right; ``margin_correlation`` is of the margins of the right candidate, which the labels
    alone cannot make high.

    Args:
        margins: ``{model: [n, 2]}``, among them ``dense``.
        sign: ``[n, 2]`` of `bridges.circuits.task.Prompts`. draws: over frames and pairs.
    """
    dense, seed = margins["dense"], draws.seed
    rows: list[Row] = []

    def put(second: str, quantity: str, found: Estimate, n: int) -> None:
        row: Row = {"behaviour": behaviour, "first": "dense", "second": second, "quantity": quantity}
        rows.append(row | found.columns() | {"n": n, "seed": seed})

    both = np.full(len(dense), 2.0)
    wrong = dense <= 0
    for second, mine in margins.items():
        put(second, "accuracy", estimate(draws.ratio((mine > 0).sum(1), both)), dense.size)
        if second == "dense":
            continue
        alike = (mine > 0) == (dense > 0)
        put(second, "decision_agreement", estimate(draws.ratio(alike.sum(1), both)), dense.size)
        where = estimate(draws.ratio((alike & wrong).sum(1), wrong.sum(1)))
        put(second, "agreement_where_dense_wrong", where, int(wrong.sum()))
        oriented = estimate(draws.correlation(dense * sign, mine * sign))
        put(second, "logit_difference_correlation", oriented, dense.size)
        put(second, "margin_correlation", estimate(draws.correlation(dense, mine)), dense.size)
    return rows


@torch.no_grad()
def token_losses(stack: ResidualStack, text: Text, batch: int = 8) -> np.ndarray:
    """Next-token cross-entropy in nats over text, ``[n, longest T - 1]``; NaN behind the end of a shorter row."""
    device, parts, batches = device_of(stack), [], in_batches(text, batch)
    width = max(ids.shape[1] for ids in batches) - 1
    for ids in batches:
        ids = ids.to(device)
        h = stack.run_segment(stack.embed(ids), 0, stack.n_sublayers)
        ce = head_values(stack, [h], ids, None).ce[0].double().cpu()
        parts.append(F.pad(ce, (0, width - ce.shape[1]), value=float("nan")))
    return torch.cat(parts).numpy()


def text_rows(stacks: dict[str, ResidualStack], text: Text, draws: Resampler) -> list[Row]:
    """Rows ``text`` of table ``agreement``: how per-token losses correlate (paper, Fig. 33), intervals over sequences.

    Args:
        stacks: ``dense``, ``sparse``, and perhaps ``dense2``: another dense model, as the ceiling.
        text: held-out token ids. draws: over its sequences.
    """
    losses = {name: token_losses(stack, text) for name, stack in stacks.items()}
    rows = []
    for second, mine in losses.items():
        if second == "dense":
            continue
        found = estimate(draws.correlation(losses["dense"], mine))
        row: Row = {"behaviour": "text", "first": "dense", "second": second, "quantity": "token_loss_correlation"}
        rows.append(row | found.columns() | {"n": int(np.isfinite(mine).sum()), "seed": draws.seed})
    return rows
