"""Behaviours as small grammars: contexts × frames × fillers, with a mark where the model is asked."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bridges.behaviours.fillers import FILLERS, Pools
from bridges.behaviours.pair import Answer, Behaviour, BehaviourError, Draft, Split

MARK = "|"
_SLOT = re.compile(r"\$(?:\{([A-Za-z]+\d*)\}|([A-Za-z]+\d*))")
_WORD = re.compile(r"[A-Za-z_]\w*")
# Draws after which a frame that has not given a pair of the split at hand is passed over for this turn.
_PATIENCE = 40

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
        self.contexts = tuple(contexts) or ("",)
        if bad := [c for c in self.contexts if MARK in c]:
            raise BehaviourError(f"Behaviour {name!r}: the context {bad[0]!r} must not hold the mark '{MARK}'.")
        self.frames = self._named("frame", frames)
        self.reach = self._named("reach", reach)

    def _named(self, kind: str, given: Sequence[Template | str]) -> dict[str, Template]:
        made = (Template(t) if isinstance(t, str) else t for t in given)
        return {f"{kind}-{i}": Template(t.text, {**self.cue, **t.cue}) for i, t in enumerate(made, 1)}

    def _of(self, split: Split) -> dict[str, Template]:
        return self.reach if split == "reach" else self.frames

    def templates(self, split: Split) -> tuple[str, ...]:
        return tuple(self._of(split))

    def drafts(self, rng: random.Random, split: Split) -> Iterator[Draft]:
        """Draws of one split, endless; frames take turns. None if there are no such frames."""
        frames, passed = self._of(split), 0
        while frames and passed < len(frames):
            passed = 0
            for name, frame in frames.items():
                for _ in range(_PATIENCE):
                    draft = self._draft(rng, name, frame)
                    if split == "reach" or {_half(draft.clean), _half(draft.counterfactual)} == {split}:
                        yield draft
                        break
                else:
                    passed += 1

    def _draft(self, rng: random.Random, name: str, frame: Template) -> Draft:
        sides = [_expand(frame.text, {slot: values[side] for slot, values in frame.cue.items()}) for side in (0, 1)]
        context = rng.choice(self.contexts)
        used = {w for text in (context, *sides) for w in _WORD.findall(_SLOT.sub(" ", text))}
        # A slot of the context is none of the frame, also where both have the same name.
        before = self._fill(rng, _slots(context), used)
        fillers = self._fill(rng, _slots(sides[0]) + _slots(sides[1]), used)
        lead = _expand(context, before)
        (clean, first), (counterfactual, second) = (self._cut(_expand(side, fillers)) for side in sides)
        words = (*before.values(), *fillers.values())
        return Draft(lead + clean, first, lead + counterfactual, second, name, words)

    def _fill(self, rng: random.Random, slots: Sequence[str], used: set[str]) -> dict[str, str]:
        """A filler for each of `slots`, none of them in `used`, to which they are added."""
        fillers: dict[str, str] = {}
        for slot in dict.fromkeys(slots):
            kind = slot.rstrip("0123456789")
            if kind not in self.pools:
                raise BehaviourError(f"Behaviour {self.name!r} has no fillers for the slot ${slot}.")
            free = [f for f in self.pools[kind] if f not in used]
            if not free:
                raise BehaviourError(f"Behaviour {self.name!r} has too few fillers of kind {kind!r}.")
            fillers[slot] = rng.choice(free)
            used |= {fillers[slot], *_WORD.findall(fillers[slot])}
        return fillers

    def _cut(self, text: str) -> tuple[str, Answer]:
        prompt, *rest = text.split(MARK)
        if len(rest) not in (1, 2) or not prompt or not rest[0]:
            raise BehaviourError(f"Behaviour {self.name!r}: {text!r} needs one or two marks '{MARK}'.")
        return prompt, Answer("".join(rest), len(rest[0]) if len(rest) == 2 else 1)


def _half(prompt: str) -> Split:
    """The split that a prompt belongs to, by its text alone."""
    return "train" if hashlib.blake2b(prompt.encode(), digest_size=1).digest()[0] & 1 else "heldout"


def _slots(text: str) -> list[str]:
    return [braced or plain for braced, plain in _SLOT.findall(text)]


def _expand(text: str, values: Mapping[str, str]) -> str:
    """`text` with the slots in `values` filled in, and those inside the values; other slots stay, in braces.

    Without the braces a slot would swallow the letters that another slot puts behind it.
    """

    def filled(match: re.Match[str]) -> str:
        slot = match[1] or match[2]
        return _expand(values[slot], values) if slot in values else "${" + slot + "}"

    return _SLOT.sub(filled, text)
