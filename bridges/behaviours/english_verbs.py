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
        _after("$person $aux not|$x| the $thing.", "has", "did"),
        _after("The people of $city $aux not|$x| the $thing.", "have", "did"),
        _after("The $kind $job $aux never|$x| it before.", "had", "could"),
        _after("My friends in $city $aux never|$x| that $thing.", "have", "will"),
        _after("The $job from the $place $aux not|$x| the $thing.", "has", "does"),
        _after("$aux the $kind $job|$x| the $thing?", "Has", "Did"),
        _after("$aux you and $person ever|$x| a $thing?", "Have", "Do"),
        _after("$person $aux probably|$x| the $thing.", "has", "will"),
        _after("We and the $job $aux only|$x| a little.", "had", "would"),
        _after("Why $aux the people in $city|$x| it?", "have", "did"),
        _after("What $aux the $kind $job|$x|?", "has", "could"),
        _after("It seems that $person $aux always|$x| it.", "has", "must"),
        _after("At the $place they $aux even|$x| it.", "had", "might"),
    ),
    reach=(
        _after("Nobody in $city $aux ever|$x| the $thing.", "has", "can"),
        _after("The friends of $person $aux never|$x| it.", "have", "should"),
        _after("When $aux $person|$x| it?", "had", "did"),
        _after("In those days at the $place we $aux often|$x| it.", "had", "would"),
    ),
)

tense = TemplateBehaviour(
    "tense",
    "What was and what will be: the verb fits the time that is named.",
    cue={
        "Last": ("Last", "Next"),
        "last": ("last", "next"),
        "Yesterday": ("Yesterday", "Tomorrow"),
        "was": (" was", " will"),
        "were": (" were", " will"),
    },
    fillers=COMMON,
    contexts=("", "", "", "Let me see. ", "Look at the calendar. ", "The $job told me this. ", "Do you know? "),
    frames=(
        "$Last week the $kind $job|$was| ...",
        "$Last Friday my $kind $job|$was| ...",
        "$Last year the $color $place|$was| ...",
        "I know that $last summer $person|$was| ...",
        "The plan says that $last week $person|$was| ...",
        "$Last Monday the $color $place|$was| ...",
        "$Last Sunday everyone at the $color $place|$was| ...",
        "I heard that $last year the $color $place|$was| ...",
        "$Last month the $kind $place|$was| ...",
        "In the news they say that $last summer the $place|$was| ...",
        "$Last year the $job from $city|$was| ...",
        "As far as I know, $last month the $kind $place|$was| ...",
        "$Last spring the people of $city|$were| ...",
    ),
    reach=(
        "$Yesterday afternoon $person and $person2|$were| ...",
        "$Last weekend the whole family of $person|$was| ...",
        "The paper says that $last Friday the $job|$was| ...",
        "$Last autumn my friend $person|$was| ...",
    ),
)
VERBS = (verb_form, tense)
