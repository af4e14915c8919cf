"""Which token a model wants before every text: chosen by its own loss where its tokenizer does not say."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedTokenizerBase

from bridges.data.tokenizer import END_OF_TEXT, NO_TOKEN, own_leading_token, set_leading_token
from bridges.errors import ConfigError
from bridges.losses import head_values
from bridges.stack import ResidualStack

# Texts that the candidates are compared on, and tokens of each: what stands first matters at a text's beginning.
TEXTS, TOKENS = 48, 48
# The first tokens of a text are left out: after nothing at all they cannot be predicted.
_SKIPPED = 2


def candidates(tokenizer: PreTrainedTokenizerBase) -> list[str | None]:
    """Tokens that may stand before a text: beginning of text, end of text, ``<|endoftext|>``, and nothing."""
    known = [tokenizer.bos_token, tokenizer.eos_token]
    if tokenizer.convert_tokens_to_ids(END_OF_TEXT) not in (None, tokenizer.unk_token_id) or (
        tokenizer.unk_token == END_OF_TEXT
    ):
        known.append(END_OF_TEXT)
    return [*dict.fromkeys(str(token) for token in known if token is not None), None]


@torch.no_grad()
def choose_leading_token(
    stack: ResidualStack,
    tokenizer: PreTrainedTokenizerBase,
    texts: Callable[[], Sequence[str]],
    asked: str | None = None,
) -> str:
    """Set the token that every document and prompt begins with, and say which one it is and why.

    A token that the tokenizer puts there by itself stays, and where there is no choice nothing is measured. Otherwise
    that candidate wins after which the model's loss on the texts is least.

    Args:
        texts: gives some beginnings of the text at hand; only asked where something is to be measured.
        asked: the token that a user wants, or ``none`` for nothing; None: choose.

    Returns:
        one line for the user; empty where there was nothing to choose.

    Raises:
        ConfigError: the tokenizer has no such token.
    """
    if asked is not None:
        wanted = None if asked == NO_TOKEN else asked
        if wanted is not None and wanted not in tokenizer.get_vocab():
            raise ConfigError(
                f"model.leading_token={asked!r} is no token of this model. Tokens: {candidates(tokenizer)}."
            )
        set_leading_token(tokenizer, wanted)
        return ""
    found = candidates(tokenizer)
    # A model with one token for both ends is trained on documents joined by it.
    if own_leading_token(tokenizer) is not None or len(found) <= 2 or not (some := texts()):
        return ""
    losses = {token: _loss(stack, tokenizer, some, token) for token in found}
    best = min(losses, key=lambda token: losses[token])
    set_leading_token(tokenizer, best)
    shown = ", ".join(f"{token or 'nothing'} {loss:.2f}" for token, loss in losses.items())
    return f"Every text begins with {best or 'no token of its own'} (nats per token after {shown})."


def _loss(stack: ResidualStack, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], token: str | None) -> float:
    """Mean loss in nats over the same tokens of the texts whatever stands before them."""
    lead = [] if token is None else [int(tokenizer.convert_tokens_to_ids(token))]  # type: ignore[arg-type]
    device = next(stack.parameters()).device  # type: ignore[attr-defined]
    total, count, limit = 0.0, 0, min(TOKENS, stack.context - 1)
    by_length: dict[int, list[list[int]]] = {}
    for text in texts[:TEXTS]:
        # As many whatever stands before them, so that all candidates are compared on the same tokens.
        row = list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])[:limit]
        if len(row) > _SKIPPED + 1:
            by_length.setdefault(len(row), []).append(lead + row)
    for rows in by_length.values():
        ids = torch.tensor(rows, device=device)
        h = stack.run_segment(stack.embed(ids), 0, stack.n_sublayers)
        # Entry i is the loss of token i + 1.
        ce = head_values(stack, [h], ids, None).ce[0][:, len(lead) + _SKIPPED - 1 :]
        total, count = total + float(ce.sum()), count + ce.numel()
    return total / max(1, count)
