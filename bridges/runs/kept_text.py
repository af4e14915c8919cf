"""Text that is tokenized once, by one process, and read from a file by all of them and ever after."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from bridges.config import DataConfig
from bridges.data.blocks import TokenBlocks, token_blocks
from bridges.data.tokenizer import leading_token
from bridges.storage.folder import read_json, whole_folder

ABOUT = "text.json"
# Seconds between two looks whether another process has made the files.
_WAIT = 1.0


def _key(config: DataConfig, tokenizer: PreTrainedTokenizerBase, context: int) -> str:
    """What the tokens of a text depend on, as a short name."""
    vocabulary = sorted(tokenizer.get_vocab().items())
    said = [dataclasses.asdict(config), context, leading_token(tokenizer), vocabulary]
    return hashlib.blake2b(json.dumps(said).encode(), digest_size=8).hexdigest()


def kept_blocks(
    config: DataConfig, tokenizer: PreTrainedTokenizerBase, context: int, folder: Path, write: bool = True
) -> TokenBlocks:
    """The blocks of `token_blocks`, read from files as they are needed: neither a text nor its tokens have to fit into
    memory, and a run that is gone on with does not read the text again.

    Args:
        folder: of the files. write: whether this process makes them where they are missing; another one waits.

    Raises:
        DataError: the text cannot be read. CheckpointError: what is kept is damaged.
    """
    place = folder / _key(config, tokenizer, context)
    while not place.is_dir():
        if write:
            with whole_folder(place) as made:
                data = token_blocks(config, tokenizer, context, made)
                about = {name: getattr(data, name) for name in ("documents", "fingerprint", "skipped")}
                about["rows"] = {split: len(rows) for split, rows in data.blocks.items()}
                (made / ABOUT).write_text(json.dumps(about), encoding="utf-8")
        else:
            # No barrier: a text of billions of tokens takes longer than processes wait for each other.
            time.sleep(_WAIT)
    about = read_json(place / ABOUT)
    blocks: dict[str, np.ndarray] = {
        split: np.memmap(place / f"{split}.bin", np.int32, "r", shape=(rows, context))
        for split, rows in about.pop("rows").items()
    }
    return TokenBlocks(blocks, **about)
