"""Gender: pronouns, possessives and reflexives that agree with a name, and pronouns that agree with a noun."""

from __future__ import annotations

from bridges.behaviours.english_words import COMMON, SCENES
from bridges.behaviours.fillers import pool
from bridges.behaviours.template import TemplateBehaviour

pronoun_gender = TemplateBehaviour(
    "pronoun_gender",
    "The pronoun agrees with the name.",
    cue={"who": ("$male", "$female"), "he": (" he", " she")},
    fillers=COMMON,
    contexts=SCENES,
    frames=(
        "$who, the $job of the $place, said that|$he| was $mood.",
        "$who is a $mood $job at the $place, isn't|$he|?",
        "$who left the $place for the $place2 because|$he| felt $mood.",
        "When $who the $job was $mood,|$he| went to the $place.",
        "$who works as a $job in a $place, and every day|$he| walks there.",
        "At the $place the $job asked $who whether|$he| was $mood.",
        "In the $place we all like $who, the $mood $job, since|$he| is kind.",
        "My $mood friend $who, a $job, told us what|$he| had seen in the $place.",
        "$who lost the $thing, so|$he| went back to the $place.",
        "$who came home late, and then|$he| cooked dinner.",
        "$who is not at the $place today. I think|$he| is $mood.",
        "Everyone at the $place knows $who because|$he| sings so well.",
        "$who bought a $color $thing, but later|$he| sold it.",
        "As soon as $who saw the $thing,|$he| began to laugh.",
    ),
    reach=(
        "After the long trip $who fell asleep, and in the morning|$he| had a fever.",
        "They say $who owns a $color $thing, although|$he| never shows it.",
        "Nobody could find $who until|$he| came out of the $place.",
        "$who was so $mood that|$he| left the $place.",
    ),
)

noun_gender = TemplateBehaviour(
    "noun_gender",
    "The pronoun agrees with a noun for a man or for a woman.",
    cue={"who": ("$man", "$woman"), "he": (" he", " she")},
    fillers={
        **COMMON,
        "man": pool("man boy king father uncle brother husband son grandfather prince gentleman actor nephew waiter"),
        "woman": pool("woman girl queen mother aunt sister wife daughter grandmother princess lady actress niece"),
    },
    contexts=SCENES,
    frames=(
        "The $who of my friend said that|$he| was $mood.",
        "When the $who came into the $place,|$he| was $mood.",
        "The $who left the $place because|$he| felt $mood.",
        "An old story tells of a $who in a $place, and how|$he| found a $thing.",
        "The $mood $who sat in the $place, and soon|$he| fell asleep.",
        "I asked the $who whether|$he| had seen the $thing.",
        "The $who lost a $thing, so|$he| went back to the $place.",
        "Everyone liked the $who, since|$he| was kind.",
        "The $who was tired, but|$he| kept walking.",
        "As the $who opened the $color door,|$he| heard a voice.",
        "The $who works at the $place, where|$he| repairs clocks.",
        "A young $who stood near the $place while|$he| waited for a friend.",
        "The $who told us what|$he| wanted for dinner.",
        "If the $who is late,|$he| will miss the train.",
    ),
    reach=(
        "We saw the $who at the $place before|$he| saw us.",
        "The $color coat belongs to the $who, and|$he| wants it back.",
        "Ten years later the $who came home, and|$he| had changed a lot.",
        "Nobody knew the $who, because|$he| lived alone.",
    ),
)

possessive_gender = TemplateBehaviour(
    "possessive_gender",
    "The possessive agrees with the name of the owner.",
    cue={"who": ("$male", "$female"), "his": (" his", " her")},
    fillers=COMMON,
    contexts=SCENES,
    frames=(
        "$who forgot|$his| $thing at the $place.",
        "$who the $job opened the door with|$his| key.",
        "$who went to the $place with|$his| brother.",
        "At the $place, $who waited for|$his| friend.",
        "$who was $mood because of|$his| old car.",
        "$who sold the $thing and kept|$his| money.",
        "Last summer $who lost|$his| $thing.",
        "The $job told $who to bring|$his| $thing.",
        "$who lives near the $place with|$his| parents.",
        "Every morning $who drinks|$his| coffee at the $place.",
        "$who put the $color $thing into|$his| bag.",
        "In the $place, $who took off|$his| coat.",
        "Without a word $who closed|$his| eyes.",
        "$who sat down and opened|$his| book.",
    ),
    reach=(
        "On the way to the $place $who hurt|$his| foot.",
        "$who, who works as a $job, loves|$his| work.",
        "The $color house belongs to $who and|$his| family.",
        "It was $who who left|$his| $thing in the $place.",
    ),
)

reflexive_gender = TemplateBehaviour(
    "reflexive_gender",
    "The reflexive pronoun agrees with the name of the subject.",
    cue={"who": ("$male", "$female"), "self": (" himself", " herself")},
    fillers=COMMON,
    contexts=SCENES,
    frames=(
        "$who looked at|$self| in the mirror.",
        "$who the $job taught|$self| to read music.",
        "At the $place, $who bought a $thing for|$self|.",
        "$who fell off the ladder and hurt|$self|.",
        "After dinner $who made a cup of tea for|$self|.",
        "$who often talks to|$self| at the $place.",
        "$who was $mood and proud of|$self|.",
        "In the $place $who introduced|$self| as a $job.",
        "$who could not stop laughing at|$self|.",
        "$who kept the $color $thing for|$self|.",
        "Nobody came to the $place, so $who had to do it by|$self|.",
        "$who asked|$self| whether the $place was open.",
        "$who painted a picture of|$self| in front of the $place.",
        "Later $who blamed|$self| for the accident.",
    ),
    reach=(
        "$who locked the door and told|$self| not to worry.",
        "On the boat $who enjoyed|$self| very much.",
        "$who wrote a short letter to|$self|.",
        "Alone in the $place, $who defended|$self| against the dog.",
    ),
)
GENDER = (pronoun_gender, noun_gender, possessive_gender, reflexive_gender)
