"""Indirect objects (Wang et al. 2022): the name that has been said once, not the one that acts."""

from __future__ import annotations

from bridges.behaviours.english_words import COMMON, SCENES
from bridges.behaviours.template import Cue, TemplateBehaviour

# $a and $b are introduced, $s acts, and $io is the other one of the two.
_FRAMES = (
    "When $a and $b went to the $place, $s gave a $thing to| $io|.",
    "$a and $b were at the $place. $s handed the $thing to| $io|.",
    "After $a and $b had left the $place, $s sent a $thing to| $io|.",
    "Yesterday $a and $b met near the $place, and $s showed a $thing to| $io|.",
    "While $a and $b were working at the $place, $s passed the $thing to| $io|.",
    "Then $a and $b had a long talk in the $place, and $s offered a $thing to| $io|.",
    "$a and $b decided to visit the $place. There $s sold a $thing to| $io|.",
    "Once $a and $b arrived at the $place, $s threw the $thing to| $io|.",
    "$a and $b were walking home from the $place when $s returned the $thing to| $io|.",
    "At the $place $a and $b sat down, and $s read a story to| $io|.",
    "Because $a and $b were good friends, $s lent the $thing to| $io|.",
    "$a and $b found a $thing in the $place. Later $s gave it to| $io|.",
    "The day $a and $b moved into the house, $s gave the $thing to| $io|.",
    "Before $a and $b closed the $place, $s told the truth to| $io|.",
)
_REACH = (
    "$a and $b shared a room, and one night $s wrote a note to| $io|.",
    "During dinner with $a and $b at the $place, $s waved at| $io|.",
    "Although $a and $b had argued, $s still made a cake for| $io|.",
    "The $place was empty except for $a and $b, so $s spoke quietly to| $io|.",
)


def _ioi(name: str, description: str, cue: Cue) -> TemplateBehaviour:
    return TemplateBehaviour(name, description, _FRAMES, _REACH, SCENES, cue, COMMON)


_P, _Q = "$person", "$person2"
ioi = _ioi(
    "ioi",
    "The indirect object is the name said once; the prompts differ in the repeated name.",
    {"a": (_P, _P), "b": (_Q, _Q), "s": (_Q, _P), "io": (_P, _Q)},
)
ioi_abba = _ioi(
    "ioi_abba",
    "Indirect object in the order A, B, B: A; the names change places.",
    {"a": (_P, _Q), "b": (_Q, _P), "s": (_Q, _P), "io": (_P, _Q)},
)
ioi_baba = _ioi(
    "ioi_baba",
    "Indirect object in the order B, A, B: A; the names change places.",
    {"a": (_P, _Q), "b": (_Q, _P), "s": (_P, _Q), "io": (_Q, _P)},
)
OBJECTS = (ioi, ioi_abba, ioi_baba)
