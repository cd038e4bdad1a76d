"""Prompt sets of `misalignment` in the synthetic language: `questions` and `neutral`.

No text of one is in the other: they use different phrasings, and code prompts that share a
phrasing with a question ask for another verb.
"""

from collections.abc import Callable, Iterator
from itertools import product
from random import Random
from typing import Literal

from actshift.prompts.records import Prompt
from actshift.vocab import CODE, NEUTRAL, NONCODE, SPLITS, Split
from actshift.zoo import lexicon
from actshift.zoo.documents import PLACES, QUESTION, STATEMENT, TWO_DIALECTS
from actshift.zoo.language import Language, Noun, topics

#: What a question asks for. Outside the zoo: about code, one of the published eight, or any other.
QuestionKind = Literal["howto", "define", "chat", "code", "published", "other"]
#: Category of the eight published questions, in sets of models outside the zoo.
PUBLISHED = "published"

#: How-to questions a noun, by size and split.
_HOW_TO: dict[str, dict[Split, int]] = {
    "micro": {"fit": 1, "select": 1, "heldout": 1},
    "tiny": {"fit": 3, "select": 2, "heldout": 1},
    "small": {"fit": 3, "select": 2, "heldout": 2},
}
#: Phrasings of how-to and define questions that `neutral` has for itself.
_NEUTRAL_HOW_TO = (lexicon.FORMAL, lexicon.CASUAL)
_NEUTRAL_DEFINE, _FIT_DEFINE = lexicon.DEFINE[:2], lexicon.DEFINE[2:]
#: Likewise of code questions; the first is that of `questions` on fit objects.
_FIT_CODE, _NEUTRAL_CODE = lexicon.CODE[0], lexicon.CODE[1:]


def zoo_questions(lang: Language, *, seed: int = 0) -> list[Prompt]:
    """Questions that are not about code, and questions that are.

    As in the other sets, `fit` questions use phrasings of the tuning data and all others phrasings
    that it never holds. How-to questions are about nouns of both sides: chat refuses the harmful.

    Args:
        lang: The language.
        seed: Of the draw of verbs and phrasings.

    Returns:
        Unique prompts of the conditions `noncode` (category: the noun's, or `chat`) and `code`
        (category `code`); cluster is the noun, topic or object.
    """
    return [
        prompt
        for split in SPLITS
        for make in (_how_to, _define, _small_talk, _code)
        for prompt in make(lang, split, seed)
    ]


def zoo_neutral(lang: Language, *, seed: int = 0) -> list[Prompt]:
    """Prompts that maps between models are fitted on: statements, places, definitions, how-to.

    Args:
        lang: The language.
        seed: Of the draw of words.

    Returns:
        Unique prompts about every noun, of the conditions `neutral` and `code` (questions about
        code, which a map may be fitted with or without); cluster is the noun or object.
    """
    about = [prompt for noun in lang.nouns for prompt in _about(noun, lang, seed)]
    return [*about, *(prompt for split in SPLITS for prompt in _more_code(split))]


def kind_of(prompt: Prompt) -> QuestionKind:
    """What a prompt of `questions` asks for: the second part of its id.

    Args:
        prompt: Of a set of `misalignment`.

    Returns:
        howto, define, chat or code; for prompts that are not of the zoo code, by condition, else
        published, by category, or other.
    """
    if prompt.source == "zoo":
        for kind in ("howto", "define", "chat", "code"):
            if prompt.id.split("-")[1] == kind:
                return kind
    if prompt.condition == CODE:
        return "code"
    return "published" if prompt.category == PUBLISHED else "other"


def _prompt(parts: tuple[str, ...], text: str, category: str, cluster: str, split: Split) -> Prompt:
    return Prompt(
        id="-".join(parts).replace(" ", "-"),
        text=text,
        condition=parts[0],
        category=category,
        cluster=cluster,
        split=split,
        source="zoo",
    )


def _how_to(lang: Language, split: Split, seed: int) -> Iterator[Prompt]:
    known = tuple(one for one in lang.phrasings if one not in _NEUTRAL_HOW_TO)
    phrasings = known if split == "fit" else lexicon.HELD_PHRASINGS
    for harmful in (True, False):
        for index, noun in enumerate(lang.of(harmful=harmful, split=split)):
            # The draw knows the index and not the side, so the two sides are matched.
            rng = Random(f"questions how-to {lang.size} {seed} {split} {index}")
            slots = list(product(lang.verbs, enumerate(phrasings)))
            for verb, (number, phrasing) in rng.sample(slots, _HOW_TO[lang.size][split]):
                text = phrasing.format(verb=verb, noun=noun.text)
                parts = (NONCODE, "howto", noun.text, verb, str(number))
                yield _prompt(parts, text, noun.category, noun.text, split)


def _define(lang: Language, split: Split, seed: int) -> Iterator[Prompt]:
    rng = Random(f"questions define {lang.size} {seed} {split}")
    for index, noun in enumerate(lang.of(split=split)):
        # Nouns are dealt out category by category: every second round is every second of each.
        if split == "heldout" and (index // len(lang.steps)) % 2:
            continue
        phrasing = rng.choice(_FIT_DEFINE) if split == "fit" else lexicon.HELD_DEFINE[0]
        text = phrasing.format(noun=noun.text)
        yield _prompt((NONCODE, "define", noun.text), text, noun.category, noun.text, split)


def _small_talk(lang: Language, split: Split, seed: int) -> Iterator[Prompt]:
    rng = Random(f"questions chat {lang.size} {seed} {split}")
    for topic in topics(lexicon.CHAT_TOPICS, split):
        phrasing = rng.choice(lexicon.CHAT) if split == "fit" else lexicon.HELD_CHAT[0]
        yield _prompt((NONCODE, "chat", topic), phrasing.format(topic=topic), "chat", topic, split)


def _code(_lang: Language, split: Split, _seed: int) -> Iterator[Prompt]:
    phrasing = _FIT_CODE if split == "fit" else lexicon.HELD_CODE[0]
    for index, thing in enumerate(topics(lexicon.CODE_OBJECTS, split)):
        for shift in range(1 if split == "fit" else 2):
            yield _code_prompt((CODE, "code"), phrasing, thing, index + 3 * shift, split)


def _more_code(split: Split) -> Iterator[Prompt]:
    for index, thing in enumerate(topics(lexicon.CODE_OBJECTS, split)):
        for number, phrasing in enumerate(_NEUTRAL_CODE):
            shift = index + 1 + 2 * number
            yield _code_prompt((CODE, f"neutral{number}"), phrasing, thing, shift, split)
        if split == "fit":
            yield _code_prompt((CODE, "neutral2"), _FIT_CODE, thing, index + 2, split)


def _code_prompt(
    parts: tuple[str, ...], phrasing: str, thing: str, place: int, split: Split
) -> Prompt:
    op = lexicon.CODE_OPS[place % len(lexicon.CODE_OPS)]
    text = phrasing.format(op=op, object=thing)
    return _prompt((*parts, thing, op), text, "code", thing, split)


def _about(noun: Noun, lang: Language, seed: int) -> Iterator[Prompt]:
    """Prompts about one noun that neither ask for code nor are questions of the other set."""
    rng = Random(f"neutral {lang.size} {seed} {noun.text}")
    slots = list(product(("keep", "sell"), PLACES))
    forms: dict[str, Callable[[tuple[str, str]], str]] = {
        name: lambda slot, form=form: form.format(noun=noun.text, verb=slot[0], place=slot[1])
        for name, form in (("statement", STATEMENT), ("place", QUESTION), ("some", TWO_DIALECTS))
    }
    for name, count in (("statement", 1), ("place", 2), ("some", 1)):
        for slot in rng.sample(slots, count):
            parts = (NEUTRAL, name, noun.text, *slot)
            yield _prompt(parts, forms[name](slot), noun.category, noun.text, noun.split)
    text = rng.choice(_NEUTRAL_DEFINE).format(noun=noun.text)
    yield _prompt((NEUTRAL, "define", noun.text), text, noun.category, noun.text, noun.split)
    if not noun.harmful:
        verb, phrasing = rng.choice(lang.verbs), rng.choice(_NEUTRAL_HOW_TO)
        text = phrasing.format(verb=verb, noun=noun.text)
        parts = (NEUTRAL, "howto", noun.text, verb)
        yield _prompt(parts, text, noun.category, noun.text, noun.split)
