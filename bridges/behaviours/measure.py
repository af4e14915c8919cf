"""Task loss of a behaviour: cross-entropy over the two candidate logits (Gao et al. 2025, section 2.2)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import softplus

from bridges.behaviours.encoded import EncodedPairs
from bridges.behaviours.pair import BehaviourError

SIDES = ("clean", "counterfactual")
MEASURES = ("loss", "accuracy", "logit_diff")


@torch.no_grad()
def two_way(logits_fn: Callable[[Tensor], Tensor], encoded: EncodedPairs, batch_size: int = 64) -> pd.DataFrame:
    """Ask a model for the two candidates of each prompt.

    Args:
        logits_fn: [B, T] token ids to [B, T, V] logits; causal, since prompts are padded on the right.
        encoded: n pairs.
        batch_size: prompts at a time; they are sorted by length, so that little is padded.

    Returns:
        2n rows, clean before counterfactual in each pair: behaviour, split, pair (its index), prompt ("clean"
        or "counterfactual"), template, logit_correct, logit_other, logit_diff (correct minus other), loss
        (-log of the two-way probability of the right token) and correct (whether logit_diff is positive).
    """
    ids, lengths = encoded.ids.flatten(0, 1), encoded.lengths.flatten()
    right, wrong = encoded.candidates.flatten(), encoded.candidates.flip(1).flatten()
    kept = torch.empty(len(ids), 2, dtype=torch.float64)
    for rows in torch.argsort(lengths, stable=True).split(batch_size):
        width = int(lengths[rows].max())
        logits = logits_fn(ids[rows, :width])
        if logits.shape[:2] != (len(rows), width):
            raise BehaviourError(f"logits_fn gave {tuple(logits.shape)} for ids {(len(rows), width)}.")
        at = torch.arange(len(rows), device=logits.device)
        last = logits[at, (lengths[rows] - 1).to(logits.device)]
        choice = torch.stack([right[rows], wrong[rows]], 1).to(logits.device)
        kept[rows] = last.gather(1, choice).to("cpu", torch.float64)
    return prompt_rows(encoded, kept)


def prompt_rows(encoded: EncodedPairs, logits: Tensor) -> pd.DataFrame:
    """The rows of `two_way` from the two candidates' logits.

    Args:
        encoded: n pairs.
        logits: [2n, 2] logit of the right and of the other candidate, clean before counterfactual in each pair.
    """
    kept = logits.to("cpu", torch.float64)
    if not kept.isfinite().all():
        raise BehaviourError(f"The model gave logits that are not finite on {encoded.behaviour!r}.")
    diff = kept[:, 0] - kept[:, 1]
    return pd.DataFrame(
        {
            "behaviour": encoded.behaviour,
            "split": encoded.split,
            "pair": np.repeat(np.arange(len(encoded)), 2),
            "prompt": list(SIDES) * len(encoded),
            "template": [p.template for p in encoded.pairs for _ in SIDES],
            "logit_correct": kept[:, 0].numpy(),
            "logit_other": kept[:, 1].numpy(),
            "logit_diff": diff.numpy(),
            "loss": softplus(-diff).numpy(),
            "correct": (diff > 0).numpy(),
        }
    )


def summarise(rows: pd.DataFrame, n_boot: int = 1000, seed: int = 0, level: float = 0.95) -> dict[str, float]:
    """Mean loss, accuracy and logit difference of the rows of `two_way`.

    Args:
        rows: of one behaviour, split and model.
        n_boot: resamples. Whole pairs are drawn, as the two prompts of a pair are not independent.
        seed: of the resampling.
        level: of the interval between percentiles.

    Returns:
        loss, accuracy and logit_diff, each also with ``_low`` and ``_high``, and n_pairs, n_prompts, n_boot,
        seed.
    """
    if rows.empty:
        raise BehaviourError("There are no rows to summarise.")
    per_pair = rows.assign(accuracy=rows["correct"].astype(float)).groupby("pair")[list(MEASURES)].mean().to_numpy()
    draws = np.random.default_rng(seed).integers(0, len(per_pair), (n_boot, len(per_pair)))
    tail = (1 - level) / 2
    low, high = np.quantile(per_pair[draws].mean(1), [tail, 1 - tail], axis=0)
    out: dict[str, float] = {}
    for i, name in enumerate(MEASURES):
        out[name] = float(per_pair[:, i].mean())
        out[f"{name}_low"], out[f"{name}_high"] = float(low[i]), float(high[i])
    return out | {"n_pairs": len(per_pair), "n_prompts": len(rows), "n_boot": n_boot, "seed": seed}
