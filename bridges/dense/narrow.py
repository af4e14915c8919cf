"""A dense model and its tokenizer over the few tokens that a narrow text holds.

A model with 49,152 tokens spends most of its last layer on tokens that a behaviour's prompts never have. Narrowed to
the few hundred that occur, logits, KL and a bigram table are small; the logits that are left are the model's own.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import PreTrainedTokenizerBase

from bridges.data.tokenizer import VOCABULARY, vocabulary_size
from bridges.dense.base import DenseStack
from bridges.errors import CheckpointError, ModelError


def narrow_tokenizer(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> PreTrainedTokenizerBase:
    """A copy that gives the ids ``0 … len(tokens) - 1`` to these tokens, in their order, and later ones to all others.

    Text is cut as before: only the numbers change.

    Args:
        tokens: ids of the tokenizer at hand, each once.

    Raises:
        ModelError: it is no fast tokenizer of byte pairs or unigrams, whose tokens can be numbered anew.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(
            f"data.vocabulary=seen: {type(tokenizer).__name__} is no fast tokenizer and cannot be narrowed. "
            "Use data.vocabulary=all."
        )
    state: dict[str, Any] = json.loads(backend.to_str())
    model, added = state["model"], state.get("added_tokens") or []
    entries = model["vocab"]
    old = dict(entries) if isinstance(entries, dict) else {piece: i for i, (piece, _) in enumerate(entries)}
    if not isinstance(entries, dict) and any(t["id"] >= len(entries) for t in added):
        raise ModelError(
            "data.vocabulary=seen: this tokenizer has special tokens outside its table of unigrams. "
            "Use data.vocabulary=all."
        )
    old |= {t["content"]: t["id"] for t in added}
    kept = {int(i): n for n, i in enumerate(tokens)}
    rest = sorted(set(old.values()) - set(kept))
    new = kept | {i: n for n, i in enumerate(rest, len(kept))}
    if isinstance(entries, dict):
        model["vocab"] = dict(sorted(((piece, new[i]) for piece, i in old.items()), key=lambda item: item[1]))
    else:
        order = sorted(range(len(entries)), key=lambda i: new[i])
        model["vocab"] = [entries[i] for i in order]
        if model.get("unk_id") is not None:
            model["unk_id"] = new[model["unk_id"]]
    for token in added:
        token["id"] = new[token["id"]]
    _renumber(state.get("post_processor"), new)
    if state.get("padding"):
        state["padding"]["pad_id"] = new[state["padding"]["pad_id"]]
    narrowed = copy.deepcopy(tokenizer)
    narrowed._tokenizer = Tokenizer.from_str(json.dumps(state))  # type: ignore[attr-defined]
    narrowed.init_kwargs[VOCABULARY] = len(kept)
    return narrowed


def _renumber(part: Any, new: dict[int, int]) -> None:
    """Ids of special tokens in a post-processor of the tokenizers library, in place."""
    if isinstance(part, list):
        for item in part:
            _renumber(item, new)
    elif isinstance(part, dict):
        for token in (part.get("special_tokens") or {}).values():
            token["ids"] = [new[i] for i in token["ids"]]
        for name in ("cls", "sep"):
            if isinstance(part.get(name), list):
                part[name] = [part[name][0], new[part[name][1]]]
        _renumber(part.get("processors"), new)


@torch.no_grad()
def narrow_dense(dense: DenseStack, tokens: Sequence[int]) -> None:
    """Leave a dense stack the embeddings and logits of these tokens, in their order, in place.

    Raises:
        ModelError: it is no Hugging Face model, or has no embedding of one of them.
    """
    if not isinstance(dense, DenseStack):
        raise ModelError("data.vocabulary=seen needs a Hugging Face model. Use data.vocabulary=all.")
    at = torch.as_tensor(list(tokens), device=next(dense.parameters()).device)
    into, out = dense.model.get_input_embeddings(), dense.model.get_output_embeddings()
    if not isinstance(into, nn.Embedding) or not isinstance(out, nn.Linear):
        raise ModelError("data.vocabulary=seen: this model's embeddings are no plain tables. Use data.vocabulary=all.")
    known = min(len(into.weight), len(out.weight))
    if (largest := max(tokens)) >= known:
        raise ModelError(
            f"data.vocabulary=seen: the prompts hold a token that the dense model has no embedding of: token {largest} "
            f"of {known}. Choose other behaviours."
        )
    # Tied matrices are two from here on; frozen, they stay equal.
    rows = out.weight[at].clone()
    into.weight = nn.Parameter(into.weight[at].clone(), requires_grad=False)
    into.num_embeddings, into.padding_idx = len(at), None
    out.weight = nn.Parameter(rows, requires_grad=False)
    out.out_features = len(at)
    if out.bias is not None:
        out.bias = nn.Parameter(out.bias[at].clone(), requires_grad=False)
    dense.vocab_size = len(at)


def narrow(dense: DenseStack, tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> PreTrainedTokenizerBase:
    """Both at once: the stack in place, and the tokenizer that goes with it as a copy."""
    narrowed = narrow_tokenizer(tokenizer, tokens)
    narrow_dense(dense, tokens)
    dense.tokenizer = narrowed
    return narrowed


def narrow_alike(
    dense: DenseStack, tokenizer: PreTrainedTokenizerBase, saved: PreTrainedTokenizerBase
) -> PreTrainedTokenizerBase:
    """The same as a narrowed tokenizer that was saved with a run.

    Raises:
        CheckpointError: it is none of this model.
    """
    names = saved.convert_ids_to_tokens(list(range(vocabulary_size(saved) or 0)))
    known = tokenizer.get_vocab()
    if missing := [name for name in names if name not in known]:
        raise CheckpointError(
            f"The run's tokenizer has the token {missing[0]!r}, which the dense model's has not: it belongs to another "
            "model."
        )
    return narrow(dense, tokenizer, [known[name] for name in names])
