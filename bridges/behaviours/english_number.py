"""Number of nouns: singular or plural after a numeral or a determiner, with an adjective between them."""

from __future__ import annotations

from bridges.behaviours.english_words import COMMON, SCENES
from bridges.behaviours.template import Template, TemplateBehaviour


def _with(text: str, one: str, more: str) -> Template:
    return Template(text, {"n": (one, more)})


plural_after_numeral = TemplateBehaviour(
    "plural_after_numeral",
    "A noun is in the plural after a numeral above one.",
    cue={"x": (" $item", " ${item}s")},
    fillers=COMMON,
    contexts=SCENES,
    frames=(
        _with("He bought $n $kind|$x| at the $place.", "one", "two"),
        _with("We saw $n $color|$x| near the $place.", "one", "three"),
        _with("In the $place I found $n $kind|$x|.", "one", "four"),
        _with("She has $n $kind|$x| at home.", "one", "five"),
        _with("They sold $n $color|$x| last week.", "one", "two"),
        _with("Only $n $kind|$x| could be saved.", "one", "three"),
        _with("The $job owns $n $color|$x|.", "one", "six"),
        _with("I need $n $kind|$x| for the $place.", "one", "two"),
        _with("My friend lost $n $color|$x| on the way.", "one", "four"),
        _with("Please give me $n $kind|$x|.", "one", "three"),
        _with("You can take $n $color|$x| with you.", "one", "ten"),
        _with("After an hour $n $kind|$x| came by.", "one", "two"),
        _with("Every child got $n $color|$x|.", "one", "five"),
    ),
    reach=(
        _with("The box holds $n $kind|$x| and nothing else.", "one", "three"),
        _with("Behind the $place stood $n $color|$x|.", "one", "two"),
        _with("Now $n $kind|$x| will be enough.", "one", "four"),
        _with("With $n $color|$x| you can begin.", "one", "ten"),
    ),
)

plural_after_determiner = TemplateBehaviour(
    "plural_after_determiner",
    "A noun has the number of its determiner: this, that, each and a; these, those, both and many.",
    cue={"x": (" $item", " ${item}s")},
    fillers=COMMON,
    contexts=SCENES,
    frames=(
        _with("I want to buy $n $kind|$x|.", "this", "these"),
        _with("She gave me $n $color|$x|.", "that", "those"),
        _with("We looked at $n $kind|$x| in the $place.", "every", "several"),
        _with("He painted $n $kind|$x|.", "each", "both"),
        _with("The $job sold $n $color|$x|.", "another", "many"),
        _with("They brought $n $kind|$x| to the $place.", "a", "some"),
        _with("Nobody liked $n $color|$x|.", "that", "those"),
        _with("At the $place I saw $n $kind|$x|.", "a", "many"),
        _with("Put $n $color|$x| on the floor.", "this", "these"),
        _with("My friend wanted $n $kind|$x|.", "each", "all"),
        _with("Take $n $kind|$x| with you.", "that", "those"),
        _with("We have lost $n $color|$x|.", "another", "several"),
        _with("The $job talked about $n $kind|$x|.", "this", "these"),
    ),
    reach=(
        _with("The shop still has $n $color|$x|.", "this", "these"),
        _with("I often dream of $n $kind|$x|.", "that", "those"),
        _with("He carried $n $color|$x| to the $place.", "each", "both"),
        _with("There she hid $n $kind|$x|.", "a", "several"),
    ),
)
NUMBER = (plural_after_numeral, plural_after_determiner)
