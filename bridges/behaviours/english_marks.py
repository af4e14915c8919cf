"""Marks that close what was opened: quotation marks, brackets, and the end of a question."""

from __future__ import annotations

from bridges.behaviours.english_words import COMMON, SCENES
from bridges.behaviours.fillers import pool
from bridges.behaviours.template import Template, TemplateBehaviour

quote_closing = TemplateBehaviour(
    "quote_closing",
    "A quotation inside a sentence is closed by the mark that opened it.",
    cue={"q": ('"', "'")},
    fillers={
        **COMMON,
        "phrase": pool(
            """open; keep out; no smoking; welcome home; for sale; made by hand; one way; wet paint; please wait; good
            luck; closed; private; do not touch; happy birthday; exit only; fresh bread; slow down; hot soup; thank
            you; well done""",
            ";",
        ),
    },
    contexts=SCENES,
    frames=(
        "The $color sign on the $place says $q$phrase|$q in big letters.",
        "At the $color $place they wrote $q$phrase|$q on the wall.",
        "She went to the $color $place and read the words $q$phrase|$q aloud.",
        "In the $place hung a $color note with $q$phrase|$q on it.",
        "On the $color door of the $place he painted $q$phrase|$q in large type.",
        "The $color card from the $place has $q$phrase|$q printed on it.",
        "Somebody near the $color $place shouted $q$phrase|$q at us.",
        "Above the $place we saw a $color board with $q$phrase|$q for the guests.",
        "He looked up and said $q$phrase|$q to the $job.",
        "The $color label on the bottle reads $q$phrase|$q and nothing else.",
        "My friend from the $place wrote $q$phrase|$q at the end of his letter.",
        "There is a sign at the $place with the words $q$phrase|$q on it.",
        "A $color sticker said $q$phrase|$q in the window.",
        "The title of the book about the $place is $q$phrase|$q by an unknown author.",
    ),
    reach=(
        "All I could read on the $color ticket was $q$phrase|$q and a number.",
        "The last message from the $place was $q$phrase|$q again.",
        "They called the $color boat $q$phrase|$q after an old song.",
        "Under the picture of the $place stands $q$phrase|$q in pencil.",
    ),
)

bracket_closing = TemplateBehaviour(
    "bracket_closing",
    "A remark in brackets is closed by the bracket of the kind that opened it.",
    cue={"o": ("(", "["), "c": (")", "]")},
    fillers={
        **COMMON,
        "note": pool(
            """see page four; at least once; in most cases; more or less; not shown here; only in part; as we know; by
            hand; for the first time; in the summer; near the river; on the left; without a reason; if possible; as
            before; like the others""",
            ";",
        ),
    },
    contexts=SCENES,
    frames=(
        "The old $place $o$note|$c was closed.",
        "My $thing $o$note|$c was lost.",
        "The $color house near the $place $o$note|$c is for sale.",
        "They bought a $color $thing $o$note|$c and went home.",
        "He went to the $place $o$note|$c with his brother.",
        "A $job from the city $o$note|$c found it.",
        "We stayed at the $place $o$note|$c for two days.",
        "Everything in the $place $o$note|$c belongs to them.",
        "The story of the $color $thing $o$note|$c is well known.",
        "In the village there was a $place $o$note|$c where children played.",
        "Please bring the $thing $o$note|$c to the $place.",
        "She gave me a $thing $o$note|$c for my birthday.",
        "The $job paid for the $thing $o$note|$c in cash.",
    ),
    reach=(
        "Last year the $place $o$note|$c got a new roof.",
        "It is true that every $job $o$note|$c needs a $thing.",
        "Some of the $color paint $o$note|$c was left.",
        "They say that the $place $o$note|$c was built by a $job.",
    ),
)


def _asked(text: str, word: str, instead: str) -> Template:
    return Template(text, {"w": (word, instead)})


question_mark = TemplateBehaviour(
    "question_mark",
    "A sentence that asks ends in a question mark, one that tells in a full stop.",
    cue={"end": ("?", ".")},
    fillers={**COMMON, "day": pool("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")},
    contexts=SCENES,
    frames=(
        _asked("$w saw the $color $thing|$end Nobody knew.", "Who", "He"),
        _asked("$w is the best $job in the city|$end It is a secret.", "Who", "She"),
        _asked("$w they open the $place|$end It was noon.", "Can", "Now"),
        _asked("$w we go to the $place|$end The sun was shining.", "Should", "Sometimes"),
        _asked("$w you take the $thing to the $place|$end It was gone.", "Did", "Then"),
        _asked("$w took the $color $thing from the $place|$end It was gone.", "Who", "They"),
        _asked("$w of them lost the $thing|$end It was gone.", "Which", "Most"),
        _asked("$w we buy a new $thing for the $job|$end It was a good idea.", "Should", "Later"),
        _asked("$w lives in the $color house near the $place|$end It is large.", "Who", "She"),
        _asked("$w you see the $job in the $place|$end It was dark.", "Can", "Here"),
        _asked("$w I have the $color $thing|$end It is nice.", "May", "Now"),
        _asked("$w wrote this letter to the $job|$end It is long.", "Who", "I"),
        _asked("$w they open the $place on $day|$end It was closed.", "Do", "Here"),
    ),
    reach=(
        _asked("$w painted the $place in $color|$end It was new.", "Who", "We"),
        _asked("$w people work at the $place|$end It was large.", "Which", "Many"),
        _asked("$w you want to be a $job|$end It is hard work.", "Did", "Maybe"),
        _asked("$w gave the $thing to the $job|$end It was a gift.", "Who", "She"),
    ),
)
MARKS = (quote_closing, bracket_closing, question_mark)
