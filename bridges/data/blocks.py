"""Documents to blocks of tokens, and the batch of each step."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from bridges.config import DataConfig
from bridges.data.corpus import SPLITS
from bridges.data.reading import limited, read_documents
from bridges.data.tokenizer import leading_token
from bridges.errors import DataError

log = logging.getLogger(__name__)

# Documents that are tokenized together, and rows that are looked at together: text may be larger than memory.
_TOGETHER, _ROWS = 256, 1 << 14


@dataclass
class TokenBlocks:
    """A text as rows of tokens, ``{split: int32 [rows, context]}``.

    Attributes:
        blocks: per split.
        documents: number of documents per split.
        fingerprint: hash over all tokens; two runs with the same one have read the same text in the same tokens.
        skipped: what was left out, by reason, with counts.
        lengths: ``{split: int [rows]}``, tokens of each row, what stands behind them being padding; None: all are full.
        answered: ``{split: bool [rows]}``, rows that are a behaviour's prompt and its answer, the last token; None:
            none is.
    """

    blocks: dict[str, np.ndarray]
    documents: dict[str, int]
    fingerprint: str
    skipped: dict[str, int] = field(default_factory=dict)
    lengths: dict[str, np.ndarray] | None = None
    answered: dict[str, np.ndarray] | None = None
    _epoch: tuple[tuple[int, ...], list[np.ndarray]] | None = field(default=None, repr=False)

    @property
    def context(self) -> int:
        """Tokens of the longest row."""
        return self.blocks["train"].shape[1]

    @property
    def mean_length(self) -> float:
        """Tokens of a training row on average."""
        return self.context if self.lengths is None else float(self.lengths["train"].mean())

    @property
    def constant_prefix(self) -> int:
        """Number of leading positions at which all rows of all splits have the same token; less than any row has."""
        shortest = self.context if self.lengths is None else min(int(n.min()) for n in self.lengths.values())
        first = self.blocks["train"][0][: shortest - 1]
        for blocks in self.blocks.values():
            for start in range(0, len(blocks), _ROWS):
                # A few rows leave next to nothing to look at in the others.
                alike = (blocks[start : start + _ROWS, : len(first)] == first).all(0)
                first = first[: int(np.cumprod(alike).sum())]
        return len(first)

    @cached_property
    def _alike(self) -> list[np.ndarray]:
        """Training rows of one length that are of one kind, prompts or ordinary text."""
        assert self.lengths is not None
        lengths = self.lengths["train"].astype(int)
        kind = np.zeros_like(lengths) if self.answered is None else self.answered["train"].astype(int)
        key = 2 * lengths + kind
        return [np.flatnonzero(key == k) for k in np.unique(key)]

    def rows(self, step: int, size: int, seed: int) -> np.ndarray:
        """The training rows of one step, ``[size]``: a function of seed and step alone, all of one length and kind.

        Every epoch is a new permutation, so that training can go on at any step without a stored state.
        """
        if self.lengths is None:
            count = len(self.blocks["train"])
            rows = []
            for position in range(step * size, (step + 1) * size):
                epoch, index = divmod(position, count)
                rows.append(self._order((seed, epoch), lambda rng: [rng.permutation(count)])[0][index])
            return np.array(rows)
        per_epoch = sum(-(-len(group) // size) for group in self._alike)
        epoch, index = divmod(step, per_epoch)

        def batches(rng: np.random.Generator) -> list[np.ndarray]:
            made = []
            for group in self._alike:
                mixed = rng.permutation(group)
                # The last batch of a length is filled up from its beginning.
                mixed = np.resize(mixed, -(-len(group) // size) * size)
                made += list(mixed.reshape(-1, size))
            return [made[i] for i in rng.permutation(len(made))]

        return self._order((seed, epoch, size), batches)[index]

    def _order(self, key: tuple[int, ...], make: Callable[[np.random.Generator], list[np.ndarray]]) -> list[np.ndarray]:
        if self._epoch is None or self._epoch[0] != key:
            self._epoch = (key, make(np.random.default_rng(key[:2])))
        return self._epoch[1]

    def batch(self, step: int, size: int, seed: int) -> Tensor:
        """The training batch of one step, ids ``[size, T]``; see `rows`."""
        return self.ids("train", self.rows(step, size, seed))

    def answers(self, step: int, size: int, seed: int) -> bool:
        """Whether the rows of a step are prompts with their answers."""
        return self.answered is not None and bool(self.answered["train"][self.rows(step, size, seed)].all())

    def ids(self, split: str, rows: np.ndarray) -> Tensor:
        """Rows of one length as tokens without padding, ``[n, T]``."""
        width = self.context if self.lengths is None else int(self.lengths[split][rows].max())
        return torch.from_numpy(self.blocks[split][rows, :width]).long()

    def _spread(self, split: str, count: int) -> np.ndarray:
        total = len(self.blocks[split])
        return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int))

    def take(self, split: str, count: int) -> Tensor:
        """``count`` rows spread evenly over a split, padding included, ids ``[≤ count, context]``."""
        return torch.from_numpy(self.blocks[split][self._spread(split, count)]).long()

    def lengths_of(self, split: str, count: int) -> Tensor:
        """Tokens of each row that `take` gives, ``[≤ count]``."""
        spread = self._spread(split, count)
        full = np.full(len(spread), self.context)
        return torch.from_numpy(full if self.lengths is None else self.lengths[split][spread]).long()

    def chunk_rows(self, split: str, count: int, size: int) -> list[np.ndarray]:
        """``count`` rows spread evenly over a split, in groups of at most ``size`` rows of one length, ``[≤ size]``."""
        spread = self._spread(split, count)
        if self.lengths is None:
            return [spread[i : i + size] for i in range(0, len(spread), size)]
        lengths = self.lengths[split][spread]
        alike = [spread[lengths == n] for n in np.unique(lengths)]
        return [group[i : i + size] for group in alike for i in range(0, len(group), size)]

    def chunks(self, split: str, count: int, size: int) -> list[Tensor]:
        """The same rows as tokens without padding, ids ``[≤ size, T]``."""
        return [self.ids(split, rows) for rows in self.chunk_rows(split, count, size)]

    def bigram(self, vocab_size: int) -> Tensor:
        """log P(next | current) of the training rows, ``[V, V]``; see `bigram_log_probabilities`."""
        return bigram_log_probabilities(
            self.blocks["train"], vocab_size, lengths=None if self.lengths is None else self.lengths["train"]
        )


# Ids ``[n, T]``, or batches of such where rows differ in length.
Text = Tensor | Sequence[Tensor]


def in_batches(text: Text, size: int) -> list[Tensor]:
    """Token ids in batches of at most ``size`` rows, ``[≤ size, T]`` each."""
    return [some for rows in ([text] if isinstance(text, Tensor) else text) for some in rows.split(size)]


class _Split:
    """One split of a text on its way to blocks: tokens in memory, or in a file.

    Args:
        encode: texts to the tokens of each. file: to be written; None: tokens stay in memory.
    """

    def __init__(self, encode: Callable[[list[str]], list[np.ndarray]], file: Path | None):
        self.encode, self.file = encode, file
        self.waiting: list[str] = []
        self.parts: list[np.ndarray] = []
        self.documents = self.tokens = 0
        if file is not None:
            file.write_bytes(b"")

    def add(self, text: str) -> None:
        self.documents += 1
        self.waiting.append(text)
        if len(self.waiting) == _TOGETHER:
            self.flush()

    def flush(self) -> None:
        if not self.waiting:
            return
        found = np.concatenate(self.encode(self.waiting))
        self.waiting, self.tokens = [], self.tokens + len(found)
        if self.file is None:
            self.parts.append(found)
            return
        with self.file.open("ab") as out:
            found.tofile(out)

    def blocks(self, context: int) -> np.ndarray:
        """All of its whole blocks, ``int32 [rows, context]``; those in a file are read as they are needed."""
        count = self.tokens // context
        if self.file is not None and count:
            return np.memmap(self.file, np.int32, "r", shape=(count, context))
        tokens = np.concatenate([np.zeros(0, np.int32), *self.parts])
        return tokens[: count * context].reshape(count, context)


def token_blocks(
    config: DataConfig, tokenizer: PreTrainedTokenizerBase, context: int, place: Path | None = None
) -> TokenBlocks:
    """Read, split by document, tokenize and cut into blocks.

    Documents are joined with `leading_token` before each; a block may span several documents of the same split. Hub
    datasets are read until ``max_chars`` (100 MB where that is null).

    Args:
        place: an empty folder that tokens are written to, ``<split>.bin`` each; None: they stay in memory.

    Raises:
        DataError: a split has no full block.
    """
    max_chars = config.max_chars
    if config.source == "hub" and max_chars is None:
        max_chars = 100_000_000
    first = leading_token(tokenizer)
    lead = [] if first is None else [first]

    def encode(texts: list[str]) -> list[np.ndarray]:
        encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        return [np.array(lead + ids, dtype=np.int32) for ids in encoded]

    splits = {split: _Split(encode, None if place is None else place / f"{split}.bin") for split in SPLITS}
    skipped: Counter[str] = Counter()
    for document in limited(read_documents(config, skipped), max_chars):
        splits[document.split].add(document.text)
    left_out = ", ".join(f"{count:,} × {reason}" for reason, count in skipped.items())
    if skipped:
        log.warning("Left out of the text of data.path=%s: %s.", config.path, left_out)
    blocks = {}
    for name, split in splits.items():
        split.flush()
        blocks[name] = split.blocks(context)
        if not len(blocks[name]):
            raise DataError(
                f"The {name} split has {split.documents} documents with {split.tokens} tokens, less than one block of "
                f"{context}. Give more text (data.path, data.max_chars) or a smaller data.context."
                + (f" Left out: {left_out}." if skipped else "")
            )
    return TokenBlocks(blocks, {n: split.documents for n, split in splits.items()}, _digest(blocks), dict(skipped))


def _digest(blocks: Mapping[str, np.ndarray]) -> str:
    """The fingerprint of a text."""
    digest = hashlib.blake2b(digest_size=16)
    for rows in blocks.values():
        for start in range(0, len(rows), _ROWS):
            digest.update(rows[start : start + _ROWS].tobytes())
    return digest.hexdigest()


def bigram_log_probabilities(
    blocks: np.ndarray, vocab_size: int, smoothing: float = 4.0, lengths: np.ndarray | None = None
) -> Tensor:
    """log P(next | current) from counts, ``[V, V]``, backed off to the smoothed unigram.

    Args:
        blocks: token ids ``[n, context]``.
        vocab_size: V.
        smoothing: how many counts the unigram is worth in each row.
        lengths: tokens of each row ``[n]``, what is behind them being padding; None: all of them.
    """
    size = vocab_size**2
    counts = np.zeros(size, dtype=np.int64)
    for start in range(0, len(blocks), _ROWS):
        some = blocks[start : start + _ROWS].astype(np.int64)
        pairs = some[:, :-1] * vocab_size + some[:, 1:]
        if lengths is not None:
            pairs = pairs[np.arange(1, some.shape[1]) < lengths[start : start + _ROWS, None]]
        counts += np.bincount(pairs.ravel(), minlength=size)
    table = counts.reshape(vocab_size, vocab_size)
    unigram = table.sum(0) + 0.5
    unigram = unigram / unigram.sum()
    rows = table.sum(1, keepdims=True)
    return torch.from_numpy(np.log((table + smoothing * unigram) / (rows + smoothing))).float()
