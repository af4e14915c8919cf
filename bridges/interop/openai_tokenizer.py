"""``tinypython_2k``, the tokenizer of OpenAI's ``circuit_sparsity`` models, as a fast tokenizer of transformers."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from bridges.data.tokenizer import END_OF_TEXT, PRE_TOKEN
from bridges.dense.registry import register_loader
from bridges.errors import CheckpointError, ModelError, in_brief
from bridges.interop.openai import is_openai_folder, load_openai
from bridges.sparse import SparseTransformer

ENCODER_FILE, MERGES_FILE = "encoder.json", "vocab.bpe"
# Where the vocabulary itself has no end-of-text token.
END_OF_TEXT_ID = 2047


@register_loader
def load_released(name: str, dtype: torch.dtype) -> tuple[SparseTransformer, PreTrainedTokenizerBase] | None:
    """A checkpoint of this format as a frozen stack with its tokenizer; None where the folder holds none."""
    if not is_openai_folder(name):
        return None
    released = load_openai(name).requires_grad_(False)
    return nn.Module.to(released, dtype), load_tokenizer(name, released.vocab_size, released.context)


def load_tokenizer(folder: str | Path, vocab_size: int, context: int) -> PreTrainedTokenizerBase:
    """The tokenizer in a checkpoint's folder: ``encoder.json`` and ``vocab.bpe`` of the release, or one that was saved
    by transformers.

    Args:
        folder: of the checkpoint.
        vocab_size: rows of the model's embedding, which the tokenizer must not go beyond.
        context: recorded as ``model_max_length``.

    Raises:
        ModelError: there is none in the folder, or it has more tokens than the model.
        CheckpointError: its files are damaged.
    """
    folder = Path(folder).expanduser()
    files = [folder / ENCODER_FILE, folder / MERGES_FILE]
    if all(file.is_file() for file in files):
        tokenizer: PreTrainedTokenizerBase = _byte_pairs(*files)
    elif (folder / "tokenizer.json").is_file():
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        except Exception as error:
            raise CheckpointError(f"The tokenizer.json in {folder} cannot be read: {in_brief(error)}.") from error
    else:
        raise ModelError(
            f"{folder} has no tokenizer. Put {ENCODER_FILE} and {MERGES_FILE} of tinypython_2k there (the release has "
            "them beside its models), or a tokenizer.json."
        )
    if len(tokenizer) > vocab_size:
        raise ModelError(
            f"The tokenizer in {folder} has {len(tokenizer)} tokens, the model's embedding only {vocab_size} rows: "
            "they do not belong together."
        )
    tokenizer.model_max_length = context
    return tokenizer


def _byte_pairs(encoder: Path, merges: Path) -> PreTrainedTokenizerFast:
    """A byte-level BPE from a vocabulary and its merges, as GPT-2's files hold them."""
    try:
        vocabulary = json.loads(encoder.read_text(encoding="utf-8"))
        # Merges hold every kind of character: lines end in \n alone.
        lines = merges.read_text(encoding="utf-8").split("\n")
        pairs = [line.split(" ") for line in lines if line.strip() and not line.startswith("#version")]
        if not isinstance(vocabulary, dict) or not all(type(i) is int for i in vocabulary.values()):
            raise ValueError(f"{encoder.name} is no map from tokens to numbers")
        if any(len(pair) != 2 for pair in pairs):
            raise ValueError(f"{merges.name} has a line that is no pair of tokens")
        if END_OF_TEXT not in vocabulary:
            if END_OF_TEXT_ID in vocabulary.values():
                raise ValueError(f"{encoder.name} has no {END_OF_TEXT} and another token in its place {END_OF_TEXT_ID}")
            vocabulary[END_OF_TEXT] = END_OF_TEXT_ID
        core = Tokenizer(models.BPE(vocab=vocabulary, merges=[(first, second) for first, second in pairs]))
    except Exception as error:
        raise CheckpointError(f"The tokenizer in {encoder.parent} is damaged: {error}. Fetch it again.") from error
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRE_TOKEN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=END_OF_TEXT,
        bos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )
