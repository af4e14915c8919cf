"""How far a narrow pair of models reaches: KL on the prompts it was trained on, on others, and on ordinary text.

Shapes: rows of T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from bridges.data.tokenizer import leading_token, vocabulary_size
from bridges.fidelity.hybrids import CPU, bootstrap_interval
from bridges.losses import Reference, head_values, kl_from_reference
from bridges.stack import ResidualStack

# Rows of each kind that are measured, and their tokens at most.
ROWS, TOKENS = 128, 32


@dataclass(frozen=True)
class Rows:
    """Texts of one kind as far as the model's vocabulary reads them.

    Attributes:
        ids: rows ``[1, T]``, each up to the first token that the model does not know. known: share of all tokens that
            it knows.
    """

    ids: list[Tensor]
    known: float


def readable(texts: Iterable[tuple[str, str]], tokenizer: PreTrainedTokenizerBase, limit: int = TOKENS) -> Rows:
    """Texts in tokens, each cut before the first token that a narrowed model does not know.

    Args:
        texts: prompts and what follows them, of which the first token counts, the answer: training ends there too.
        limit: tokens of each at most.
    """
    lead, size = leading_token(tokenizer), vocabulary_size(tokenizer)
    start = [] if lead is None else [lead]
    rows, seen, inside = [], 0, 0
    for prompt, answer in texts:
        both = [prompt, prompt + answer]
        ids, whole = tokenizer(both, add_special_tokens=False, verbose=False)["input_ids"]
        ids = whole[: len(ids) + 1][:limit]
        outside = [n for n, i in enumerate(ids) if size is not None and i >= size]
        seen, inside = seen + len(ids), inside + len(ids) - len(outside)
        kept = ids[: outside[0]] if outside else ids
        if len(kept) > 1:
            rows.append(torch.tensor([start + kept]))
    return Rows(rows, inside / max(1, seen))


@torch.no_grad()
def scope_rows(
    texts: Mapping[str, Rows],
    dense: ResidualStack,
    sparse: ResidualStack,
    *,
    bigram: Tensor | None,
    skip: int,
    bootstrap: int,
    seed: int,
    device: torch.device = CPU,
    autocast: AbstractContextManager | None = None,
) -> list[dict[str, Any]]:
    """Rows of table ``scope``: KL(dense ‖ sparse) on texts of each kind, a bigram table's beside it.

    Args:
        texts: by kind. bigram: log-probabilities ``[V, V]`` counted on the training text, or None.
        skip: leading positions that are the same everywhere and count nowhere.
    """
    found = []
    with autocast or nullcontext():
        for kind, some in texts.items():
            by_length: dict[int, list[Tensor]] = {}
            for ids in some.ids:
                if ids.shape[1] > skip:
                    by_length.setdefault(ids.shape[1], []).append(ids)
            parts = [_kl(torch.cat(rows).to(device), dense, sparse, bigram, skip) for rows in by_length.values()]
            each = torch.cat(parts).numpy() if parts else np.zeros((0, 2))
            row: dict[str, Any] = {"text": kind, "known": some.known}
            for i, name in enumerate(("kl", "kl_bigram")):
                there = len(each) > 0 and not np.isnan(each[:, i]).any()
                interval = bootstrap_interval(each[:, i], bootstrap, seed) if there else (float("nan"),) * 3
                row |= dict(zip((name, f"{name}_low", f"{name}_high"), interval, strict=True))
            found.append(row | {"n_sequences": len(each)})
    return found


def _kl(ids: Tensor, dense: ResidualStack, sparse: ResidualStack, bigram: Tensor | None, skip: int) -> Tensor:
    """Mean KL of the sparse model and of the table over the positions of each row, ``[B, 2]``; NaN without a table."""
    ends = [stack.run_segment(stack.embed(ids), 0, stack.n_sublayers)[:, skip:] for stack in (dense, sparse)]
    there = ids[:, skip:]
    kl = head_values(sparse, [ends[1]], there, Reference(dense, ends[0])).kl
    assert kl is not None
    own = kl[0].mean(1)
    if bigram is None:
        table = torch.full_like(own, float("nan"))
    else:
        table = kl_from_reference(dense.unembed(ends[0], there).float().log_softmax(-1), bigram[there]).mean(1)
    return torch.stack([own, table], 1).double().cpu()
