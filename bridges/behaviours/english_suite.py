"""English behaviours that small pretrained language models show, by name.

Each is a small grammar, contexts × frames × fillers, asked as one choice between two tokens, as in Gao et al. (2025),
section 2.2. They suit English tokenizers; one that cuts names or years into pieces is told so by `encode`.
"""

from __future__ import annotations

from bridges.behaviours.english_agreement import AGREEMENT
from bridges.behaviours.english_facts import FACTS
from bridges.behaviours.english_gender import GENDER
from bridges.behaviours.english_marks import MARKS
from bridges.behaviours.english_number import NUMBER
from bridges.behaviours.english_objects import OBJECTS
from bridges.behaviours.english_pairs import PAIRS
from bridges.behaviours.english_repeats import REPEATS
from bridges.behaviours.english_sequences import SEQUENCES
from bridges.behaviours.english_verbs import VERBS
from bridges.behaviours.template import TemplateBehaviour

ENGLISH: dict[str, TemplateBehaviour] = {
    behaviour.name: behaviour
    for behaviour in (
        *OBJECTS,
        *REPEATS,
        *MARKS,
        *GENDER,
        *AGREEMENT,
        *NUMBER,
        *VERBS,
        *PAIRS,
        *SEQUENCES,
        *FACTS,
    )
}
