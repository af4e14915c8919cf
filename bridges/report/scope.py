"""What a narrow run's models know and what they do not, in a sentence or two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bridges.storage.tables.hybrids import HELDOUT, SCOPE_TEXTS, TEXT, TRAINED


def scope_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """What a reader of a narrow run has to know first, in two sentences."""
    by_kind = {row["text"]: row for row in rows}
    parts = [
        f"{by_kind[kind]['kl']:.2f} on {kind}"
        for kind in SCOPE_TEXTS
        if kind in by_kind and by_kind[kind]["kl"] == by_kind[kind]["kl"]
    ]
    text = (
        "This pair was trained on these behaviours' prompts and knows those alone: KL to the dense model "
        + ", ".join(parts)
    )
    if TEXT in by_kind:
        text += f" (of which it reads {by_kind[TEXT]['known']:.0%} of the tokens)"
    trained, judged = (by_kind.get(kind) for kind in (TRAINED, HELDOUT))
    if trained and judged and judged["kl_low"] > 1.5 * trained["kl_high"]:
        text += ". It is much worse on the prompts that it is judged on: read its verdicts with care"
    return text + "."
