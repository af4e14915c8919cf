"""Fillers with further forms: a country and its capital, a verb and its participle, a day and the next one."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence

from bridges.behaviours.fillers import Pools, pool
from bridges.behaviours.template import Cue, Template, TemplateBehaviour

Forms = Mapping[str, tuple[str, Mapping[str, str]]]
_DIGITS = "0123456789"


def table(text: str, form: int = 1) -> dict[str, str]:
    """Read forms from entries like ``tall/taller/tallest``: the first of each, and its `form`-th after it."""
    entries = [entry.split("/") for entry in pool(text)]
    return {entry[0]: entry[form] for entry in entries}


class FormBehaviour(TemplateBehaviour):
    """A template behaviour in which some slots hold a form of what another slot holds.

    With ``forms={"capital": ("country", {"France": "Paris"})}`` the slot ``$capital2`` holds the capital of the
    country in ``$country2``, whether or not that slot occurs itself. The table's keys are the pool of the kind it is
    a form of. Forms are fillers like others: none is a word of the text around it or of another slot.

    Args:
        forms: kind of slot -> (kind it is a form of, table of forms). The others are those of `TemplateBehaviour`.
    """

    def __init__(
        self,
        name: str,
        description: str,
        frames: Sequence[Template | str],
        reach: Sequence[Template | str],
        contexts: Sequence[str],
        cue: Cue,
        fillers: Pools,
        forms: Forms,
    ) -> None:
        self.forms = dict(forms)
        pools: dict[str, tuple[str, ...]] = {}
        for kind, (root, table) in self.forms.items():
            pools |= {root: tuple(table), kind: tuple(table.values())}
        super().__init__(name, description, frames, reach, contexts, cue, {**fillers, **pools})

    def _fill(self, rng: random.Random, slots: Iterable[str], used: set[str]) -> dict[str, str]:
        """A filler for each of `slots`, none of them in `used`, to which they are added."""
        wanted: dict[str, list[str]] = {}  # the slot that is drawn -> the slots that hold its forms
        for slot in dict.fromkeys(slots):
            kind = slot.rstrip(_DIGITS)
            if kind in self.forms:
                wanted.setdefault(self.forms[kind][0] + slot[len(kind) :], []).append(slot)
            else:
                wanted.setdefault(slot, [])
        fillers: dict[str, str] = {}
        for root, derived in wanted.items():
            tables = {slot: self.forms[slot.rstrip(_DIGITS)][1] for slot in derived}
            clash = {word for forms in tables.values() for word, form in forms.items() if form in used}
            drawn = super()._fill(rng, [root], used | clash)
            drawn |= {slot: forms[drawn[root]] for slot, forms in tables.items()}
            used |= set(drawn.values())
            fillers |= drawn
        return fillers
