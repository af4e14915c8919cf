"""Form of verbs: participle or infinitive by the auxiliary, past or future by the time that is named."""

from __future__ import annotations

from bridges.behaviours.english_forms import FormBehaviour, table
from bridges.behaviours.english_words import COMMON, SCENES
from bridges.behaviours.template import Template, TemplateBehaviour

_PARTICIPLES = table(
    """see/seen take/taken give/given write/written eat/eaten know/known break/broken choose/chosen drive/driven
    steal/stolen throw/thrown wear/worn begin/begun drink/drunk show/shown draw/drawn hide/hidden forget/forgotten
    do/done sing/sung grow/grown speak/spoken"""
)


def _after(text: str, have: str, do: str) -> Template:
    return Template(text, {"aux": (have, do)})


verb_form = FormBehaviour(
    "verb_form",
    "A participle follows a form of have, an infinitive any other auxiliary.",
    cue={"x": (" $done", " $verb")},
    fillers=COMMON,
    forms={"done": ("verb", _PARTICIPLES)},
    contexts=SCENES,
    frames=(
        _after("She $aux not|$x| the $thing.", "has", "did"),
        _after("They $aux not|$x| the $color $thing.", "have", "did"),
        _after("He $aux never|$x| it before.", "had", "could"),
        _after("I $aux never|$x| that $thing.", "have", "will"),
        _after("The $job $aux not|$x| the $thing.", "has", "does"),
        _after("$aux the $job|$x| the $thing?", "Has", "Did"),
        _after("$aux you ever|$x| a $thing?", "Have", "Do"),
        _after("$person $aux probably|$x| the $thing.", "has", "will"),
        _after("We $aux only|$x| a little.", "had", "would"),
        _after("Why $aux the people|$x| it?", "have", "did"),
        _after("What $aux the $job|$x|?", "has", "could"),
        _after("It seems that $person $aux always|$x| it.", "has", "must"),
        _after("At the $place they $aux even|$x| it.", "had", "might"),
    ),
    reach=(
        _after("Nobody $aux ever|$x| the $thing.", "has", "can"),
        _after("The friends of $person $aux never|$x| it.", "have", "should"),
        _after("When $aux $person|$x| it?", "had", "did"),
        _after("In those days we $aux often|$x| it.", "had", "would"),
    ),
)

tense = TemplateBehaviour(
    "tense",
    "What was and what will be: the verb fits the time, and the time fits the verb.",
    cue={
        "Last": ("Last", "Next"),
        "last": ("last", "next"),
        "Yesterday": ("Yesterday", "Tomorrow"),
        "was": (" was", " will"),
        "were": (" were", " will"),
        # Verbs that are alike in the present and the past.
        "just": ("just", "will"),
        "yesterday": (" yesterday", " tomorrow"),
    },
    fillers=COMMON,
    contexts=("", "", "", "Let me see. ", "Look at the calendar. ", "The $job told me this. ", "Do you know? "),
    frames=(
        "They $just shut the $place|$yesterday|.",
        "$Yesterday my $job|$was| ...",
        "$Last year the $color $place|$was| ...",
        "I know that $last summer $person|$was| ...",
        "I $just read the letter from the $job|$yesterday|.",
        "$Last Monday the $place|$was| ...",
        "$Last Sunday everyone at the $place|$was| ...",
        "She $just cut the $color paper|$yesterday|.",
        "He $just put the $thing in the $place|$yesterday|.",
        "We $just let the $job go home|$yesterday|.",
        "$person $just set up the $color tent|$yesterday|.",
        "As far as I know, $last month the $place|$was| ...",
        "$Last spring they all|$were| ...",
    ),
    reach=(
        "$Yesterday afternoon $person and $person2|$were| ...",
        "$Last weekend the whole family of $person|$was| ...",
        "The paper says that $last Friday the $job|$was| ...",
        "$Last autumn my friend $person|$was| ...",
    ),
)
VERBS = (verb_form, tense)
