"""Behaviours as small grammars: contexts × frames × fillers, with a mark where the model is asked."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bridges.behaviours.fillers import FILLERS, Pools
from bridges.behaviours.pair import Answer, Behaviour, BehaviourError, Draft, Split

MARK = "|"
_SLOT = re.compile(r"\$(?:\{([A-Za-z]+\d*)\}|([A-Za-z]+\d*))")
_WORD = re.compile(r"[A-Za-z_]\w*")
# Draws after which a frame that has not given a pair of the split at hand is passed over for this turn.
_PATIENCE = 40
_DIGITS = "0123456789"

Cue = Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class Template:
    """One frame: a piece of text with slots.

    Attributes:
        text: what a document would hold. ``$slot`` or ``${slot}`` is filled in; what stands before the first
            ``|`` is the prompt, what follows is the ordinary continuation. A second ``|`` ends the part of
            the continuation that has to be inside the one token asked for.
        cue: slots that tell the clean from the counterfactual prompt: ``slot: (clean, counterfactual)``.
            Their values may hold slots and the marks. The behaviour's own cue fills in what is not given
            here.
    """

    text: str
    cue: Cue = field(default_factory=dict)


class TemplateBehaviour(Behaviour):
    """A behaviour whose pairs are frames with a cue; everything else is filled alike in both prompts.

    A draw is a context, a frame and fillers, each drawn uniformly. A filler slot is named by its pool and
    perhaps a number, ``$name`` or ``$name2``. Two slots of a prompt never hold the same filler, and none holds
    a word that the prompt itself uses.

    The splits "train" and "heldout" are drawn from the same frames, contexts and fillers. A hash of its text
    gives each prompt to one of the two, and a draw whose prompts are given to different ones is in neither:
    so no prompt is ever in both, whatever the seeds. The split "reach" is drawn from frames of its own.

    Args:
        name, description: for tables and reports.
        frames: of "train" and "heldout"; they are called ``frame-1``, ``frame-2`` and so on.
        reach: frames of "reach", called ``reach-1`` and so on; none by default.
        contexts: texts that may stand before a frame, with filler slots of their own and no marks; ``""``
            among them is a draw without one.
        cue: of all frames.
        fillers: pools beside or in place of the common ones.
    """

    aligned = True

    def __init__(
        self,
        name: str,
        description: str,
        frames: Sequence[Template | str],
        reach: Sequence[Template | str] = (),
        contexts: Sequence[str] = ("",),
        cue: Cue | None = None,
        fillers: Pools | None = None,
    ) -> None:
        self.name, self.description = name, description
        self.cue: Cue = dict(cue or {})
        self.pools: Pools = {**FILLERS, **(fillers or {})}
        self.frames = self._named("frame", frames)
        self.reach = self._named("reach", reach)
        self.contexts = tuple(contexts) or ("",)
        self._contexts = [self._text(context) for context in self.contexts]
        self._sides = {
            name: (self._side(frame, 0), self._side(frame, 1)) for name, frame in {**self.frames, **self.reach}.items()
        }

    def _named(self, kind: str, given: Sequence[Template | str]) -> dict[str, Template]:
        made = (Template(t) if isinstance(t, str) else t for t in given)
        return {f"{kind}-{i}": Template(t.text, {**self.cue, **t.cue}) for i, t in enumerate(made, 1)}

    def _text(self, text: str) -> _Text:
        made = _Text.of(text)
        for slot in made.slots:
            if slot.rstrip(_DIGITS) not in self.pools:
                raise BehaviourError(f"Behaviour {self.name!r} has no fillers for the slot ${slot}.")
        return made

    def _side(self, frame: Template, side: int) -> _Side:
        """The clean (0) or counterfactual (1) prompt of a frame and its answer, both with their slots still open."""
        text = _expand(frame.text, {slot: values[side] for slot, values in frame.cue.items()})
        prompt, *rest = text.split(MARK)
        if len(rest) not in (1, 2) or not prompt or not rest[0]:
            raise BehaviourError(f"Behaviour {self.name!r}: {text!r} needs one or two marks '{MARK}'.")
        return _Side(self._text(prompt), self._text(rest[0]), self._text(rest[1]) if len(rest) == 2 else None)

    def _of(self, split: Split) -> dict[str, Template]:
        return self.reach if split == "reach" else self.frames

    def templates(self, split: Split) -> tuple[str, ...]:
        return tuple(self._of(split))

    def drafts(self, rng: random.Random, split: Split) -> Iterator[Draft]:
        """Draws of one split, endless; frames take turns. None if there are no such frames."""
        names, passed = self.templates(split), 0
        while names and passed < len(names):
            passed = 0
            for name in names:
                for _ in range(_PATIENCE):
                    if draft := self._draft(rng, name, split):
                        yield draft
                        break
                else:
                    passed += 1

    def _draft(self, rng: random.Random, name: str, split: Split) -> Draft | None:
        """One draw of a frame, or None where it belongs to another split."""
        context = rng.choice(self._contexts)
        sides = self._sides[name]
        used = set().union(context.words, *(side.words for side in sides))
        # A slot of the context is none of the frame, also where both have the same name.
        before = self._fill(rng, context.slots, used)
        fillers = self._fill(rng, dict.fromkeys(slot for side in sides for slot in side.slots), used)
        lead = context.filled(before)
        clean, counterfactual = (lead + side.prompt.filled(fillers) for side in sides)
        if split != "reach" and {_half(clean), _half(counterfactual)} != {split}:
            return None
        first, second = (side.answer(fillers) for side in sides)
        return Draft(clean, first, counterfactual, second, name, (*before.values(), *fillers.values()))

    def _fill(self, rng: random.Random, slots: Iterable[str], used: set[str]) -> dict[str, str]:
        """A filler for each of `slots`, none of them in `used`, to which they are added."""
        fillers: dict[str, str] = {}
        for slot in slots:
            kind = slot.rstrip(_DIGITS)
            word = rng.choice(self.pools[kind])
            if word in used:
                free = [f for f in self.pools[kind] if f not in used]
                if not free:
                    raise BehaviourError(f"Behaviour {self.name!r} has too few fillers of kind {kind!r}.")
                word = rng.choice(free)
            fillers[slot] = word
            used |= {word, *_WORD.findall(word)}
        return fillers


@dataclass(frozen=True)
class _Text:
    """A text cut at its slots once, since thousands of draws fill it: a literal before each slot, and the last one."""

    literals: tuple[str, ...]
    slots: tuple[str, ...]
    words: frozenset[str]

    @classmethod
    def of(cls, text: str) -> _Text:
        pieces = _SLOT.split(text)
        slots = tuple(braced or plain for braced, plain in zip(pieces[1::3], pieces[2::3], strict=True))
        return cls(tuple(pieces[::3]), slots, frozenset(_WORD.findall(_SLOT.sub(" ", text))))

    def filled(self, fillers: Mapping[str, str]) -> str:
        words = [*(fillers[slot] for slot in self.slots), ""]
        return "".join(literal + word for literal, word in zip(self.literals, words, strict=True))


@dataclass(frozen=True)
class _Side:
    """One prompt of a frame, what has to be in the answer's first token, and what follows if that is not all."""

    prompt: _Text
    first: _Text
    rest: _Text | None

    @property
    def texts(self) -> tuple[_Text, ...]:
        return (self.prompt, self.first, self.rest) if self.rest else (self.prompt, self.first)

    @property
    def slots(self) -> list[str]:
        return [slot for text in self.texts for slot in text.slots]

    @property
    def words(self) -> set[str]:
        return set().union(*(text.words for text in self.texts))

    def answer(self, fillers: Mapping[str, str]) -> Answer:
        first = self.first.filled(fillers)
        return Answer(first + self.rest.filled(fillers), len(first)) if self.rest else Answer(first)


def _half(prompt: str) -> Split:
    """The split that a prompt belongs to, by its text alone."""
    return "train" if hashlib.blake2b(prompt.encode(), digest_size=1).digest()[0] & 1 else "heldout"


def _expand(text: str, values: Mapping[str, str]) -> str:
    """`text` with the slots in `values` filled in, and those inside the values; other slots stay, in braces.

    Without the braces a slot would swallow the letters that another slot puts behind it.
    """

    def filled(match: re.Match[str]) -> str:
        slot = match[1] or match[2]
        return _expand(values[slot], values) if slot in values else "${" + slot + "}"

    return _SLOT.sub(filled, text)
