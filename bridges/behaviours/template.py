"""Behaviours as templates: pieces of ordinary text with slots, and a mark where the model is asked."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bridges.behaviours.fillers import FILLERS, Pools
from bridges.behaviours.pair import Answer, Behaviour, BehaviourError, Draft, Split

MARK = "|"
_SLOT = re.compile(r"\$(?:\{([A-Za-z]+\d*)\}|([A-Za-z]+\d*))")
_WORD = re.compile(r"[A-Za-z_]\w*")

Cue = Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class Template:
    """One piece of text.

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
    """A behaviour whose pairs are templates with a cue; all other slots are filled alike in both prompts.

    A filler slot is named by its pool and perhaps a number, ``$name`` or ``$name2``. Two slots of a prompt
    never hold the same filler, and none holds a word that the template itself uses. Templates and fillers of
    the held-out split do not occur in the training split.
    """

    def __init__(
        self,
        name: str,
        description: str,
        train: Sequence[Template | str],
        heldout: Sequence[Template | str],
        cue: Cue | None = None,
        fillers: Pools | None = None,
    ) -> None:
        self.name, self.description = name, description
        self.cue: Cue = dict(cue or {})
        self.pools: Pools = {**FILLERS, **(fillers or {})}
        self._templates: dict[Split, dict[str, Template]] = {
            "train": self._named("train", train),
            "heldout": self._named("heldout", heldout),
        }

    def _named(self, split: Split, given: Sequence[Template | str]) -> dict[str, Template]:
        made = (Template(t) if isinstance(t, str) else t for t in given)
        return {f"{split}-{i}": Template(t.text, {**self.cue, **t.cue}) for i, t in enumerate(made, 1)}

    def templates(self, split: Split) -> tuple[str, ...]:
        return tuple(self._templates[split])

    def drafts(self, rng: random.Random, split: Split) -> Iterator[Draft]:
        names = self.templates(split)
        while True:
            name = rng.choice(names)
            yield self._draft(rng, split, name, self._templates[split][name])

    def _draft(self, rng: random.Random, split: Split, name: str, template: Template) -> Draft:
        sides = [
            _expand(template.text, {slot: values[side] for slot, values in template.cue.items()}) for side in (0, 1)
        ]
        used = {w for side in sides for w in _WORD.findall(_SLOT.sub(" ", side))}
        fillers: dict[str, str] = {}
        for slot in dict.fromkeys(_slots(sides[0]) + _slots(sides[1])):
            fillers[slot] = self._fill(rng, split, slot, used)
            used |= {fillers[slot], *_WORD.findall(fillers[slot])}
        (clean, first), (counterfactual, second) = (self._cut(_expand(side, fillers)) for side in sides)
        return Draft(clean, first, counterfactual, second, name, tuple(fillers.values()))

    def _fill(self, rng: random.Random, split: Split, slot: str, used: set[str]) -> str:
        kind = slot.rstrip("0123456789")
        if kind not in self.pools:
            raise BehaviourError(f"Behaviour {self.name!r} has no fillers for the slot ${slot}.")
        pool = self.pools[kind][split == "heldout"]
        free = [f for f in pool if f not in used]
        if not free:
            raise BehaviourError(f"Behaviour {self.name!r} has too few fillers of kind {kind!r}.")
        return rng.choice(free)

    def _cut(self, text: str) -> tuple[str, Answer]:
        prompt, *rest = text.split(MARK)
        if len(rest) not in (1, 2) or not prompt or not rest[0]:
            raise BehaviourError(f"Behaviour {self.name!r}: {text!r} needs one or two marks '{MARK}'.")
        return prompt, Answer("".join(rest), len(rest[0]) if len(rest) == 2 else 1)


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
