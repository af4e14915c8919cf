"""A narrow text: the prompts of some behaviours with their answers, and perhaps ordinary text beside them.

Sparse pretraining on all text takes far more compute than the dense model did. Who asks about some behaviours can train
on their own distribution instead (the paper's outlook). What is judged on is never trained on: prompts of the split
"heldout" are the test split here, and those of "reach" are in no split.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

import numpy as np
from transformers import PreTrainedTokenizerBase

from bridges.behaviours.encoded import EncodedPairs, encode
from bridges.behaviours.from_file import FileBehaviour
from bridges.behaviours.pair import SPLITS, Behaviour, NotExpressible
from bridges.behaviours.stage import express
from bridges.config import DataConfig
from bridges.data.blocks import TokenBlocks
from bridges.data.reading import read_documents
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
    return [prompt + answer for prompt, answer in split_prompts(behaviour, split, count, seed)]


def split_prompts(behaviour: Behaviour, split: str, count: int, seed: int) -> list[tuple[str, str]]:
    """Some prompts of a split, each with the text that goes on with its answer; fewer where there are fewer."""
    return list(islice(_prompts(behaviour, split, seed), count))


def _prompts(behaviour: Behaviour, split: str, seed: int) -> Iterable[tuple[str, str]]:
    for draft in behaviour.drafts(random.Random(f"{behaviour.name} {split} {seed}"), split):  # type: ignore[arg-type]
        yield draft.clean, draft.clean_answer.text
        yield draft.counterfactual, draft.counterfactual_answer.text


def tokens_needed(
    config: DataConfig, behaviours: Mapping[str, Behaviour], tokenizer: PreTrainedTokenizerBase, seed: int, pairs: int
) -> list[int]:
    """Ids of all tokens that prompts and answers of these behaviours are made of, and their ordinary text, rising.

    All of the text that is trained on and all pairs that are judged are among them, so that a narrowed tokenizer gives
    the same ones. Every split is looked at: a frame that is kept for *reach* is never trained on, but it must be
    readable.

    Args:
        pairs: that are measured of each behaviour's splits.

    Raises:
        DataError: see `prompt_blocks`.
    """
    text = prompt_blocks(config, behaviours, tokenizer, seed)
    found = {int(i) for rows in text.blocks.values() for i in np.unique(rows)}
    for drawn in _measured(behaviours, tokenizer, pairs, seed):
        found.update(drawn.ids.unique().tolist(), drawn.candidates.unique().tolist())
    for behaviour in behaviours.values():
        for split in SPLITS:
            # Each pair of a file that a user wrote has to be readable.
            count = sys.maxsize if behaviour.strict else _LOOKED_AT * config.prompts
            texts = split_texts(behaviour, split, count, seed)
            for start in range(0, len(texts), 512):
                some = texts[start : start + 512]
                for ids in tokenizer(some, add_special_tokens=False, verbose=False)["input_ids"]:
                    found.update(ids)
    lead = leading_token(tokenizer)
    special = (lead, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id)
    return sorted(found | {int(i) for i in special if i is not None})


def longest_prompt(
    behaviours: Mapping[str, Behaviour], tokenizer: PreTrainedTokenizerBase, pairs: int, seed: int
) -> int:
    """Tokens of the longest prompt among the pairs that are measured of each behaviour's splits; 0 without any."""
    return max((int(drawn.lengths.max()) for drawn in _measured(behaviours, tokenizer, pairs, seed)), default=0)


def _measured(
    behaviours: Mapping[str, Behaviour], tokenizer: PreTrainedTokenizerBase, pairs: int, seed: int
) -> Iterator[EncodedPairs]:
    for behaviour in behaviours.values():
        shown = express(behaviour, tokenizer, pairs, seed)
        yield from (drawn for drawn in (shown.train, shown.heldout, shown.reach) if drawn is not None)


def prompt_blocks(
    config: DataConfig, behaviours: Mapping[str, Behaviour], tokenizer: PreTrainedTokenizerBase, seed: int
) -> TokenBlocks:
    """The training text of a narrow run: rows of any length, each a prompt and the token that answers it.

    A behaviour that the tokenizer cannot express is left out, as it is wherever it is measured.

    Raises:
        DataError: none of the behaviours can be expressed, or ordinary text is wanted and there is none.
    """
    rows: dict[str, list[list[int]]] = {"train": [], "validation": [], "test": []}
    left_out: Counter[str] = Counter()
    documents: dict[str, int] = {}
    reserved = _reserved(behaviours)
    for behaviour in behaviours.values():
        try:
            shown = encode(behaviour, tokenizer, "train", max(64, config.prompts // 2), seed)
            judged = _rows(encode(behaviour, tokenizer, "heldout", max(64, config.prompts // 8), seed))
        except NotExpressible:
            left_out["behaviours that this tokenizer cannot express"] += 1
            continue
        texts = [text for pair in shown.pairs for text in (pair.clean, pair.counterfactual)]
        for i, text, row in zip(_shuffled(len(texts), seed), texts, _rows(shown), strict=True):
            if text not in reserved:
                rows["train" if i % _VALIDATION else "validation"].append(row)
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
    return _packed(rows, answered, documents, dict(left_out), tokenizer)


def _reserved(behaviours: Mapping[str, Behaviour]) -> set[str]:
    """Prompts that a user's file keeps for judging: another behaviour of that file may have them among its training
    pairs. Grammars give a prompt to one split by its text, whatever the behaviour."""
    drafts = [
        draft
        for behaviour in behaviours.values()
        if isinstance(behaviour, FileBehaviour)
        for split in SPLITS
        if split != "train"
        for draft in behaviour.drafts(random.Random(0), split)
    ]
    return {text for draft in drafts for text in (draft.clean, draft.counterfactual)}


def _shuffled(count: int, seed: int) -> list[int]:
    """Numbers of rows in a random order: frames take turns, and each sixteenth row would be of few of them."""
    return np.random.default_rng((seed, count)).permutation(count).tolist()


def _rows(pairs: EncodedPairs) -> list[list[int]]:
    """Each prompt with its answer."""
    return [
        [*pairs.ids[i, side, : pairs.lengths[i, side]].tolist(), int(pairs.candidates[i, side])]
        for i in range(len(pairs))
        for side in (0, 1)
    ]


def _ordinary_rows(config: DataConfig, tokenizer: PreTrainedTokenizerBase, count: int, split: str) -> list[list[int]]:
    """Beginnings of documents and what follows them, ``data.context`` tokens each; none where only prompts are wanted.

    Args:
        count: rows wanted at most. split: whose documents.
    """
    if config.focus >= 1 or not count:
        return []
    lead = leading_token(tokenizer)
    start = [] if lead is None else [lead]
    size = config.context - len(start)
    rows: list[list[int]] = []
    for document in read_documents(config):
        if document.split != split:
            continue
        ids = tokenizer(document.text[:_DOCUMENT], add_special_tokens=False, verbose=False)["input_ids"]
        rows += [start + ids[i : i + size] for i in range(0, len(ids) - size + 1, size)]
        if len(rows) >= count:
            break
    if not rows:
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
