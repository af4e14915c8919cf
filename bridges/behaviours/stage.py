"""What the models of a run can do: the tables ``suite`` and ``behaviours``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from bridges.behaviours.encoded import EncodedPairs, encode
from bridges.behaviours.measure import prompt_rows, summarise
from bridges.behaviours.pair import Behaviour, NotExpressible
from bridges.bridge import Bridges
from bridges.config import BehavioursConfig
from bridges.hybrid import keep_prefix
from bridges.stack import ResidualStack

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Expressed:
    """A behaviour in the tokens of the model at hand, or why there is none.

    Attributes:
        behaviour: which. train, heldout: its pairs, None where it cannot be expressed. reason: why, or a remark.
        reach: pairs of frames that are in neither split, None where there are none.
    """

    behaviour: Behaviour
    train: EncodedPairs | None
    heldout: EncodedPairs | None
    reason: str
    reach: EncodedPairs | None = None


# Pairs on which it is measured how far a circuit reaches beyond its behaviour's frames.
REACH_PAIRS = 64


def express(behaviour: Behaviour, tokenizer: PreTrainedTokenizerBase, pairs: int, seed: int) -> Expressed:
    """The splits of a behaviour, or the reason why this tokenizer has none; made once for every stage of a run."""
    made = _made.setdefault(tokenizer, {})
    # An entry keeps its behaviour, so that no other one can come to have its id.
    key = (id(behaviour), pairs, seed)
    if key not in made:
        made[key] = _express(behaviour, tokenizer, pairs, seed)
    return made[key]


# Gone with the tokenizer: a sweep in one process must not keep the prompts of every job.
_made: WeakKeyDictionary[PreTrainedTokenizerBase, dict[tuple[int, int, int], Expressed]] = WeakKeyDictionary()


def _express(behaviour: Behaviour, tokenizer: PreTrainedTokenizerBase, pairs: int, seed: int) -> Expressed:
    try:
        train, heldout = (encode(behaviour, tokenizer, split, pairs, seed) for split in ("train", "heldout"))  # type: ignore[arg-type]
    except NotExpressible as error:
        return Expressed(behaviour, None, None, str(error))
    try:
        reach = encode(behaviour, tokenizer, "reach", REACH_PAIRS, seed)
    except NotExpressible:
        reach = None
    notes = [f"{part.split}: {part.note}" for part in (train, heldout) if part.note]
    return Expressed(behaviour, train, heldout, "; ".join(notes), reach)


def aligned(pairs: EncodedPairs) -> Tensor:
    """Which pairs have two equally long prompts that end in the same token, ``bool [n]``."""
    return pairs.equal_length & pairs.shared_last


def suite_row(expressed: Expressed, suite: str) -> dict[str, object]:
    """The row of table ``suite``."""
    train, heldout = expressed.train, expressed.heldout
    row: dict[str, object] = {
        "behaviour": expressed.behaviour.name,
        "suite": suite,
        "description": expressed.behaviour.description,
        "expressible": heldout is not None,
        "reason": expressed.reason or None,
        "train_pairs": 0 if train is None else len(train),
        "heldout_pairs": 0 if heldout is None else len(heldout),
        "reach_pairs": 0 if expressed.reach is None else len(expressed.reach),
        "shared_last": float("nan") if heldout is None else float(aligned(heldout).double().mean()),
    }
    example = None if heldout is None else heldout.pairs[0]
    row |= {
        "clean": example and example.clean,
        "counterfactual": example and example.counterfactual,
        "answer": example and example.clean_token,
        "other": example and example.counterfactual_token,
    }
    return row


def _batches(encoded: EncodedPairs, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Prompts of similar length together: rows, ids ``[b, T]``, last positions ``[b]``, candidates ``[b, 2]``."""
    ids, lengths = encoded.ids.flatten(0, 1), encoded.lengths.flatten()
    choice = torch.stack([encoded.candidates.flatten(), encoded.candidates.flip(1).flatten()], 1)
    for rows in torch.argsort(lengths, stable=True).split(size):
        yield rows, ids[rows, : int(lengths[rows].max())], lengths[rows] - 1, choice[rows]


def _answers(stack: ResidualStack, h: Tensor, ids: Tensor, last: Tensor, choice: Tensor) -> Tensor:
    """Logits ``[b, 2]`` of the candidates from streams ``[b, T, d]`` at the last site; only those are unembedded."""
    at = torch.arange(len(h), device=h.device)
    logits = stack.unembed(h[at, last].unsqueeze(1), ids[at, last].unsqueeze(1))[:, 0]
    return logits.gather(1, choice)


@torch.no_grad()
def candidate_logits(
    encoded: EncodedPairs,
    dense: ResidualStack,
    sparse: ResidualStack,
    bridges: Bridges | None,
    device: torch.device,
    autocast: AbstractContextManager,
    batch: int = 64,
    bigram: Tensor | None = None,
) -> dict[tuple[str, int | None], Tensor]:
    """What every model answers: ``{(model, pair of sites): [2n, 2] logits of the right and the other candidate}``.

    Dense and sparse streams are computed once; all single crossings of a batch continue from them as one stacked run.

    Args:
        encoded: n pairs.
        bridges: whose crossings are measured, or None for the pure models alone.
        bigram: log-probabilities ``[V, V]`` of a bigram table, measured as one more model.
    """
    kept: dict[tuple[str, int | None], Tensor] = {}

    def put(key: tuple[str, int | None], rows: Tensor, value: Tensor) -> None:
        kept.setdefault(key, torch.empty(2 * len(encoded), 2, dtype=torch.float64))[rows] = value.double().cpu()

    with autocast:
        for rows, ids, last, choice in _batches(encoded, batch):
            ids, last, choice = ids.to(device), last.to(device), choice.to(device)
            d, s = dense.run(ids), sparse.run(ids)
            put(("dense", None), rows, _answers(dense, d.final[0], ids, last, choice))
            put(("sparse", None), rows, _answers(sparse, s.final[0], ids, last, choice))
            if bigram is not None:
                now = ids[torch.arange(len(ids), device=device), last]
                put(("bigram", None), rows, bigram[now].gather(1, choice))
            if bridges is None:
                continue
            up, down, prefix = [], [], bridges.constant_prefix
            for pair, bridge in zip(bridges.pairs, bridges, strict=True):
                h, own = d.sites[pair.dense], s.sites[pair.sparse]
                up.append((pair.sparse, keep_prefix(bridge.encode(h), own, prefix)))
                down.append((pair.dense, keep_prefix(bridge.decode(own), h, prefix)))
            for name, stack, entries in (("hybrid_d2s", sparse, up), ("hybrid_s2d", dense, down)):
                for i, h in stack.run_from(entries).final.items():
                    put((name, i), rows, _answers(stack, h, ids, last, choice))
    return kept


def behaviour_rows(
    encoded: EncodedPairs, logits: dict[tuple[str, int | None], Tensor], bootstrap: int, seed: int
) -> list[dict[str, object]]:
    """Rows of table ``behaviours`` from `candidate_logits`."""
    rows = []
    for (model, pair), values in logits.items():
        s = summarise(prompt_rows(encoded, values), bootstrap, seed)
        row: dict[str, object] = {
            "behaviour": encoded.behaviour,
            "split": encoded.split,
            "model": model,
            "bridge": pair,
        }
        for mine, theirs in (("loss", "loss"), ("accuracy", "accuracy"), ("logit_difference", "logit_diff")):
            row |= {f"{mine}{end}": s[f"{theirs}{end}"] for end in ("", "_low", "_high")}
        rows.append(row | {"n_pairs": len(encoded), "seed": seed})
    return rows


def measure_behaviour(
    behaviour: Behaviour,
    config: BehavioursConfig,
    dense: ResidualStack,
    sparse: ResidualStack,
    bridges: Bridges,
    tokenizer: PreTrainedTokenizerBase,
    *,
    bigram: Tensor | None,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager],
    bootstrap: int,
    seed: int,
) -> dict[str, list[dict[str, object]]]:
    """Rows of the tables ``suite`` and ``behaviours`` of one behaviour, on held-out pairs.

    Args:
        autocast: makes the precision that models are run in.
    """
    expressed = express(behaviour, tokenizer, config.pairs, seed)
    heldout, rows = expressed.heldout, []
    if heldout is not None:
        whole = candidate_logits(heldout, dense, sparse, None, device, autocast(), bigram=bigram)
        rows += behaviour_rows(heldout, whole, bootstrap, seed)
        part = heldout.take(range(min(config.hybrid_pairs, len(heldout))))
        crossed = candidate_logits(part, dense, sparse, bridges, device, autocast())
        rows += behaviour_rows(part, {k: v for k, v in crossed.items() if k[1] is not None}, bootstrap, seed)
    return {"suite": [suite_row(expressed, config.suite)], "behaviours": rows}
