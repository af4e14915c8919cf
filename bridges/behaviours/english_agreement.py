"""Number of verbs: agreement with a subject that stands apart from its verb (after Marks et al. 2024)."""

from __future__ import annotations

from bridges.behaviours.english_words import COMMON, SCENES
from bridges.behaviours.fillers import pool
from bridges.behaviours.template import Cue, TemplateBehaviour

_NUMBER: Cue = {"s": ("", "s"), "be": (" is", " are"), "was": (" was", " were"), "have": (" has", " have")}
_NOUNS = {
    **COMMON,
    "subject": pool("key book picture report letter door song car house map window tree chair horse boat lamp"),
    "other": pool("cabinet table garden manager author friend student station river lawyer guard bridge"),
}

subject_verb_agreement = TemplateBehaviour(
    "subject_verb_agreement",
    "The verb agrees with the subject, not with a noun between them.",
    cue=_NUMBER,
    fillers=_NOUNS,
    contexts=SCENES,
    frames=(
        "The $kind $subject$s near the $other|$be| very nice.",
        "I think that the $kind $subject$s behind the ${other}s|$be| mine.",
        "The $kind $subject$s beside the $other|$have| been moved.",
        "In the evening the $kind $subject$s next to the ${other}s|$was| sold.",
        "Everyone knows that the $kind $subject$s from the $other|$be| good.",
        "Last year the $kind $subject$s in front of the $other|$was| painted.",
        "The $subject$s on the $other|$be| $kind.",
        "The $color $subject$s of the $other|$have| disappeared.",
        "Today the $subject$s at the $other|$be| $kind again.",
        "The $kind $subject$s with the $color $other|$was| gone.",
        "We heard that the $subject$s under the $other|$was| broken.",
        "The $kind $subject$s between the ${other}s|$have| fallen down.",
        "At noon the $subject$s by the $color $other|$be| in the sun.",
    ),
    reach=(
        "Perhaps the $kind $subject$s across from the $other|$be| for sale.",
        "The $subject$s above the $color $other|$have| been cleaned.",
        "You can see that the $kind $subject$s around the $other|$be| new.",
        "Once the $subject$s inside the $other|$was| $color.",
    ),
)

agreement_clause = TemplateBehaviour(
    "agreement_clause",
    "The verb agrees with its subject across a relative clause.",
    cue=_NUMBER,
    fillers=_NOUNS,
    contexts=SCENES,
    frames=(
        "The $kind $subject$s that the $other liked|$was| not there.",
        "The $kind $subject$s which the ${other}s saw|$have| come back.",
        "The $subject$s that I bought yesterday|$be| $kind.",
        "The $subject$s that she found at the $place|$was| $kind.",
        "The $kind $subject$s that my friends talked about|$have| been sold.",
        "The $color $subject$s that you gave me|$be| on the table.",
        "I know that the $subject$s he wanted|$was| $kind.",
        "The $subject$s we saw in the $place|$be| $kind now.",
        "Last night the $subject$s that stood near the $other|$was| taken away.",
        "The $kind $subject$s that came from the $place|$have| arrived.",
        "The $subject$s which nobody could find|$was| in the $place.",
        "Maybe the $color $subject$s that they lost|$be| still there.",
        "The $subject$s that the $job made|$have| a $color mark.",
    ),
    reach=(
        "It seems that the $subject$s that fell into the water|$be| $kind.",
        "The $kind $subject$s my mother told us about|$was| never seen again.",
        "In our village the $subject$s that people remember|$be| $kind.",
        "The $color $subject$s that won the prize|$have| been sold.",
    ),
)

agreement_adverb = TemplateBehaviour(
    "agreement_adverb",
    "The verb agrees with a pronoun across an adverb.",
    cue={
        **_NUMBER,
        "he": ("he", "they"),
        "she": ("she", "they"),
        "want": (" wants", " want"),
        "live": (" lives", " live"),
        "buy": (" buys", " buy"),
        "like": (" likes", " like"),
        "go": (" goes", " go"),
        "need": (" needs", " need"),
        "know": (" knows", " know"),
        "work": (" works", " work"),
        "say": (" says", " say"),
        "come": (" comes", " come"),
        "talk": (" talks", " talk"),
        "read": (" reads", " read"),
    },
    fillers={
        **COMMON,
        "often": pool("always often never still usually really sometimes also probably now rarely mostly"),
    },
    contexts=SCENES,
    frames=(
        "At the $place $he $often|$be| $mood.",
        "My $job knows that $he $often|$have| lunch there.",
        "After work in the $place $she $often|$want| to sleep.",
        "$person thinks that $she $often|$live| near the $place.",
        "In $city $he $often|$buy| a $thing.",
        "With the $color $thing $he $often|$like| to play.",
        "On the way to the $place $she $often|$go| by bus.",
        "It is true that in $city $she $often|$need| a $thing.",
        "According to $person, $he $often|$know| the $job.",
        "Last week in $city $he $often|$was| $mood.",
        "In the $color house $she $often|$work| all day.",
        "Because of the $thing $he $often|$have| no time.",
        "The $job heard that $she $often|$say| the same.",
        "Before lunch at the $place $he $often|$come| to me.",
    ),
    reach=(
        "About the $place $he $often|$talk| a lot.",
        "My friend $person says $she $often|$want| the $thing.",
        "In the evening at the $place $he $often|$read| a book.",
        "For the $job $she $often|$have| a $color $thing.",
    ),
)
AGREEMENT = (subject_verb_agreement, agreement_clause, agreement_adverb)
