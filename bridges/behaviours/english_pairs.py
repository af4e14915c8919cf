"""Words that call for a partner: either and or, more and than, a person and who, a degree and its ending."""

from __future__ import annotations

from bridges.behaviours.english_forms import FormBehaviour, table
from bridges.behaviours.english_words import COMMON, LESSONS, SCENES
from bridges.behaviours.fillers import pool
from bridges.behaviours.template import Template, TemplateBehaviour

_PARTNER = {
    "either": " or",
    "both": " and",
    "neither": " nor",
    "more": " than",
    "less": " than",
    "as": " as",
    "so": " that",
}


def _calls(text: str, word: str, instead: str) -> Template:
    return Template(text, {"w": (word, instead), "x": (_PARTNER[word.lower()], _PARTNER[instead.lower()])})


correlative = TemplateBehaviour(
    "correlative",
    "Either is followed by or, both by and, neither by nor.",
    fillers=COMMON,
    contexts=SCENES,
    frames=(
        _calls("You can have $w the $thing|$x| the $thing2.", "either", "both"),
        _calls("She wants to see $w $person|$x| $person2.", "both", "either"),
        _calls("He sold $w his $thing|$x| his $thing2.", "both", "neither"),
        _calls("They will visit $w the $place|$x| the $place2.", "either", "both"),
        _calls("I like $w the $color one|$x| the $color2 one.", "neither", "both"),
        _calls("$w the $job|$x| the $job2 came.", "Neither", "Both"),
        _calls("We need $w $person|$x| $person2 today.", "both", "either"),
        _calls("We went to $w the $place|$x| the $place2.", "both", "neither"),
        _calls("The $color box holds $w a $thing|$x| a $thing2.", "either", "both"),
        _calls("It is $w $mood|$x| $mood2.", "neither", "both"),
        _calls("You must be $w $mood|$x| $mood2.", "either", "both"),
        _calls("My friend is $w a $job|$x| a $job2.", "neither", "either"),
        _calls("Ask $w the $job|$x| the $job2.", "either", "both"),
    ),
    reach=(
        _calls("According to the letter, $w the $job|$x| the $job2 will come.", "either", "both"),
        _calls("$w $person|$x| $person2 knows the $place.", "Neither", "Either"),
        _calls("He has lost $w the $thing|$x| the $thing2.", "both", "either"),
        _calls("On the table there was $w a $thing|$x| a $thing2.", "neither", "both"),
    ),
)

than_or_as = TemplateBehaviour(
    "than_or_as",
    "More and less are followed by than, as by as, so by that.",
    fillers={
        **COMMON,
        "adj": pool(
            """careful useful important difficult beautiful famous popular expensive dangerous comfortable interesting
            powerful common likely modern"""
        ),
    },
    contexts=SCENES,
    frames=(
        _calls("$person is $w $adj|$x| $person2.", "more", "as"),
        _calls("The $thing was $w $adj|$x| the $thing2.", "more", "as"),
        _calls("This $place is $w $adj|$x| that one.", "less", "as"),
        _calls("My $job is $w $adj|$x| yours.", "less", "as"),
        _calls("It seemed $w $adj|$x| it was.", "more", "so"),
        _calls("In winter the $place is $w $adj|$x| in summer.", "more", "as"),
        _calls("A $color $thing is $w $adj|$x| a $color2 one.", "more", "as"),
        _calls("We found the $job $w $adj|$x| we did not speak.", "less", "so"),
        _calls("The $job became $w $adj|$x| we feared.", "more", "so"),
        _calls("Nothing is $w $adj|$x| a $thing.", "more", "as"),
        _calls("They are $w $adj|$x| we are.", "more", "as"),
        _calls("For $person a $thing is $w $adj|$x| a $thing2.", "less", "as"),
        _calls("The new $thing is $w $adj|$x| the old one.", "more", "as"),
    ),
    reach=(
        _calls("Few people are $w $adj|$x| the $job.", "more", "as"),
        _calls("I think the $color $thing looks $w $adj|$x| it is.", "more", "so"),
        _calls("No $job is $w $adj|$x| ours.", "less", "as"),
        _calls("His plan was $w $adj|$x| hers.", "more", "as"),
    ),
)

who_which = TemplateBehaviour(
    "who_which",
    "A clause about a person begins with who, one about a thing with which.",
    cue={"it": ("$job", "$item"), "x": (" who", " which")},
    fillers=COMMON,
    contexts=SCENES,
    frames=(
        "The $it,|$x| was lost, came back.",
        "We talked about the $it,|$x| nobody knew.",
        "She looked at the $kind $it,|$x| stood near the door.",
        "There was a $it in the $place,|$x| was $color.",
        "My brother found the $it in the end,|$x| was $color.",
        "The $kind $it,|$x| had been in $city for years, was lost.",
        "He was afraid of the $it in the dark,|$x| seemed to move.",
        "Last week the $it,|$x| was seen in $city, was lost.",
        "They sent a $it to me,|$x| I liked.",
        "In $city we saw a $kind $it,|$x| was $color.",
        "I can not forget the $it,|$x| was $kind.",
        "Here is the new $it,|$x| came from $city.",
        "Nobody liked the other $it,|$x| was $kind.",
        "It was a $kind $it,|$x| came from $city.",
    ),
    reach=(
        "Then came the $it,|$x| was $kind.",
        "The picture shows a $kind $it,|$x| was in $city.",
        "We paid for the $it,|$x| came from $city.",
        "You must see the second $it,|$x| is $kind.",
    ),
)

_GRADES = """small/smaller/smallest old/older/oldest young/younger/youngest tall/taller/tallest short/shorter/shortest
    fast/faster/fastest slow/slower/slowest strong/stronger/strongest weak/weaker/weakest rich/richer/richest
    poor/poorer/poorest cold/colder/coldest warm/warmer/warmest cheap/cheaper/cheapest large/larger/largest
    long/longer/longest high/higher/highest deep/deeper/deepest light/lighter/lightest dark/darker/darkest
    big/bigger/biggest great/greater/greatest hard/harder/hardest near/nearer/nearest"""
comparative = FormBehaviour(
    "comparative",
    "An adjective is raised to the degree that an example shows: comparative or superlative.",
    cue={"e": ("$more", "$most"), "x": (" $more2", " $most2"), "f": ("$more3", "$most3")},
    fillers=COMMON,
    forms={"more": ("grade", table(_GRADES)), "most": ("grade", table(_GRADES, 2))},
    contexts=LESSONS,
    frames=(
        "From $grade to $e, from $grade3 to $f, from $grade2 to|$x|.",
        "In the list we find $grade, $e, $grade3, $f, $grade2,|$x|.",
        "The words are $grade, $e, $grade2,|$x|.",
        "If $grade becomes $e and $grade3 becomes $f, then $grade2 becomes|$x|.",
        "$grade: $e, $grade3: $f, $grade2:|$x|",
        "The form of $grade is $e. The form of $grade2 is|$x|.",
        "Not $grade but $e, not $grade3 but $f, not $grade2 but|$x|.",
        "Instead of $grade he writes $e, and instead of $grade2 he writes|$x|.",
        "$grade = $e\n$grade3 = $f\n$grade2 =|$x|",
        "First come $grade, $e, then $grade3, $f, then $grade2,|$x|.",
        "$grade is to $e as $grade2 is to|$x|.",
        "First $grade, later $e. First $grade2, later|$x|.",
        "She changed $grade to $e and $grade2 to|$x|.",
    ),
    reach=(
        "For $grade the answer is $e, and for $grade2 the answer is|$x|.",
        "The pairs are $grade with $e, $grade3 with $f, and $grade2 with|$x|.",
        "My $grade dog is the $e one, and my $grade2 dog is the|$x| one.",
        "Add the ending: $grade, $e; $grade3, $f; $grade2,|$x|.",
    ),
)
PAIRS = (correlative, than_or_as, who_which, comparative)
