"""The nonsense twin of a behaviour: the same prompts with a meaningless labelling.

Pruning can find "circuits" that were never there (the critique of weight-sparse circuits, and Gao et al.
2025, appendix E). A circuit is therefore judged against one that was searched for on labels that mean
nothing.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import replace

import torch

from bridges.behaviours.encoded import EncodedPairs

PREFIX = "nonsense:"


def nonsense_twin(encoded: EncodedPairs, key: int = 0) -> EncodedPairs:
    """The same pairs, with the two right tokens exchanged in half of them.

    Which half is decided by a keyed hash of the clean prompt: within each template the pairs are ranked by it
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
        # Odd templates take turns in having one more or one less, so that the whole stays balanced.
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
