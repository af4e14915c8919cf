"""The token that every document begins with, and the training of the bundled dense model's tokenizer."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"

# Words with an optional single leading symbol; up to three digits; runs of punctuation with the newlines that follow;
# newlines; white space. Runs of punctuation stay whole so that `("`, `],` and `]]` can each become one token, which is
# what lets a two-way behaviour be asked as a single next token (paper, appendix A.1).
PRE_TOKEN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"


# Where a tokenizer says which token stands before every text, once that was chosen; kept when it is saved. Transformers
# takes a setting whose name ends in "_token" for a special token of the model and drops it from the others.
LEADING = "texts_begin_with"
NO_TOKEN = "none"
# Where it says of how many tokens its model has embeddings (`bridges.dense.narrow`).
VOCABULARY = "narrow_vocabulary"


def vocabulary_size(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Number of tokens that a narrowed model knows; ids from there on have no embedding. None: it knows all."""
    size = tokenizer.init_kwargs.get(VOCABULARY)
    return None if size is None else int(size)


def leading_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Id of the token before every document and every prompt; None for none.

    The one that was chosen for the model at hand (`set_leading_token`). Where none was: the token that the tokenizer
    itself puts before a text, or else its beginning-of-text token, or else its end-of-text token, which stands between
    the documents of models that have no other (GPT-2).
    """
    chosen = tokenizer.init_kwargs.get(LEADING)
    if chosen is not None:
        return None if chosen == NO_TOKEN else int(tokenizer.convert_tokens_to_ids(chosen))  # type: ignore[arg-type]
    if (own := own_leading_token(tokenizer)) is not None:
        return own
    token = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return None if token is None else int(token)


def own_leading_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Id of the token that a tokenizer by itself puts before a text; None where it puts none."""
    whole, bare = (list(tokenizer("a", add_special_tokens=added)["input_ids"]) for added in (True, False))
    return int(whole[0]) if bare and len(whole) > len(bare) and whole[: len(bare)] != bare else None


def set_leading_token(tokenizer: PreTrainedTokenizerBase, token: str | None) -> None:
    """Let every document and prompt begin with ``token`` from here on; None for nothing."""
    tokenizer.init_kwargs[LEADING] = NO_TOKEN if token is None else token


def train_tokenizer(texts: Iterable[str], vocab_size: int = 2048, context: int = 256) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE with ``<|endoftext|>`` as the last token, like the paper's 2k Python tokenizer.

    Args:
        texts: what the merges are counted on.
        vocab_size: tokens in all, the end-of-text token included.
        context: recorded as the tokenizer's ``model_max_length``.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRE_TOKEN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([END_OF_TEXT])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        bos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
