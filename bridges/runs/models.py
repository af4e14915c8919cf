"""The dense model, its tokenizer and the text of a run: loaded, narrowed where that is asked for, and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from bridges.behaviours.narrow_text import prompt_blocks, sample_texts, tokens_needed
from bridges.behaviours.pair import Behaviour
from bridges.config import Config
from bridges.config.paths import INITS
from bridges.data.blocks import TokenBlocks, token_blocks
from bridges.data.reading import read_documents
from bridges.data.tokenizer import LEADING, vocabulary_size
from bridges.dense import DenseStack, load_dense
from bridges.dense.leading import TEXTS, choose_leading_token
from bridges.dense.narrow import narrow, narrow_alike
from bridges.errors import CheckpointError, ConfigError, DataError, in_brief
from bridges.interop import openai_tokenizer  # noqa: F401  (its models can be loaded by name)
from bridges.planted import named  # noqa: F401  (so can its worlds)
from bridges.runs.kept_text import kept_blocks
from bridges.runs.sources import select_behaviours

# Characters of a document that tell which token should stand before it.
_BEGINNING = 400
_NO_BEHAVIOURS = (
    "data.focus={:g} trains on the behaviours' prompts, and there are none. Choose some with behaviours= or "
    "behaviours.names=, or use data.focus=0."
)


def load_models(
    config: Config,
    device: torch.device | str = "cpu",
    saved: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[DenseStack, PreTrainedTokenizerBase]:
    """The frozen dense stack and its tokenizer as the run uses them.

    The token that every text begins with is chosen, and the vocabulary narrowed where ``data.vocabulary=seen``.

    Args:
        saved: folder of a finished run's sparse model, whose tokenizer says both already; None to work it out.
        say: told what was chosen.

    Raises:
        ModelError, ConfigError: the model cannot be loaded or narrowed, or prompts are wanted and there are none.
        DataError: its tokenizer expresses none of the behaviours that it is to be narrowed to.
    """
    m = config.model
    if config.data.focus and config.behaviours.suite == "none":
        raise ConfigError(_NO_BEHAVIOURS.format(config.data.focus))
    dtype = torch.bfloat16 if m.dtype == "bf16" else torch.float32
    dense, tokenizer = load_dense(m.name, gguf_file=m.gguf_file, revision=m.revision, dtype=dtype, device=device)
    if saved is None and config.data.vocabulary == "seen" and config.sparse.init not in INITS:
        # A pair that training goes on from knows its own tokens.
        saved = Path(config.sparse.init).expanduser() / "model"
    if saved is not None and (saved / "tokenizer_config.json").exists():
        try:
            known = AutoTokenizer.from_pretrained(saved, trust_remote_code=False)
        except Exception as error:
            raise CheckpointError(f"The tokenizer in {saved} cannot be read: {in_brief(error)}.") from error
        if LEADING in known.init_kwargs:
            tokenizer.init_kwargs[LEADING] = known.init_kwargs[LEADING]
        if vocabulary_size(known) is not None:
            tokenizer = narrow_alike(dense, tokenizer, known)
        return dense, tokenizer
    if note := choose_leading_token(dense, tokenizer, lambda: _beginnings(config, tokenizer), m.leading_token):
        say(note)
    if config.data.vocabulary == "seen":
        chosen = select_behaviours(config.behaviours, tokenizer)
        if not chosen:
            raise ConfigError(_NO_BEHAVIOURS.format(config.data.focus))
        tokens = tokens_needed(config.data, chosen, tokenizer, config.seed, config.behaviours.pairs)
        say(f"Narrowing the dense model to {len(tokens):,} of {dense.vocab_size:,} tokens.")
        tokenizer = narrow(dense, tokenizer, tokens)
    return dense, tokenizer


def _beginnings(config: Config, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Some texts of the kind that the run reads."""
    if config.data.focus:
        return sample_texts(select_behaviours(config.behaviours, tokenizer), TEXTS, config.seed)
    try:
        return [document.text[:_BEGINNING] for document in islice(read_documents(config.data), TEXTS)]
    except DataError:
        # Said again, and better, where the text is read.
        return []


def load_text(
    config: Config,
    tokenizer: PreTrainedTokenizerBase,
    behaviours: Mapping[str, Behaviour],
    vocab_size: int,
    keep: Path | None = None,
    write: bool = True,
) -> TokenBlocks:
    """The run's text: ordinary text, or where ``data.focus`` is above 0 its behaviours' prompts.

    Args:
        keep: folder where a text from the Hub is kept, see `kept_blocks`; None: its tokens stay in memory.
        write: whether this process makes its files.

    Raises:
        DataError: it cannot be read, or holds tokens that the dense model has no embedding of.
        ConfigError: prompts are wanted and there are no behaviours.
    """
    if not config.data.focus and config.data.source == "hub" and keep is not None:
        data = kept_blocks(config.data, tokenizer, config.data.context, keep, write)
    elif not config.data.focus:
        data = token_blocks(config.data, tokenizer, config.data.context)
    elif not behaviours:
        raise ConfigError(_NO_BEHAVIOURS.format(config.data.focus))
    else:
        data = prompt_blocks(config.data, behaviours, tokenizer, config.seed)
    largest = max(int(blocks.max()) for blocks in data.blocks.values())
    if largest >= vocab_size:
        raise DataError(
            f"The text holds {tokenizer.convert_ids_to_tokens(largest)!r} (token {largest}), of which the dense model "
            f"has no embedding: it has {vocab_size}. Take it out of the text."
        )
    return data
