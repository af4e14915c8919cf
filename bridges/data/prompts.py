"""A narrow text: the prompts of some behaviours with their answers, and perhaps ordinary text beside them.

Sparse pretraining on all text takes far more compute than the dense model did. Who asks about some behaviours can train
on their own distribution instead (the paper's outlook). What is judged on is never trained on: prompts of the split
"heldout" are the test split here, and those of "reach" are in no split.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Mapping
from itertools import islice

import numpy as np
from transformers import PreTrainedTokenizerBase

from bridges.behaviours.encoded import EncodedPairs, encode
from bridges.behaviours.pair import SPLITS, Behaviour, NotExpressible
from bridges.config import DataConfig
from bridges.data.blocks import TokenBlocks, read_documents
from bridges.data.tokenizer import leading_token
from bridges.errors import DataError

# One prompt in so many of the training split is kept for validation.
_VALIDATION = 16
# Draws of every split of a behaviour that are searched for the tokens it needs, per prompt that is trained on.
_LOOKED_AT = 3
# Characters of each ordinary document that are read.
_DOCUMENT = 4000


def sample_texts(behaviours: Mapping[str, Behaviour], count: int, seed: int) -> list[str]:
    """Some prompts with their answers as text, behaviours taking turns."""
    each = -(-count // max(1, len(behaviours)))
    texts = [split_texts(behaviour, "train", each, seed) for behaviour in behaviours.values()]
    return [text for turn in zip(*texts, strict=False) for text in turn][:count]


def split_texts(behaviour: Behaviour, split: str, count: int, seed: int) -> list[str]:
    """Some prompts of a split with their answers as text; fewer where there are fewer."""
    return list(islice(_texts(behaviour, split, seed), count))


def _texts(behaviour: Behaviour, split: str, seed: int) -> Iterable[str]:
    for draft in behaviour.drafts(random.Random(f"{behaviour.name} {split} {seed}"), split):  # type: ignore[arg-type]
        yield draft.clean + draft.clean_answer.text
        yield draft.counterfactual + draft.counterfactual_answer.text


def tokens_needed(
    config: DataConfig, behaviours: Mapping[str, Behaviour], tokenizer: PreTrainedTokenizerBase, seed: int
) -> list[int]:
    """Ids of all tokens that prompts and answers of these behaviours are made of, and their ordinary text, rising.

    Every split is looked at: a frame that is kept for *reach* is never trained on, but it must be readable.
    """
    found: set[int] = set()
    for behaviour in behaviours.values():
        for split in SPLITS:
            texts = split_texts(behaviour, split, _LOOKED_AT * config.prompts, seed)
            for start in range(0, len(texts), 512):
                some = texts[start : start + 512]
                for ids in tokenizer(some, add_special_tokens=False, verbose=False)["input_ids"]:
                    found.update(ids)
    for row in _ordinary_rows(config, tokenizer, config.prompts * len(behaviours), None):
        found.update(row)
    lead = leading_token(tokenizer)
    special = (lead, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id)
    return sorted(found | {int(i) for i in special if i is not None})


def prompt_blocks(
    config: DataConfig, behaviours: Mapping[str, Behaviour], tokenizer: PreTrainedTokenizerBase, seed: int
) -> TokenBlocks:
    """The training text of a narrow run: rows of any length, each a prompt and the token that answers it.

    A behaviour that the tokenizer cannot express is left out, as it is wherever it is measured.

    Raises:
        DataError: none of the behaviours can be expressed, or ordinary text is wanted and there is none.
    """
    rows: dict[str, list[list[int]]] = {"train": [], "validation": [], "test": []}
    left_out: dict[str, int] = {}
    documents: dict[str, int] = {}
    for behaviour in behaviours.values():
        try:
            shown = _rows(encode(behaviour, tokenizer, "train", max(64, config.prompts // 2), seed))
            judged = _rows(encode(behaviour, tokenizer, "heldout", max(64, config.prompts // 8), seed))
        except NotExpressible:
            left_out["behaviours that this tokenizer cannot express"] = (
                left_out.get("behaviours that this tokenizer cannot express", 0) + 1
            )
            continue
        rows["train"] += [row for i, row in enumerate(shown) if i % _VALIDATION]
        rows["validation"] += shown[::_VALIDATION]
        rows["test"] += judged
    if not rows["train"]:
        raise DataError(
            "data.focus: this tokenizer expresses none of the behaviours that are to be trained on. Choose others with "
            "behaviours= or behaviours.names."
        )
    answered = {split: [True] * len(some) for split, some in rows.items()}
    for split, some in rows.items():
        wanted = round(len(some) * (1 - config.focus) / config.focus)
        more = _ordinary_rows(config, tokenizer, wanted, split)
        documents[split] = len(some) + len(more)
        some += more
        answered[split] += [False] * len(more)
    return _packed(rows, answered, documents, left_out, tokenizer)


def _rows(pairs: EncodedPairs) -> list[list[int]]:
    """Each prompt with its answer."""
    return [
        [*pairs.ids[i, side, : pairs.lengths[i, side]].tolist(), int(pairs.candidates[i, side])]
        for i in range(len(pairs))
        for side in (0, 1)
    ]


def _ordinary_rows(
    config: DataConfig, tokenizer: PreTrainedTokenizerBase, count: int, split: str | None
) -> list[list[int]]:
    """Beginnings of documents and what follows them, ``data.context`` tokens each; none where only prompts are wanted.

    Args:
        count: rows wanted at most. split: whose documents; None for all.
    """
    if config.focus >= 1 or not count:
        return []
    lead = leading_token(tokenizer)
    start = [] if lead is None else [lead]
    size = config.context - len(start)
    rows: list[list[int]] = []
    for document in read_documents(config):
        if split is not None and document.split != split:
            continue
        ids = tokenizer(document.text[:_DOCUMENT], add_special_tokens=False, verbose=False)["input_ids"]
        rows += [start + ids[i : i + size] for i in range(0, len(ids) - size + 1, size)]
        if len(rows) >= count:
            break
    if split is not None and not rows:
        raise DataError(f"data.focus={config.focus:g}: data.source={config.source} has no text of the {split} split.")
    return rows[:count]


def _packed(
    rows: Mapping[str, list[list[int]]],
    answered: Mapping[str, list[bool]],
    documents: dict[str, int],
    left_out: dict[str, int],
    tokenizer: PreTrainedTokenizerBase,
) -> TokenBlocks:
    width = max(len(row) for some in rows.values() for row in some)
    lead = leading_token(tokenizer)
    pad = 0 if lead is None else lead
    blocks, lengths = {}, {}
    digest = hashlib.blake2b(digest_size=16)
    for split, some in rows.items():
        padded = np.full((len(some), width), pad, dtype=np.int32)
        for i, row in enumerate(some):
            padded[i, : len(row)] = row
        blocks[split], lengths[split] = padded, np.array([len(row) for row in some])
        digest.update(padded.tobytes() + lengths[split].tobytes())
    kinds = {split: np.array(some) for split, some in answered.items()}
    return TokenBlocks(blocks, documents, digest.hexdigest(), left_out, lengths=lengths, answered=kinds)
