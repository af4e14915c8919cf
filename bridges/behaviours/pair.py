"""Behaviours: distributions over pairs of prompts.

A behaviour (Gao et al. 2025, section 2.2 and Table 1) is a distribution over pairs of prompts, clean and
counterfactual, that differ in one meaningful way, with one right next token for each. Tokenizers cut the
same text in different places: the colon that ends a line is `:` for one and `:` + newline for another. A
behaviour therefore never names tokens. It writes the prompt and the ordinary text that follows, and
`bridges.behaviours.encoded` asks the tokenizer which token that text begins with.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from bridges.errors import BridgesError

# Circuits are searched with `train` and judged on `heldout`; `reach` holds frames that are in neither.
Split = Literal["train", "heldout", "reach"]
SPLITS: tuple[Split, ...] = ("train", "heldout", "reach")


class BehaviourError(BridgesError):
    """A behaviour is unknown, its file is broken, or its prompts cannot be used with this tokenizer."""


class NotExpressible(BehaviourError):
    """The tokenizer does not allow enough pairs in which one next token decides.

    Attributes:
        behaviour, split: which.
        kept: pairs that could be expressed.
        tried: pairs that were tried.
        reasons: why the others could not, with counts.
        example: one of those, in words.
    """

    def __init__(
        self, behaviour: str, split: str, kept: int, tried: int, reasons: dict[str, int], example: str
    ) -> None:
        self.behaviour, self.split = behaviour, split
        self.kept, self.tried, self.reasons, self.example = kept, tried, reasons, example
        why = "; ".join(f"{count} x {reason}" for reason, count in reasons.items()) or "it has no such pairs"
        super().__init__(
            f"Behaviour {behaviour!r} is not expressible with this tokenizer: {kept} of {tried} {split} "
            f"pairs tried could be used ({why})." + (f" Example: {example}" if example else "")
        )


@dataclass(frozen=True)
class Answer:
    """What ordinary text continues a prompt with.

    Attributes:
        text: the continuation, as long as it takes for the tokenizer to cut it as it would in a document.
        whole: so many of its first characters must be inside the one token that is asked for.
    """

    text: str
    whole: int = 1


@dataclass(frozen=True)
class Draft:
    """A prompt pair before any tokenizer has seen it.

    Attributes:
        clean, clean_answer, counterfactual, counterfactual_answer: both prompts and what continues them.
        template: name of the frame the pair was made from; intervals are resampled over frames.
        fillers: the words that were drawn.
        source: where the pair was written, for messages.
    """

    clean: str
    clean_answer: Answer
    counterfactual: str
    counterfactual_answer: Answer
    template: str
    fillers: tuple[str, ...] = ()
    source: str = ""


@dataclass(frozen=True)
class Pair:
    """Two prompts that differ in one meaningful way, and the text of the right next token of each."""

    clean: str
    counterfactual: str
    clean_token: str
    counterfactual_token: str
    template: str


class Behaviour(ABC):
    """A named distribution over prompt pairs.

    Attributes:
        name, description: for tables and reports.
        min_pairs: with fewer expressible pairs in a split, the behaviour counts as not expressible.
        strict: whether a single pair that cannot be expressed is an error (pairs that a user wrote).
        aligned: whether a pair is only kept if its prompts have equally many tokens and end in the same one.
    """

    name: str
    description: str
    min_pairs: int = 64
    strict: bool = False
    aligned: bool = False

    @abstractmethod
    def drafts(self, rng: random.Random, split: Split) -> Iterator[Draft]:
        """Pairs of one split, endless or not; no prompt of one split occurs in another."""

    @abstractmethod
    def templates(self, split: Split) -> tuple[str, ...]:
        """The names of the templates of one split."""
