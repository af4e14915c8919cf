"""The language of a planted world: words, a word-level tokenizer, documents and prompts.

Every behaviour has two cue words, two answers and a word that asks; a behaviour of agreement has two mode words as
well. A document holds at most one cue of each behaviour, and after some filler words the questions with their answers,
so that the text says what the planted circuits compute.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from bridges.behaviours.pair import Answer, Behaviour, Draft, Split

END, UNKNOWN = "<|end|>", "<|unknown|>"
FILLERS = 24
# Tokens of a document with its end token. Blocks of this length hold one document each.
CONTEXT = 32
# Tokens of a prompt, its end token and the question included.
LENGTHS: dict[Split, tuple[int, ...]] = {"train": (14, 16), "heldout": (15, 17), "reach": (13, 18)}
# Of how many prompts and documents the cue of a behaviour that is not asked for is a part.
_PRESENT = 0.6


@dataclass(frozen=True)
class Words:
    """The words of one behaviour.

    Attributes:
        behaviour: its name.
        cues: the two words that decide. modes: two words one of which stands in every prompt, or none.
        ask: the last word of a prompt.
        answers: the first is right after the first cue; with modes, where cue and mode are both first or both second.
    """

    behaviour: str
    cues: tuple[str, str]
    modes: tuple[()] | tuple[str, str]
    ask: str
    answers: tuple[str, str]

    @classmethod
    def of(cls, behaviour: str, modes: bool) -> Words:
        """The words of a behaviour of this name."""
        return cls(
            behaviour,
            (f"{behaviour}.a", f"{behaviour}.b"),
            (f"{behaviour}.up", f"{behaviour}.down") if modes else (),
            f"{behaviour}?",
            (f"{behaviour}.yes", f"{behaviour}.no"),
        )

    @property
    def all(self) -> tuple[str, ...]:
        """Every word, in the order of the vocabulary."""
        return (*self.cues, *self.modes, self.ask, *self.answers)

    def right(self, cue: int, mode: int) -> str:
        """The right answer to the cue and mode of these numbers; the mode counts only where there are modes."""
        return self.answers[cue ^ mode if self.modes else cue]

    def draw(self, rng: random.Random) -> tuple[int, int, list[str]]:
        """Numbers of a cue and a mode, and the words that say so."""
        cue, mode = rng.randrange(2), rng.randrange(2)
        return cue, mode, [self.cues[cue], *([self.modes[mode]] if self.modes else [])]


@dataclass(frozen=True)
class Language:
    """All words of a world.

    Attributes:
        asked: the words of each behaviour.
        fillers: words that mean nothing, of every split. Documents and the prompts of "reach" have all of them.
    """

    asked: tuple[Words, ...]
    fillers: dict[Split, tuple[str, ...]]

    @classmethod
    def of(cls, asked: Sequence[Words]) -> Language:
        """The language of these behaviours."""
        train, heldout = (tuple(f"{letter}{i}" for i in range(FILLERS)) for letter in "th")
        return cls(tuple(asked), {"train": train, "heldout": heldout, "reach": (*train, *heldout)})

    @property
    def vocabulary(self) -> list[str]:
        """Every word; its place is its token id."""
        return [END, UNKNOWN, *(w for words in self.asked for w in words.all), *self.every_filler]

    @property
    def every_filler(self) -> tuple[str, ...]:
        return self.fillers["reach"]

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """A tokenizer whose tokens are the words."""
        ids = {word: i for i, word in enumerate(self.vocabulary)}
        tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            eos_token=END,
            bos_token=END,
            pad_token=END,
            unk_token=UNKNOWN,
            model_max_length=CONTEXT,
            clean_up_tokenization_spaces=False,
        )

    def document(self, rng: random.Random) -> str:
        """A document of ``CONTEXT − 1`` words: cues among fillers, then questions and their answers."""
        body: list[str] = []
        questions: list[list[str]] = []
        for words in self.asked:
            if rng.random() < _PRESENT:
                cue, mode, said = words.draw(rng)
                body += said
                if rng.random() < _PRESENT:
                    questions.append([words.ask, words.right(cue, mode)])
        room = CONTEXT - 1 - len(body)
        questions = questions[: room // 2]
        body += rng.choices(self.every_filler, k=room - 2 * len(questions))
        rng.shuffle(body)
        rng.shuffle(questions)
        return " ".join([*body, *(word for question in questions for word in question)])

    def documents(self, count: int, seed: int) -> Iterator[str]:
        """So many documents; the same seed gives the same ones."""
        rng = random.Random(f"documents {seed}")
        return (self.document(rng) for _ in range(count))


class PlantedBehaviour(Behaviour):
    """A planted behaviour: prompts that differ in its cue alone.

    Cues of the other behaviours stand among the fillers. Fillers and lengths of the held-out prompts do not occur in
    training prompts; prompts of "reach" have all fillers and lengths of their own.
    """

    def __init__(self, words: Words, language: Language, description: str):
        self.name, self.description = words.behaviour, description
        self.words, self.language = words, language

    def templates(self, split: Split) -> tuple[str, ...]:
        return tuple(f"{split}-{length}" for length in LENGTHS[split])

    def drafts(self, rng: random.Random, split: Split) -> Iterator[Draft]:
        while True:
            yield self._draft(rng, split, rng.choice(LENGTHS[split]))

    def _draft(self, rng: random.Random, split: Split, length: int) -> Draft:
        _, mode, said = self.words.draw(rng)
        body: list[str | None] = [None, *said[1:]]
        others = [w for w in self.language.asked if w is not self.words]
        rng.shuffle(others)
        for other in others:
            said = other.draw(rng)[2]
            # Half of a prompt at least is fillers.
            if rng.random() < _PRESENT and len(body) + len(said) <= length // 2:
                body += said
        body += rng.choices(self.language.fillers[split], k=length - 2 - len(body))
        rng.shuffle(body)
        clean = rng.randrange(2)
        prompts, answers = [], []
        for cue in (clean, 1 - clean):
            words = [self.words.cues[cue] if word is None else word for word in body]
            prompts.append(" ".join([*words, self.words.ask]))
            right = self.words.right(cue, mode)
            answers.append(Answer(f" {right}", whole=len(right) + 1))
        return Draft(prompts[0], answers[0], prompts[1], answers[1], f"{split}-{length}")
