"""The door to pretrained models: a name in, a checked residual stack and its tokenizer out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as hf_logging

import bridges.kernels as kernels
from bridges.data.tokenizer import leading_token
from bridges.dense import gpt2, gpt_neo, gpt_neox, llama, opt  # noqa: F401  (they register themselves)
from bridges.dense.base import DenseStack
from bridges.dense.parity import check_parity
from bridges.dense.registry import LOADERS, family_of
from bridges.dense.source import Source, find_source
from bridges.errors import BridgesError, MemoryBudgetError, ModelError, in_brief
from bridges.kernels import attention


def load_dense(
    name: str,
    *,
    gguf_file: str | None = None,
    revision: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    check: bool = True,
) -> tuple[DenseStack, PreTrainedTokenizerBase]:
    """Load a pretrained causal language model.

    Args:
        name: a local folder, an id on the Hugging Face Hub, ``"tinypython"`` (bundled),
            ``"package:<importable package>"`` for files that an installed package carries, or what a registered loader
            (`bridges.dense.registry.register_loader`) knows: ``"planted:<seed>"``, the dense model of a world whose
            circuits are known, always fp32 (`bridges.planted`), and a folder in OpenAI's ``circuit_sparsity`` format
            (`bridges.interop.openai_tokenizer`).
        gguf_file: name or glob of a GGUF file there, which is dequantised to ``dtype``.
        revision: branch, tag or commit on the Hub.
        dtype: of weights and stream.
        device: where the model goes.
        check: compare the stack's logits with the model's own (`check_parity`).

    Raises:
        ModelError: it cannot be found, read, or expressed as a residual stack.
        CheckpointError: a file of OpenAI's format is damaged.
        MemoryBudgetError: it does not fit into memory.
    """
    for loader in LOADERS:
        if (found := loader(name, dtype)) is not None:
            stack, tokenizer = found
            return cast(DenseStack, _moved(stack, device)), tokenizer
    source = find_source(name, gguf_file, revision, accept=family_of)
    where = {"gguf_file": source.gguf_file} if source.gguf_file else {}
    with _quiet(), _explained(name, source):
        config = AutoConfig.from_pretrained(source.folder, trust_remote_code=False, **where)
        family = family_of(config.model_type)
        tokenizer = AutoTokenizer.from_pretrained(source.folder, trust_remote_code=False, **where)
        _name_first_token(tokenizer, config)
        loading: Any = AutoModelForCausalLM.from_pretrained  # returns a pair, which its type denies
        model, info = loading(
            source.folder,
            config=config,
            dtype=dtype,
            attn_implementation=_attention(family, device),
            trust_remote_code=False,
            weights_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **where,
        )
        # Transformers would leave such weights random.
        if wrong := sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"]):
            raise ModelError(
                f"The weights of {name!r} do not fit its config.json: {len(wrong)} are missing or have "
                f"another shape, such as {wrong[0]}. Fetch or save the model again."
            )
        if source.gguf_file:
            _forget_quantization(model)
        stack = wrap_dense(_moved(model, device), tokenizer, check=check)
    return stack, tokenizer


def wrap_dense(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None, *, check: bool = True
) -> DenseStack:
    """Make a residual stack of a model that is already in memory; the model is frozen in place.

    Raises:
        ModelError: there is no adapter for its architecture, its tokenizer has tokens that it has no embedding of, or
            the stack's logits are not the model's.
    """
    stack = family_of(model.config.model_type)(model, tokenizer)
    if tokenizer is not None:
        _fit_tokenizer(stack, tokenizer)
    if check:
        check_parity(stack)
    return stack


def _name_first_token(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
    """Give a tokenizer that names no beginning of text the one that the model's own configuration names (Qwen 3).

    Only a token that is special to the tokenizer counts: configurations carry numbers over from other models.
    """
    first = getattr(config, "bos_token_id", None)
    if tokenizer.bos_token_id is None and isinstance(first, int) and first in tokenizer.all_special_ids:
        tokenizer.bos_token = tokenizer.convert_ids_to_tokens(first)


def _fit_tokenizer(stack: DenseStack, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise `ModelError` where text can become a token that the model has no embedding of.

    More rows than tokens are padding. Special tokens beyond the last row come from no ordinary text (Gemma 3's image
    token) and are let pass, but for the one that every document begins with. A padding token among them is replaced:
    any token pads as well.
    """
    rows = min(stack.model.get_input_embeddings().weight.shape[0], stack.vocab_size)
    first = leading_token(tokenizer)
    special = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special and id != first}
    lost = sorted(id for id in tokenizer.get_vocab().values() if id >= rows and id not in special)
    if lost:
        example = tokenizer.convert_ids_to_tokens(lost[0])
        raise ModelError(
            f"The tokenizer has {len(tokenizer):,} tokens and the model an embedding of {rows:,} rows: none is for "
            f"{example!r} (number {lost[0]}). Give the tokenizer that the model was trained with, or save the model "
            "again after model.resize_token_embeddings(len(tokenizer))."
        )
    # What is longer than the model takes is refused where it is read, not where the model runs.
    tokenizer.model_max_length = min(tokenizer.model_max_length, stack.context)
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id >= rows:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(first or 0)


def _attention(family: type[DenseStack], device: str | torch.device) -> str:
    """The attention a model is loaded with: on a CPU that of the kernels where they can be had."""
    wanted = family.attn_implementation
    # Not through torch.device: a device that does not exist is explained where the model is moved there.
    if wanted == "sdpa" and str(device).split(":")[0] == "cpu" and kernels.active():
        return attention.register()
    return wanted


def _moved(model: Any, device: str | torch.device) -> Any:
    try:
        return model.to(device)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"The device {str(device)!r} cannot be used here ({in_brief(error)}).") from error


def _forget_quantization(model: Any) -> None:
    """Let a model read from GGUF be saved like any other: its weights are plain tensors by now."""
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' load reports and bars off the terminal (GGUF is slow and keeps its bar)."""
    verbosity, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # PyTorch asks for a report to itself where a file of weights is none of its own.
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bars:
            hf_logging.enable_progress_bar()


@contextmanager
def _explained(name: str, source: Source) -> Iterator[None]:
    """Turn whatever a library raises while it reads ``source`` into one clear sentence."""
    try:
        yield
    except BridgesError:
        raise
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise MemoryBudgetError(
            f"The model {name!r} does not fit into memory. Use model.dtype=bf16 or a smaller model."
        ) from error
    except Exception as error:
        if isinstance(error, ImportError):
            advice = "Install what it names."
        elif isinstance(error, (SafetensorError, EOFError, KeyError)) or source.gguf_file:
            # A folder of the user's may hold more than the model.
            mine = Path(name).expanduser().is_dir()
            again = "save or fetch" if mine else f"delete {source.folder} and fetch"
            advice = f"A file is damaged or cut short: {again} the model again."
        else:
            advice = f"Check the files in {source.folder}."
        raise ModelError(f"The model {name!r} could not be loaded ({in_brief(error)}). {advice}") from error
