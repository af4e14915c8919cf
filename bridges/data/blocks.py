"""Documents to blocks of tokens, and the batch of each step."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from bridges.config import DataConfig
from bridges.data.corpus import SPLITS, Document, mixed, read_files, standard_library
from bridges.data.idioms import documents as idiom_documents
from bridges.data.tokenizer import leading_token
from bridges.errors import DataError, in_brief

log = logging.getLogger(__name__)


@dataclass
class TokenBlocks:
    """A corpus as blocks, ``{split: int32 [blocks, context]}``.

    Attributes:
        blocks: per split.
        documents: number of documents per split.
        fingerprint: hash over all tokens; two runs with the same one have read the same text in the same tokens.
        skipped: what was left out, by reason, with counts.
    """

    blocks: dict[str, np.ndarray]
    documents: dict[str, int]
    fingerprint: str
    skipped: dict[str, int] = field(default_factory=dict)
    _epoch: tuple[int, int, np.ndarray] | None = field(default=None, repr=False)

    @property
    def context(self) -> int:
        return self.blocks["train"].shape[1]

    @property
    def constant_prefix(self) -> int:
        """Number of leading positions at which all blocks of all splits have the same token; at most context - 1."""
        first = self.blocks["train"][0]
        alike = np.ones(len(first) - 1, dtype=bool)
        for blocks in self.blocks.values():
            alike &= (blocks[:, :-1] == first[:-1]).all(0)
        return int(np.cumprod(alike).sum())

    def batch(self, step: int, size: int, seed: int) -> Tensor:
        """The training batch of one step, ids ``[size, context]``: a function of seed and step alone.

        Every epoch is a new permutation of all blocks, so that training can go on at any step without a stored state.
        """
        count = len(self.blocks["train"])
        rows = []
        for position in range(step * size, (step + 1) * size):
            epoch, index = divmod(position, count)
            if self._epoch is None or self._epoch[:2] != (seed, epoch):
                self._epoch = (seed, epoch, np.random.default_rng([seed, epoch]).permutation(count))
            rows.append(self._epoch[2][index])
        return torch.from_numpy(self.blocks["train"][rows]).long()

    def take(self, split: str, count: int) -> Tensor:
        """``count`` blocks spread evenly over a split, ids ``[≤ count, context]``."""
        blocks = self.blocks[split]
        index = np.unique(np.linspace(0, len(blocks) - 1, min(count, len(blocks))).round().astype(int))
        return torch.from_numpy(blocks[index]).long()


def read_documents(config: DataConfig, skipped: Counter[str] | None = None) -> Iterator[Document]:
    """The documents a data config names.

    Args:
        skipped: counts what is left out, by reason.

    Raises:
        DataError: there are none, or they cannot be read.
    """
    skipped = Counter() if skipped is None else skipped
    if config.source == "python":
        yield from standard_library()
    elif config.source == "tinypython":
        yield from mixed(
            [
                (0.5, standard_library()),
                (0.5, (Document(f"idioms/0/{i}", text) for i, text in enumerate(idiom_documents(60_000_000, 0)))),
            ]
        )
    elif config.source == "files":
        yield from _file_documents(config, skipped)
    elif config.source == "planted":
        from bridges.planted import world_named

        yield from world_named(config.path or "0").documents()
    else:
        yield from _hub_documents(config, skipped)


def _file_documents(config: DataConfig, skipped: Counter[str]) -> Iterator[Document]:
    path = Path(str(config.path)).expanduser()
    if not path.exists():
        raise DataError(f"data.path={config.path} does not exist.")
    if path.is_file():
        raise DataError(
            f"data.path={config.path} is a file. Text is split into training and held-out parts by document: give "
            "a folder of several files, and data.pattern='**/*.txt' for what they are called."
        )
    found = False
    for document in read_files(path, config.pattern, skipped=skipped):
        found = True
        yield document
    if not found:
        left_out = "".join(f" {count} files that match are {reason}." for reason, count in skipped.items())
        raise DataError(
            f"data.path={config.path} holds no text in files that match data.pattern={config.pattern!r}.{left_out}"
        )


def _hub_documents(config: DataConfig, skipped: Counter[str]) -> Iterator[Document]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise DataError("data.source=hub needs the extra package: pip install 'bridges-interp[hub]'.") from None
    path = str(config.path)
    local = Path(path).expanduser()
    # A document's name decides its split, which must not depend on how the way to a folder is written.
    path, prefix = (str(local), "rows") if local.exists() else (path, path)
    try:
        rows = load_dataset(path, config.subset, split="train", streaming=True)
        for i, row in enumerate(rows):
            text = _text_of(row, config)
            if text is None:
                skipped["null"] += 1
            else:
                yield Document(f"{prefix}/{i}", text)
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"Dataset {path!r} could not be read ({in_brief(error)}). "
            "Check its name and the network, or use data=files data.path=<folder>."
        ) from error


def _text_of(row: Mapping[str, Any], config: DataConfig) -> str | None:
    """The text of one row of a data set; None where it is null.

    Raises:
        DataError: there is no such column, or it holds something else than text.
    """
    if config.column not in row:
        raise DataError(f"data.column={config.column} is not in {config.path}. Columns: {', '.join(row)}.")
    text = row[config.column]
    if text is None or isinstance(text, str):
        return text
    texts = [name for name, value in row.items() if isinstance(value, str)]
    known = f"Columns of text: {', '.join(texts)}." if texts else "It has no column of text."
    raise DataError(
        f"data.column={config.column} of {config.path} holds values of type {type(text).__name__}, not text. {known}"
    )


def _limited(documents: Iterable[Document], max_chars: int | None) -> Iterator[Document]:
    taken = 0
    for document in documents:
        yield document
        taken += len(document.text)
        if max_chars is not None and taken >= max_chars:
            return


def token_blocks(config: DataConfig, tokenizer: PreTrainedTokenizerBase, context: int) -> TokenBlocks:
    """Read, split by document, tokenize and cut into blocks.

    Documents are joined with `leading_token` before each; a block may span several documents of the same split. Hub
    datasets are read until ``max_chars`` (100 MB where that is null).

    Raises:
        DataError: a split has no full block.
    """
    max_chars = config.max_chars
    if config.source == "hub" and max_chars is None:
        max_chars = 100_000_000
    by_split: dict[str, list[str]] = {split: [] for split in SPLITS}
    skipped: Counter[str] = Counter()
    documents = list(_limited(read_documents(config, skipped), max_chars))
    for document in documents:
        by_split[document.split].append(document.text)
    left_out = ", ".join(f"{count:,} × {reason}" for reason, count in skipped.items())
    if skipped:
        log.warning("Left out of the text of data.path=%s: %s.", config.path, left_out)
    first = leading_token(tokenizer)
    lead = [] if first is None else [first]
    blocks = {}
    digest = hashlib.blake2b(digest_size=16)
    for split, texts in by_split.items():
        parts = [np.zeros(0, dtype=np.int32)]
        for start in range(0, len(texts), 256):
            encoded = tokenizer(texts[start : start + 256], add_special_tokens=False, verbose=False)["input_ids"]
            parts.extend(np.array(lead + ids, dtype=np.int32) for ids in encoded)
        tokens = np.concatenate(parts)
        count = len(tokens) // context
        if count == 0:
            raise DataError(
                f"The {split} split has {len(texts)} documents with {len(tokens)} tokens, less than one block of "
                f"{context}. Give more text (data.path, data.max_chars) or a smaller data.context."
                + (f" Left out: {left_out}." if skipped else "")
            )
        blocks[split] = tokens[: count * context].reshape(count, context)
        digest.update(blocks[split].tobytes())
    counts = {split: len(texts) for split, texts in by_split.items()}
    return TokenBlocks(blocks, counts, digest.hexdigest(), dict(skipped))


def bigram_log_probabilities(blocks: np.ndarray, vocab_size: int, smoothing: float = 4.0) -> Tensor:
    """log P(next | current) from counts, ``[V, V]``, backed off to the smoothed unigram.

    Args:
        blocks: token ids ``[n, context]``.
        vocab_size: V.
        smoothing: how many counts the unigram is worth in each row.
    """
    current, following = blocks[:, :-1].ravel().astype(np.int64), blocks[:, 1:].ravel().astype(np.int64)
    unigram = np.bincount(following, minlength=vocab_size) + 0.5
    unigram = unigram / unigram.sum()
    counts = np.bincount(current * vocab_size + following, minlength=vocab_size**2).reshape(vocab_size, vocab_size)
    rows = counts.sum(1, keepdims=True)
    return torch.from_numpy(np.log((counts + smoothing * unigram) / (rows + smoothing))).float()
