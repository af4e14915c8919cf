"""Behaviours that copy: a word after a word that was there before, and a name that has been said."""

from __future__ import annotations

from bridges.behaviours.english_words import COMMON, SCENES
from bridges.behaviours.fillers import pool
from bridges.behaviours.template import TemplateBehaviour

# The two followers change places, so that both prompts hold the same words and end in the same one.
induction = TemplateBehaviour(
    "induction",
    "A word that came before is followed by the word that followed it then; the followers change places.",
    cue={"x": ("$word3", "$word4"), "y": ("$word4", "$word3")},
    fillers={
        **COMMON,
        "word": pool(
            """apple chair river stone window music paper horse doctor summer bread silver mountain coffee orange
            bridge winter island kitchen mirror forest butter engine dragon pencil castle table letter garden sugar
            cotton rabbit pepper soldier planet ocean button guitar lemon basket"""
        ),
    },
    contexts=("", "", "Read carefully. ", "Listen. ", "The $job said it twice. ", "This makes no sense. "),
    frames=(
        "The pairs are $word $x, $word5 $word6 and $word2 $y. Again: $word5 $word6, $word| $x|",
        "Repeat: the $word $x and the $word2 $y, the $word| $x|",
        "First $word2 $y $word5 $word $x, then once more $word| $x|",
        "We say $word5 $word6, we say $word $x, we say $word2 $y. Again we say $word5 $word6, we say $word| $x|",
        "A list of things: $word2 $y, $word $x, $word5 $word6. The same list: $word2 $y, $word| $x|",
        "He wrote $word2 $y on one page and $word $x on the other. He wrote $word| $x|",
        "In the song it goes $word $x $word2 $y and again $word| $x|",
        "They found the $word2 $y near the $word $x. Everyone saw the $word| $x|",
        "One: $word $x, $word2 $y\nTwo: $word| $x|",
        "Random words: $word5 $word6 $word $x $word2 $y. Once more: $word5 $word6 $word| $x|",
        "The code for today is $word $x and $word2 $y. I repeat: $word| $x|",
        "She whispered $word2 $y, $word $x, $word5 $word6, $word2 $y, $word| $x|",
        "Copy this line. The $word $x met the $word2 $y. The $word| $x|",
        "Over the $word2 $y and under the $word $x, then past the $word| $x|",
    ),
    reach=(
        "On the left: $word $x, $word5, $word2 $y. On the right: $word| $x|",
        "One team is called $word2 $y and the other team $word $x. Today we watch $word| $x|",
        "Chapter one, $word $x; chapter two, $word2 $y; see also $word| $x|",
        "Take the $word $x, leave the $word2 $y, and bring me the $word| $x|",
    ),
)

recall_name = TemplateBehaviour(
    "recall_name",
    "A person who has been named is named again.",
    cue={"who": ("$person", "$person2")},
    fillers=COMMON,
    contexts=SCENES,
    frames=(
        "My name is $who. I come from $city. My friends call me| $who|.",
        "The $job is called $who. Everybody at the $place knows| $who|.",
        "This is a story about $who. Once upon a time in $city there lived a $job named| $who|.",
        "I met $who in $city. I will never forget| $who|.",
        "That is $who, the $job. At the $place people often ask for| $who|.",
        "Happy birthday, $who! We love you,| $who|!",
        "The $thing belongs to $who. Please give it to| $who|.",
        "They named the dog $who. Every day they go for a walk with| $who|.",
        "Last year $who and I went to the $place. It was nice to be there with| $who|.",
        "Thank you, $who. I always knew that I could count on you,| $who|.",
        "The letter began with the words Dear $who, and it ended with the words Goodbye,| $who|.",
        "Name: $who\nJob: $job\nThis is a report on| $who|.",
        "The $job shouted $who! and everybody looked at| $who|.",
        "Have you seen $who? I have a $thing for| $who|.",
    ),
    reach=(
        "The winner is $who. Let us all clap for| $who|.",
        "We looked for $who in the $place and shouted the name| $who|.",
        "I have a friend called $who. You should meet| $who|.",
        "The room of $who is locked. Only one person has the key, and that is| $who|.",
    ),
)

REPEATS = (induction, recall_name)
