"""What words mean and what is known: capitals and languages of countries, and opposites."""

from __future__ import annotations

from bridges.behaviours.english_forms import FormBehaviour, table
from bridges.behaviours.english_words import COMMON, LESSONS

capitals = FormBehaviour(
    "capitals",
    "The capital of a country.",
    cue={"c": ("$country", "$country2"), "x": ("$capital", "$capital2")},
    fillers=COMMON,
    forms={
        "capital": (
            "country",
            table(
                """France/Paris Germany/Berlin Italy/Rome Spain/Madrid England/London Japan/Tokyo China/Beijing
                Russia/Moscow Egypt/Cairo Greece/Athens Austria/Vienna Poland/Warsaw Portugal/Lisbon Ireland/Dublin
                Norway/Oslo Sweden/Stockholm Cuba/Havana Iraq/Baghdad Iran/Tehran Kenya/Nairobi Peru/Lima
                Hungary/Budapest Scotland/Edinburgh Thailand/Bangkok Denmark/Copenhagen Finland/Helsinki
                Belgium/Brussels Canada/Ottawa"""
            ),
        )
    },
    contexts=LESSONS,
    frames=(
        "The capital of $c is| $x|.",
        "The capital city of $c is called| $x|.",
        "$person lives in the capital of $c,| $x|.",
        "We flew to $c and landed in its capital,| $x|.",
        "The country is $c, and its capital is| $x|.",
        "The government of $c sits in| $x|.",
        "If you go to $c, you should see the capital,| $x|.",
        "Q: What is the capital of $c?\nA:| $x|",
        "The embassy in $c is in the city of| $x|.",
        "$person was born in $c, in the city of| $x|.",
        "In $c the parliament meets in| $x|.",
        "The king of $c lived in| $x|.",
        "The main airport of $c is in| $x|.",
    ),
    reach=(
        "Every train in $c ends in the capital,| $x|.",
        "They moved from a village in $c to the city of| $x|.",
        "The president of $c gave a speech in| $x|.",
        "The football team of $c played at home in| $x|.",
    ),
)

languages = FormBehaviour(
    "languages",
    "The language of a country.",
    cue={"c": ("$country", "$country2"), "x": ("$language", "$language2")},
    fillers=COMMON,
    forms={
        "language": (
            "country",
            table(
                """France/French Germany/German Italy/Italian Spain/Spanish England/English Japan/Japanese
                China/Chinese Russia/Russian Egypt/Arabic Greece/Greek Poland/Polish Portugal/Portuguese
                Norway/Norwegian Sweden/Swedish Turkey/Turkish Brazil/Portuguese Mexico/Spanish Hungary/Hungarian
                Thailand/Thai Denmark/Danish Korea/Korean Vietnam/Vietnamese Austria/German Finland/Finnish
                Argentina/Spanish Iraq/Arabic"""
            ),
        )
    },
    contexts=LESSONS,
    frames=(
        "People in $c speak| $x|.",
        "The language of $c is| $x|.",
        "$person grew up in $c and speaks| $x|.",
        "In $c the street signs are written in| $x|.",
        "She moved to $c and had to learn| $x|.",
        "Children in $c learn to read in| $x|.",
        "Newspapers in $c are printed in| $x|.",
        "The official language of $c is| $x|.",
        "A man from $c asked me something in| $x|.",
        "Most books in the libraries of $c are in| $x|.",
        "My $job comes from $c, so her first language is| $x|.",
        "Before his trip to $c he took lessons in| $x|.",
        "The song from $c is sung in| $x|.",
    ),
    reach=(
        "On the radio in $c you hear mostly| $x|.",
        "The letter came from $c and was written in| $x|.",
        "He has lived in $c for years without a word of| $x|.",
        "At the airport in $c a voice spoke to us in| $x|.",
    ),
)

_OPPOSITES = table(
    """hot/cold big/small good/bad old/new black/white open/closed happy/sad fast/slow high/low rich/poor light/dark
    strong/weak early/late wet/dry full/empty hard/soft long/short true/false easy/difficult cheap/expensive
    thick/thin left/right dead/alive public/private safe/dangerous loud/quiet"""
)
opposites = FormBehaviour(
    "opposites",
    "The opposite of an adjective.",
    cue={"w": ("$word", "$word2"), "x": ("$opposite", "$opposite2")},
    fillers=COMMON,
    forms={"opposite": ("word", _OPPOSITES | {b: a for a, b in _OPPOSITES.items()})},
    contexts=LESSONS,
    frames=(
        "The opposite of $w is| $x|.",
        "If something is not $w, it is| $x|.",
        "The antonym of $w is| $x|.",
        "It is not $w but| $x|.",
        "He says $w and she says the opposite,| $x|.",
        "The words $w and| $x| are opposites.",
        "Q: What is the opposite of $w?\nA:| $x|",
        "Some are $w, while others are| $x|.",
        "At first it was $w, and then it became| $x|.",
        "They are as different as $w and| $x|.",
        "You must choose between $w and| $x|.",
        "It can be either $w or| $x|.",
        "The antonyms are: $w and| $x|.",
    ),
    reach=(
        "Is it $w or| $x|?",
        "She called it $w, but to me it looked| $x|.",
        "The word that means the opposite of $w is| $x|.",
        "One of the brothers is $w, the other one is| $x|.",
    ),
)
FACTS = (capitals, languages, opposites)
