"""Meaningless tasks on a behaviour's own prompts: shuffled labels, and labels that follow a rule.

Pruning can find "circuits" that were never there (the critique of weight-sparse circuits, and Gao et al.
2025, appendix E). A circuit is therefore judged against one that was searched for on labels that mean
nothing.
"""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import torch

from bridges.behaviours.encoded import EncodedPairs
from bridges.behaviours.pair import BehaviourError

PREFIX = "nonsense:"
CONSISTENT_PREFIX = "consistent nonsense:"


def shuffled_labels(encoded: EncodedPairs, key: int = 0) -> EncodedPairs:
    """The same pairs, with the two right tokens exchanged in half of them.

    Which half is decided by a keyed hash of the clean prompt: within each frame the pairs are ranked by it
    and the lower half is exchanged. Whoever solves the behaviour therefore scores one half, and only memory
    of single prompts does better.

    Args:
        encoded: [n] pairs.
        key: another key is another labelling.

    Returns:
        The twin, with ids, lengths and candidate pairs of `encoded` and "nonsense:" before the name.
    """
    ranked: dict[str, list[tuple[bytes, int]]] = defaultdict(list)
    for i, pair in enumerate(encoded.pairs):
        digest = hashlib.blake2b(pair.clean.encode(), key=str(key).encode(), digest_size=16).digest()
        ranked[pair.template].append((digest, i))
    flip: set[int] = set()
    extra = 0
    for template in sorted(ranked):
        order = [i for _, i in sorted(ranked[template])]
        # Odd frames take turns in having one more or one less, so that the whole stays balanced.
        half = len(order) // 2 + (len(order) % 2 and extra % 2)
        extra += len(order) % 2
        flip |= set(order[:half])
    candidates = encoded.candidates.clone()
    rows = torch.tensor(sorted(flip), dtype=torch.long)
    candidates[rows] = candidates[rows].flip(1)
    pairs = tuple(
        replace(p, clean_token=p.counterfactual_token, counterfactual_token=p.clean_token) if i in flip else p
        for i, p in enumerate(encoded.pairs)
    )
    note = f"labels are meaningless (key {key})" + (f"; {encoded.note}" if encoded.note else "")
    return replace(encoded, behaviour=PREFIX + encoded.behaviour, candidates=candidates, pairs=pairs, note=note)


def consistent_nonsense(encoded: EncodedPairs, key: int = 0, like: EncodedPairs | None = None) -> EncodedPairs:
    """The same prompts with two arbitrary answer tokens that follow the cue, a meaningless task that can be solved.

    The critique of weight-sparse circuits shows that pruning reaches a low loss on tasks which mean nothing,
    as long as their labels are a function of the prompt. This is such a task: two tokens ``a`` and ``b`` that
    the behaviour never answers are right in place of its own answers, always in the same way.

    - Where every answer token of the behaviour is always the smaller or always the larger id of its pair
      (a quote, a bracket, a keyword), the prompt with the smaller one is answered by ``a``, the other by ``b``.
    - Where not (names that are copied), a keyed hash of the answer's id decides between ``a`` and ``b``, and
      pairs in which both prompts would get the same one are left out: about half.

    ``a`` and ``b`` are drawn from the tokens of the prompts, without the first one (the document token) and,
    if there are enough others, without those in which the two prompts of a pair differ, so that no answer is
    the cue itself.

    Args:
        encoded: [n] pairs.
        key: another key is another draw of ``a`` and ``b``, and another hash.
        like: pairs that decide the rule and the two tokens in place of `encoded`, so that several splits get
            the same task.

    Returns:
        The task, with "consistent nonsense:" before the name. `Pair` names the two answers by their ids, as in
        "token 17", since no tokenizer is at hand.

    Raises:
        BehaviourError: the prompts hold fewer than two tokens that are no answers, or every pair is left out.
    """
    source = encoded if like is None else like
    a, b = _arbitrary_tokens(source, key)
    first = _takes_first(source, key)
    sides = [[first(own, other), first(other, own)] for own, other in encoded.candidates.tolist()]
    kept = encoded.take([i for i, (clean, counterfactual) in enumerate(sides) if clean != counterfactual])
    if not len(kept):
        raise BehaviourError(
            f"Behaviour {encoded.behaviour!r}: the two prompts of every pair get the same arbitrary answer."
        )
    clean_first = torch.tensor([clean for clean, counterfactual in sides if clean != counterfactual])
    candidates = torch.where(clean_first[:, None], torch.tensor([a, b]), torch.tensor([b, a]))
    pairs = tuple(
        replace(pair, clean_token=f"token {own}", counterfactual_token=f"token {other}")
        for pair, (own, other) in zip(kept.pairs, candidates.tolist(), strict=True)
    )
    note = f"answers are arbitrary (key {key})" + (f"; {encoded.note}" if encoded.note else "")
    name = CONSISTENT_PREFIX + encoded.behaviour
    return replace(kept, behaviour=name, candidates=candidates, pairs=pairs, note=note)


def _arbitrary_tokens(source: EncodedPairs, key: int) -> tuple[int, int]:
    """Two tokens that occur in the prompts and are never an answer."""
    real = torch.arange(source.ids.shape[2]) < source.lengths[:, :, None]
    real[:, :, 0] = False
    differs = (source.ids[:, 0] != source.ids[:, 1])[:, None].expand_as(real) & real
    answers = set(source.candidates.unique().tolist())
    every = set(source.ids[real].unique().tolist()) - answers
    common = every - set(source.ids[differs].unique().tolist())
    tokens = sorted(common if len(common) >= 2 else every)
    if len(tokens) < 2:
        raise BehaviourError(
            f"Behaviour {source.behaviour!r}: its prompts hold no two tokens that are never an answer."
        )
    a, b = random.Random(f"consistent nonsense {key}").sample(tokens, 2)
    return a, b


def _takes_first(source: EncodedPairs, key: int) -> Callable[[int, int], bool]:
    """Whether a prompt gets the first arbitrary token, from the id of its own right token and of the other one."""
    smaller = set(source.candidates.min(1).values.tolist())
    larger = set(source.candidates.max(1).values.tolist())
    if not smaller & larger:
        return lambda own, other: own < other

    def by_hash(own: int, other: int) -> bool:
        return bool(hashlib.blake2b(str(own).encode(), key=str(key).encode(), digest_size=1).digest()[0] & 1)

    return by_hash
