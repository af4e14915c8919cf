"""Prompt pairs in the tokens of the model at hand (Gao et al. 2025, section 2.2 and Table 1)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bridges.behaviours.pair import (
    SPLITS,
    Answer,
    Behaviour,
    BehaviourError,
    Draft,
    NotExpressible,
    Pair,
    Split,
)
from bridges.data.tokenizer import leading_token, vocabulary_size

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class EncodedPairs:
    """Prompt pairs as tokens. n pairs, T tokens of the longest prompt; index 0 is clean, 1 counterfactual.

    Attributes:
        behaviour, split, seed: where the pairs come from.
        pairs: the n pairs as text, in the order of the tensors.
        ids: [n, 2, T] token ids, padded on the right, so that a causal model needs no mask.
        lengths: [n, 2] tokens of each prompt, the initial document token included.
        candidates: [n, 2] the right next token of the clean and of the counterfactual prompt; each is the
            wrong one of the other.
        dropped: why other pairs were left out, with counts.
        note: what a reader should know, for example that there are fewer pairs than asked for.
    """

    behaviour: str
    split: str
    seed: int
    pairs: tuple[Pair, ...]
    ids: Tensor
    lengths: Tensor
    candidates: Tensor
    dropped: dict[str, int] = field(default_factory=dict)
    note: str = ""

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def equal_length(self) -> Tensor:
        """[n] whether both prompts of a pair have equally many tokens."""
        return self.lengths[:, 0] == self.lengths[:, 1]

    @property
    def shared_last(self) -> Tensor:
        """[n] whether both prompts of a pair end in the same token, so that the last token cannot decide."""
        last = self.ids.gather(2, self.lengths[:, :, None] - 1)[:, :, 0]
        return last[:, 0] == last[:, 1]

    def take(self, index: Sequence[int]) -> EncodedPairs:
        """The pairs at `index`, in that order."""
        at = torch.as_tensor(index, dtype=torch.long)
        lengths = self.lengths[at]
        width = int(lengths.max()) if len(lengths) else 0
        return replace(
            self,
            pairs=tuple(self.pairs[i] for i in at.tolist()),
            ids=self.ids[at][:, :, :width],
            lengths=lengths,
            candidates=self.candidates[at],
        )


class _Reader:
    """Asks a tokenizer for the token that a continuation begins with."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        # Tens of thousands of short texts: transformers' own wrapping of each call takes longer than the tokens do.
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self.backend = backend if backend and backend.truncation is None and backend.padding is None else None
        lead = leading_token(tokenizer)
        self.start: list[int] = [] if lead is None else [lead]
        pad = tokenizer.pad_token_id
        self.pad = int(pad) if pad is not None else (self.start or [0])[0]
        self.known = vocabulary_size(tokenizer)
        limit = tokenizer.model_max_length
        self.limit = limit if limit and limit < 1_000_000 else None

    def ids(self, text: str) -> list[int]:
        """Token ids of `text` alone, without special tokens."""
        if self.backend is not None:
            return self.backend.encode(text, add_special_tokens=False).ids
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def answer(self, prompt: str, base: list[int], answer: Answer) -> tuple[int, str]:
        """Id and text of the token that `answer` begins with after `prompt`; ValueError says why not."""
        full = self.ids(prompt + answer.text)
        if full[: len(base)] != base or len(full) == len(base):
            hint = " (it ends in a space)" if prompt.endswith(" ") else ""
            raise ValueError(f"the answer merges with the last token of the prompt{hint}")
        # The decoded token is nearly always its text, but some tokenizers drop a leading space in decoding.
        shown = len(self.tokenizer.decode([full[len(base)]]))
        for end in sorted(range(1, len(answer.text) + 1), key=lambda k: k != shown):
            if self.ids(prompt + answer.text[:end]) == [*base, full[len(base)]]:
                break
        else:
            raise ValueError("the answer does not begin with a token of its own")
        if end < answer.whole:
            raise ValueError("the answer is more than one token")
        return full[len(base)], answer.text[:end]

    def pair(self, draft: Draft, aligned: bool) -> tuple[Pair, tuple[list[int], list[int]], tuple[int, int]]:
        """The pair, the ids of both prompts and the right tokens of both; ValueError says why not.

        Args:
            aligned: whether prompts of unequal length or with different last tokens are refused.
        """
        prompts = (draft.clean, draft.counterfactual)
        bases = (self.ids(prompts[0]), self.ids(prompts[1]))
        if aligned and len(bases[0]) != len(bases[1]):
            raise ValueError("the prompts are not equally long")
        if aligned and bases[0][-1:] != bases[1][-1:]:
            raise ValueError("the prompts do not end in the same token")
        unknown = self.tokenizer.unk_token_id
        if unknown is not None and unknown not in self.start and unknown in {*bases[0], *bases[1]}:
            raise ValueError("a prompt holds text that the tokenizer does not know")
        if self.limit and max(map(len, bases)) + len(self.start) > self.limit:
            raise ValueError(f"a prompt is longer than the {self.limit} tokens of the context")
        right = [
            self.answer(p, b, a)
            for p, b, a in zip(prompts, bases, (draft.clean_answer, draft.counterfactual_answer), strict=True)
        ]
        if right[0][0] == right[1][0]:
            raise ValueError("both answers begin with the same token")
        if self.known is not None and max(*bases[0], *bases[1], right[0][0], right[1][0]) >= self.known:
            raise ValueError("a token is not in the narrowed vocabulary")
        if unknown is not None and unknown in (right[0][0], right[1][0]):
            raise ValueError("an answer is text that the tokenizer does not know")
        # The wrong candidate has to be one token as well, or the two logits could not be compared.
        for prompt, base, other in zip(prompts, bases, reversed(right), strict=True):
            if self.ids(prompt + other[1]) != [*base, other[0]]:
                raise ValueError("the answer of one prompt is not one token after the other prompt")
        pair = Pair(*prompts, right[0][1], right[1][1], draft.template)
        with_start = (self.start + bases[0], self.start + bases[1])
        return pair, with_start, (right[0][0], right[1][0])


def check(draft: Draft, tokenizer: PreTrainedTokenizerBase) -> Pair:
    """The pair in this tokenizer; BehaviourError says why it cannot, and where that was written."""
    return _made(_Reader(tokenizer), draft, aligned=False)[0]


def _made(reader: _Reader, draft: Draft, aligned: bool) -> tuple[Pair, tuple[list[int], list[int]], tuple[int, int]]:
    try:
        return reader.pair(draft, aligned)
    except ValueError as error:
        raise BehaviourError(f"{draft.source or draft.template}: {_shown(error, draft)}.") from None


def _shown(error: ValueError, draft: Draft) -> str:
    clean, counterfactual = (_ends(prompt) for prompt in (draft.clean, draft.counterfactual))
    return (
        f"{error}: {clean!r} then {draft.clean_answer.text!r}, "
        f"{counterfactual!r} then {draft.counterfactual_answer.text!r}"
    )


def _ends(text: str, most: int = 160) -> str:
    """A text, without its middle where it is long."""
    return text if len(text) <= most else f"{text[: most // 2]} … {text[-most // 2 :]}"


@dataclass
class _Bin:
    """The usable pairs of one frame: those of equal length, and the others to fall back on."""

    equal: list = field(default_factory=list)
    spare: list = field(default_factory=list)
    tried: int = 0

    def enough(self, quota: int) -> bool:
        got = len(self.equal) + len(self.spare)
        patience = 2 * quota + 20  # a frame that mostly fails must not be tried for ever
        if not got and self.tried >= 200:
            return True
        settled = len(self.equal) >= quota or (self.tried >= patience and got >= quota)
        return settled or self.tried >= 3 * patience


def encode(
    behaviour: Behaviour,
    tokenizer: PreTrainedTokenizerBase,
    split: Split = "train",
    n: int = 512,
    seed: int = 0,
) -> EncodedPairs:
    """Draw `n` pairs of a behaviour that this tokenizer can express (Gao et al. 2025, section 2.2, Table 1).

    A pair is kept where each answer begins with one token of its own after either prompt, so that the tokens
    of prompt + answer are those of the prompt and one more. If ``behaviour.aligned``, both prompts are also
    equally long and end in the same token; otherwise pairs of equally long prompts come first. No prompt
    occurs twice. Frames take turns, so that any prefix is balanced. If the tokenizer has an initial (or else
    a final) document token, each prompt begins with it.

    Args:
        behaviour: what to draw from.
        tokenizer: of the model that will be asked.
        split: "train" (circuits are found on it), "heldout" (they are judged on it) or "reach" (frames that are
            in neither).
        n: pairs wanted.
        seed: the same seed, behaviour and tokenizer give the same pairs.

    Returns:
        At most `n` pairs; `note` says so where there are fewer, or where frames give no pair.

    Raises:
        NotExpressible: fewer than ``behaviour.min_pairs`` pairs (or `n`, if that is less) could be expressed.
        BehaviourError: a strict behaviour holds a pair that cannot be expressed.
    """
    if split not in SPLITS:
        raise BehaviourError(f"Split {split!r} is none of: {', '.join(SPLITS)}.")
    if n < 1:
        raise BehaviourError(f"At least one pair must be asked for, not {n}.")
    reader, seen = _Reader(tokenizer), set[str]()
    bins = {name: _Bin() for name in behaviour.templates(split)}
    dropped: Counter[str] = Counter()
    examples: dict[str, str] = {}
    tried = 0
    quota = -(-n // max(len(bins), 1))
    stream = behaviour.drafts(random.Random(f"{behaviour.name} {split} {seed}"), split)
    for draft in islice(stream, 60 * n + 2000):
        into = bins[draft.template]
        if not behaviour.strict and into.enough(quota):
            if not all(b.enough(quota) for b in bins.values()):
                continue
            if sum(min(len(b.equal) + len(b.spare), quota) for b in bins.values()) >= n or quota >= n:
                break
            quota = min(2 * quota, n)  # some frame fell short: the others make up for it
        tried += 1
        into.tried += 1
        if draft.clean in seen or draft.counterfactual in seen or draft.clean == draft.counterfactual:
            dropped["a prompt occurs twice"] += 1
            continue
        if behaviour.strict:
            made = _made(reader, draft, behaviour.aligned)
        else:
            try:
                made = reader.pair(draft, behaviour.aligned)
            except ValueError as error:
                dropped[str(error)] += 1
                examples.setdefault(str(error), _shown(error, draft))
                continue
        seen |= {draft.clean, draft.counterfactual}
        (into.equal if len(made[1][0]) == len(made[1][1]) else into.spare).append(made)
    kept = _round_robin([b.equal + b.spare for b in bins.values()], n)
    if len(kept) < min(behaviour.min_pairs, n):
        most = max(examples, key=lambda reason: dropped[reason], default="")
        raise NotExpressible(
            behaviour.name, split, len(kept), tried, dict(dropped.most_common()), examples.get(most, "")
        )
    notes = [] if len(kept) == n else [f"{len(kept)} different pairs could be drawn, {n} were asked for"]
    if empty := sum(not (b.equal or b.spare) for b in bins.values()):
        notes.append(f"{empty} of {len(bins)} frames give no pair with this tokenizer")
    width = max(len(x) for made in kept for x in made[1])
    ids = torch.full((len(kept), 2, width), reader.pad, dtype=torch.long)
    for row, (_, prompts, _) in enumerate(kept):
        for side, prompt in enumerate(prompts):
            ids[row, side, : len(prompt)] = torch.tensor(prompt)
    return EncodedPairs(
        behaviour=behaviour.name,
        split=split,
        seed=seed,
        pairs=tuple(made[0] for made in kept),
        ids=ids,
        lengths=torch.tensor([[len(p) for p in made[1]] for made in kept]),
        candidates=torch.tensor([made[2] for made in kept]),
        dropped=dict(dropped),
        note="; ".join(notes),
    )


def _round_robin(rows: list[list], n: int) -> list:
    """At most `n` elements, one of each list in turn, so that any prefix is balanced over frames."""
    turns = max(map(len, rows), default=0)
    return [row[i] for i in range(turns) for row in rows if i < len(row)][:n]
