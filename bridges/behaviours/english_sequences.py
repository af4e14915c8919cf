"""What comes next: days, months, letters, numbers, and years that are later than others (Hanna et al. 2023)."""

from __future__ import annotations

from bridges.behaviours.english_forms import FormBehaviour, Forms
from bridges.behaviours.english_words import COMMON, LESSONS, SCENES
from bridges.behaviours.fillers import pool
from bridges.behaviours.template import Cue

_DAYS = pool("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
_MONTHS = pool("January February March April May June July August September October November December")
_LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_NUMBERS = pool("one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen")

# $d is the word at hand, $c and $b stand before it, and $n is next.
_CUE: Cue = {
    "d": ("$at", "$at2"),
    "c": ("$before", "$before2"),
    "b": ("$earlier", "$earlier2"),
    "n": ("$next", "$next2"),
}


def _around(row: tuple[str, ...], closed: bool) -> Forms:
    """The neighbours in a row; those of a closed row go round."""
    last = len(row)
    inside = range(last) if closed else range(2, last - 1)
    return {
        kind: ("at", {row[i]: row[(i + step) % last] for i in inside})
        for kind, step in (("next", 1), ("before", -1), ("earlier", -2))
    }


day_sequence = FormBehaviour(
    "day_sequence",
    "The day after a day of the week.",
    cue=_CUE,
    fillers=COMMON,
    forms=_around(_DAYS, closed=True),
    contexts=SCENES,
    frames=(
        "The days of the week go on like this: $c, $d,| $n|.",
        "If today is $d, tomorrow is| $n|.",
        "Today is $d. Tomorrow will be| $n|.",
        "The $place is closed on $c, on $d and on| $n|.",
        "$person arrived on $d and left the day after, on| $n|.",
        "The $place is open on $d and on the following day,| $n|.",
        "On $d we meet at the $place, and one day later, on| $n|, at the $place2.",
        "After $d comes| $n|.",
        "They worked on $d and again the next day, on| $n|.",
        "The days are $c, $d,| $n|.",
        "We were there for two days, $d and| $n|.",
        "The meeting on $d was moved by one day to| $n|.",
        "She works at the $place on $c, $d and| $n|.",
        "We count the days: $c, then $d, then| $n|.",
    ),
    reach=(
        "It rained all $d, and the sun came out the day after, on| $n|.",
        "The holidays begin the day after $d, that is on| $n|.",
        "The night train leaves on $d and arrives the next morning, on| $n|.",
        "The $job has no time on $c, on $d or on| $n|.",
    ),
)

month_sequence = FormBehaviour(
    "month_sequence",
    "The month after a month of the year.",
    cue=_CUE,
    fillers=COMMON,
    forms=_around(_MONTHS, closed=True),
    contexts=SCENES,
    frames=(
        "The month after $d is| $n|.",
        "The month of $d is followed by| $n|.",
        "The months are $c, $d,| $n|.",
        "After $d comes| $n|.",
        "$person came in $d and left a month later, in| $n|.",
        "If this month is $d, next month is| $n|.",
        "It is $d now. Next month will be| $n|.",
        "The $place is closed in $c, $d and| $n|.",
        "They were in the city for two months, $d and| $n|.",
        "We waited from the end of $d to the beginning of| $n|.",
        "The $place is full from late $d to early| $n|.",
        "The last day of $d is the day before the first of| $n|.",
        "The coldest months were $b, $c, $d and| $n|.",
        "He stayed through $c and $d and left in| $n|.",
    ),
    reach=(
        "When $d is over, it is| $n|.",
        "My birthday is in $d, and hers is one month later, in| $n|.",
        "She paid in $d and again the month after, in| $n|.",
        "The $job was away during $c, during $d and during| $n|.",
    ),
)

letter_sequence = FormBehaviour(
    "letter_sequence",
    "The next letter of the alphabet.",
    cue=_CUE,
    fillers=COMMON,
    forms=_around(_LETTERS, closed=False),
    contexts=LESSONS,
    frames=(
        "The letters are $b, $c, $d,| $n|.",
        "In the song the letters are $b, $c, $d,| $n|.",
        "Say the letters: $c, $d,| $n|.",
        "The alphabet goes on with $b, $c, $d,| $n|.",
        "Rooms $c, $d and| $n| are free.",
        "There are three groups, $c, $d and| $n|.",
        "The triangle has the points $c, $d and| $n|.",
        "First $c, then $d, then| $n|.",
        "Then come the letters $c, $d and| $n|.",
        "Parts $b, $c, $d and| $n| are missing.",
        "Read sections $c, $d and| $n|.",
        "My teams are $b, $c, $d, and| $n|.",
        "Column $c, column $d, column| $n|.",
    ),
    reach=(
        "The children sang $b, $c, $d,| $n|.",
        "Take line $c, line $d or line| $n|.",
        "Plan $b failed, plan $c failed, plan $d failed, so we tried plan| $n|.",
        "On the map the streets are $b, $c, $d and| $n|.",
    ),
)

number_sequence = FormBehaviour(
    "number_sequence",
    "The number after a number, in words.",
    cue=_CUE,
    fillers=COMMON,
    forms=_around(_NUMBERS, closed=False),
    contexts=LESSONS,
    frames=(
        "Count: $b, $c, $d,| $n|.",
        "The numbers are $b, $c, $d,| $n|.",
        "She counted $c, $d,| $n|.",
        "They counted aloud, $c, $d,| $n|.",
        "He said the numbers $b, $c, $d and| $n|.",
        "At first there were $c, then $d, then| $n|.",
        "Steps $c, $d and| $n| are easy.",
        "Read chapters $b, $c, $d and| $n|.",
        "Say it with me: $b, $c, $d,| $n|.",
        "First you take $b, then $c, then $d, then| $n|.",
        "From $b to $c, from $c to $d, from $d to| $n|.",
        "The clock struck $c, then $d, and then| $n|.",
        "Rooms $b, $c, $d and| $n| are free.",
    ),
    reach=(
        "My children are $b, $c, $d and| $n| years old.",
        "Pages $b, $c and $d are short, but page| $n| is long.",
        "We had $d cups, and with your cup we have| $n|.",
        "The dog barked $b times, then $c times, then $d times, then| $n| times.",
    ),
)

number_digit = FormBehaviour(
    "number_digit",
    "A number in words is repeated as a digit.",
    cue={"d": ("$number", "$number2"), "n": ("$digit", "$digit2")},
    fillers=COMMON,
    forms={"digit": ("number", {word: str(i) for i, word in enumerate(_NUMBERS[1:9], 2)})},
    contexts=SCENES,
    frames=(
        "The $job bought $d (|$n|) tickets.",
        "There are $d (|$n|) rooms in the $place.",
        "The trip takes $d (|$n|) days.",
        "Each team has $d (|$n|) players.",
        "They stayed for $d (|$n|) weeks.",
        "She has $d (|$n|) brothers in $city.",
        "The book has $d (|$n|) chapters.",
        "In the $place we counted $d (|$n|) chairs.",
        "You must answer $d (|$n|) questions.",
        "The $place closed $d (|$n|) years ago.",
        "He paid for $d (|$n|) meals.",
        "Only $d (|$n|) people came to the $place.",
        "Please send $d (|$n|) copies to the $job.",
    ),
    reach=(
        "The house was sold $d (|$n|) times.",
        "It costs $d (|$n|) dollars at the $place.",
        "A group of $d (|$n|) students met the $job.",
        "The contract ends after $d (|$n|) months.",
    ),
)


def _ten_years_on(decades: tuple[int, ...]) -> dict[str, str]:
    """Years of these decades, and for each one some year of the next decade."""
    return {f"{ten}{one}": f"{ten + 1}{one * 3 % 10}" for ten in decades for one in range(1, 9)}


# One century throughout: it ends the prompt, and the digits that follow have to be a little later than the first
# year. An end long after an early beginning is possible but unlikely; an end before a late beginning is not.
greater_than = FormBehaviour(
    "greater_than",
    "What began late in a century does not end early in it, and what began early ends soon after.",
    cue={"y": ("$late", "$early"), "end": ("$lateend", "$earlyend")},
    fillers={
        **COMMON,
        "century": pool("14 15 16 17 18"),
        "event": pool("war siege strike trial famine debate project festival drought plague"),
    },
    forms={
        "earlyend": ("early", _ten_years_on((1, 2, 3))),
        "lateend": ("late", _ten_years_on((6, 7, 8))),
    },
    contexts=SCENES,
    frames=(
        "The $event lasted from the year $century$y to the year $century|$end.",
        "The $event began in $century$y and ended in $century|$end.",
        "From $century$y to $century|$end there was a $event.",
        "In $century$y the $event broke out; it was over in $century|$end.",
        "The $event went on between $century$y and $century|$end.",
        "The great $event of $city ($century$y-$century|$end) is well known.",
        "$person was king from $century$y to $century|$end.",
        "$person was born in $century$y and went to school in $century|$end.",
        "The $place was closed in $century$y and opened again in $century|$end.",
        "They met in $century$y and were married in $century|$end.",
        "$person started to work as a $job in $century$y and stopped in $century|$end.",
        "The first $event was in $century$y, the second one in $century|$end.",
        "Work on the $place started in $century$y, and it was finished in $century|$end.",
    ),
    reach=(
        "The $event of $century$y was followed by another one in $century|$end.",
        "He ruled the city from $century$y until $century|$end.",
        "The years of the $event were $century$y to $century|$end.",
        "The $place burned down in $century$y and was built again in $century|$end.",
    ),
)
SEQUENCES = (day_sequence, month_sequence, letter_sequence, number_sequence, number_digit, greater_than)
