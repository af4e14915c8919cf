"""English behaviours of the circuits literature, as pairs with a two-way answer.

Indirect objects follow Wang et al. (2022), greater-than Hanna et al. (2023), and agreement Marks et al.
(2024); each is asked as one choice between two tokens, as in Gao et al. (2025), section 2.2. They suit
English tokenizers: one that cuts names or years into pieces is told so by `encode`.
"""

from __future__ import annotations

from bridges.behaviours.fillers import Pools, pool
from bridges.behaviours.template import Cue, Template, TemplateBehaviour

_MALE = pool(
    "John Tom James Peter Mark David Paul Jack Michael Robert Henry Simon Daniel George William Richard Charles Steven Kevin Brian Edward Andrew Frank Adam"
)
_FEMALE = pool(
    "Mary Anna Alice Sarah Laura Emma Jane Lisa Karen Susan Julia Helen Kate Maria Rachel Amy Linda Emily Jessica Rebecca Nancy Carol Diana Ruth"
)
_IOI_FILLERS: Pools = {
    "male": _MALE,
    "female": _FEMALE,
    "person": _MALE + _FEMALE,
    "place": pool("store park school office station beach garden library museum market hospital church"),
    "thing": pool("drink book ball letter ring key gift ticket phone bottle flower map"),
}
# {a} and {b} are introduced, {s} acts, and {io} is the other one of the two.
_IOI_FRAMES = (
    "When {a} and {b} went to the $place, {s} gave a $thing to| {io}|.",
    "{a} and {b} were at the $place. {s} handed the $thing to| {io}|.",
    "After {a} and {b} had left the $place, {s} sent a $thing to| {io}|.",
    "Yesterday {a} and {b} met near the $place, and {s} showed a $thing to| {io}|.",
    "While {a} and {b} were working at the $place, {s} passed the $thing to| {io}|.",
    "Then {a} and {b} had a long talk in the $place, and {s} offered a $thing to| {io}|.",
    "{a} and {b} decided to visit the $place. There {s} sold a $thing to| {io}|.",
    "Once {a} and {b} arrived at the $place, {s} threw the $thing to| {io}|.",
)


def _ioi(
    name: str,
    description: str,
    kinds: tuple[tuple[str, str], ...] = (("person", "person2"),),
    order: str = "",
) -> TemplateBehaviour:
    """Indirect objects; `kinds` are the slots of the two names, `order` is ABBA, BABA or empty for either."""

    def templates(texts: tuple[str, ...]) -> list[Template]:
        made = []
        for first, second in kinds:
            p, q = f"${{{first}}}", f"${{{second}}}"
            if order == "ABBA":  # both prompts have this order; the names change places throughout
                cue: Cue = {"a": (p, q), "b": (q, p), "s": (q, p), "io": (p, q)}
            elif order == "BABA":
                cue = {"a": (p, q), "b": (q, p), "s": (p, q), "io": (q, p)}
            else:  # only the repeated name differs, so that one prompt is ABBA and the other one BABA
                cue = {"a": (p, p), "b": (q, q), "s": (q, p), "io": (p, q)}
            made += [Template(text.format(a="$a", b="$b", s="$s", io="$io"), cue) for text in texts]
        return made

    return TemplateBehaviour(name, description, frames=templates(_IOI_FRAMES), fillers=_IOI_FILLERS)


ioi = _ioi("ioi", "The indirect object is the name said once; the prompts differ in the repeated name.")
ioi_abba = _ioi("ioi_abba", "Indirect object in the order A, B, B: A; the names change places.", order="ABBA")
ioi_baba = _ioi("ioi_baba", "Indirect object in the order B, A, B: A; the names change places.", order="BABA")
ioi_same_gender = _ioi(
    "ioi_same_gender",
    "Indirect object between two names of the same gender.",
    kinds=(("male", "male2"), ("female", "female2")),
)
ioi_opposite_gender = _ioi(
    "ioi_opposite_gender",
    "Indirect object between a male and a female name.",
    kinds=(("male", "female"), ("female", "male")),
)

induction = TemplateBehaviour(
    "induction",
    "A word that came before is followed by the word that followed it then.",
    cue={"again": ("$thing", "$thing3"), "next": (" $thing2", " $thing4")},
    fillers={
        "thing": pool(
            "apple chair river stone window music paper garden horse doctor summer bread silver mountain coffee table orange bridge winter letter island kitchen mirror forest butter engine dragon pencil castle"
        )
    },
    frames=(
        "The words are $thing $thing2 $thing5 $thing3 $thing4 $thing6 $again|$next|",
        "Repeat: the $thing $thing2 and the $thing3 $thing4, the $again|$next|",
        "First $thing3 $thing4 $thing5 $thing $thing2, then once more $again|$next|",
        "We say $thing $thing2. We say $thing3 $thing4. We say $again|$next|",
        "A list of things: $thing5 $thing $thing2 $thing6 $thing3 $thing4 $again|$next|",
        "He wrote $thing3 $thing4 on one page and $thing $thing2 on the other. He wrote $again|$next|",
        "In the song it goes $thing $thing2 $thing3 $thing4 and again $again|$next|",
        "They found the $thing3 $thing4 near the $thing $thing2. Everyone saw the $again|$next|",
    ),
)

# One century throughout: `17` ends the prompt, and the two digits that follow have to be later or earlier.
greater_than = TemplateBehaviour(
    "greater_than",
    "An end comes after the year of the beginning, a beginning before the year of the end.",
    cue={"end": ("$later", "$earlier")},
    fillers={
        "mid": pool("42 44 46 48 52 54 56 43 45 47 49 53 55 57"),
        "later": pool("72 74 76 78 82 84 86 73 75 77 79 83 85 87"),
        "earlier": pool("22 24 26 28 32 34 36 23 25 27 29 33 35 37"),
        "century": pool("11 13 15 17 12 14 16 18"),
        "event": pool(
            "war siege strike trial famine debate flood riot fair hunt voyage reign project festival drought fire plague race march treaty"
        ),
    },
    frames=(
        Template(
            "The $event $what in the year $century$mid and $then in the year $century|$end|.",
            {"what": ("began", "ended"), "then": ("ended", "began")},
        ),
        Template(
            "The $event was $what in $century$mid. It was $then in $century|$end|.",
            {"what": ("started", "finished"), "then": ("finished", "started")},
        ),
        Template(
            "In $century$mid the $event had just $what; it had $then in $century|$end|.",
            {"what": ("begun", "ended"), "then": ("ended", "begun")},
        ),
        Template(
            "The $event that we know of $what in $century$mid, and it $then in $century|$end|.",
            {"what": ("opened", "closed"), "then": ("closed", "opened")},
        ),
        Template(
            "Its first year was not known, but the $event was $what $century$mid, in $century|$end|.",
            {"what": ("over after", "over before")},
        ),
        Template(
            "People say that the $event took place some years $what $century$mid, in $century|$end|.",
            {"what": ("after", "before")},
        ),
    ),
)

subject_verb_agreement = TemplateBehaviour(
    "subject_verb_agreement",
    "The verb agrees with the subject, not with a noun between them.",
    cue={"s": ("", "s"), "be": (" is", " are"), "was": (" was", " were"), "have": (" has", " have")},
    fillers={
        "kind": pool("old small green lost heavy famous new large brown strange quiet simple"),
        "subject": pool("key book picture report dog letter door teacher song car house horse map window farmer tree"),
        "other": pool("cabinet table garden manager author friend student station river lawyer protected bridge"),
    },
    frames=(
        "The $kind $subject$s near the ${other}|$be| very nice.",
        "The $kind $subject$s that the ${other} liked|$was| not there.",
        "I think that the $kind $subject$s behind the ${other}s|$be| mine.",
        "The $kind $subject$s beside the ${other}|$have| been moved.",
        "In the evening the $kind $subject$s next to the ${other}s|$was| sold.",
        "Everyone knows that the $kind $subject$s from the ${other}|$be| good.",
        "The $kind $subject$s which the ${other}s saw|$have| come back.",
        "Last year the $kind $subject$s in front of the ${other}|$was| painted.",
    ),
)

pronoun_gender = TemplateBehaviour(
    "pronoun_gender",
    "The pronoun agrees with the name.",
    cue={"who": ("$male", "$female"), "he": (" he", " she")},
    fillers={
        "male": _MALE,
        "female": _FEMALE,
        "place": _IOI_FILLERS["place"],
        "job": pool("doctor teacher writer farmer lawyer singer driver painter nurse manager"),
        "mood": pool("tired happy late hungry angry sad ready busy lucky afraid"),
    },
    frames=(
        "$who, the $job of the $place, said that|$he| was $mood.",
        "$who is a $mood $job at the $place, isn't|$he|?",
        "$who left the $place for the $place2 because|$he| felt $mood.",
        "When $who the $job was $mood,|$he| went to the $place.",
        "$who works as a $job in a $place, and every day|$he| walks there.",
        "At the $place the $job asked $who whether|$he| was $mood.",
        "In the $place we all like $who, the $mood $job, since|$he| is kind.",
        "My $mood friend $who, a $job, told us what|$he| had seen in the $place.",
    ),
)

quote_closing = TemplateBehaviour(
    "quote_closing",
    "A quotation inside a sentence is closed by the mark that opened it.",
    cue={"q": ('"', "'")},
    fillers={
        "place": _IOI_FILLERS["place"],
        "color": pool("red green white blue black yellow"),
        "phrase": pool(
            """open; keep out; no smoking; welcome home; for sale; made by hand; one way; wet paint; please
            wait; good luck; closed; private; do not touch; happy birthday; exit only; fresh bread; slow down; hot soup;
            thank you; well done""",
            ";",
        ),
    },
    frames=(
        "The $color sign on the $place says $q$phrase|$q in big letters.",
        "At the $color $place they wrote $q$phrase|$q on the wall.",
        "She went to the $color $place and read the words $q$phrase|$q aloud.",
        "In the $place hung a $color note with $q$phrase|$q on it.",
        "On the $color door of the $place he painted $q$phrase|$q in large type.",
        "The $color card from the $place has $q$phrase|$q printed on it.",
        "Somebody near the $color $place shouted $q$phrase|$q at us.",
        "Above the $place we saw a $color board with $q$phrase|$q for the guests.",
    ),
)
ENGLISH: dict[str, TemplateBehaviour] = {
    b.name: b
    for b in (
        ioi,
        ioi_abba,
        ioi_baba,
        ioi_same_gender,
        ioi_opposite_gender,
        induction,
        greater_than,
        subject_verb_agreement,
        pronoun_gender,
        quote_closing,
    )
}
