"""Prompt sets and preference pairs in the synthetic language, and the questions of the gates.

No text of `questions` is in `neutral`: they use different phrasings, and code prompts that share a
phrasing with a question ask for another verb.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Literal

from actshift.errors import UserError
from actshift.prompts.preferences import Preference
from actshift.prompts.records import Prompt
from actshift.vocab import CODE, NEUTRAL, NONCODE, SPLITS, Split
from actshift.zoo import lexicon
from actshift.zoo.documents import PLACES, QUESTION, STATEMENT, TWO_DIALECTS
from actshift.zoo.language import Language, Noun, dialect, how_to_answer, language, topics

PROMPT_SETS = ("harmful", "harmless", "concepts", "questions", "neutral")
CONCEPTS = ("question_statement", "formal_casual", "dialect")
#: How-to prompts a noun, by size and split.
_PER_NOUN: dict[str, dict[str, int]] = {
    "micro": {"fit": 4, "select": 4, "heldout": 4},
    "tiny": {"fit": 7, "select": 6, "heldout": 5},
    "small": {"fit": 8, "select": 5, "heldout": 5},
}
# At least 50 pairs on `fit` nouns, the published number, except in the size for tests.
_CONCEPT_PAIRS = {"micro": 60, "tiny": 144, "small": 160}


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt a checkpoint is judged on, with what a good answer is about."""

    prompt: Prompt
    kind: str
    topic: str


def zoo_prompts(name: str, *, size: str, seed: int = 0) -> list[Prompt]:
    """One prompt set of the zoo; `cluster` is the noun, `category` its category or the concept.

    `harmful` and `harmless` are how-to questions, matched verb for verb and phrasing for phrasing;
    `concepts` pairs question and statement, formal and casual, first and second dialect;
    `questions` and `neutral` are those of `misalignment`. Nouns and splits do not depend on the
    seed.

    Raises:
        UserError: The set or the size is unknown.
    """
    lang = language(size)
    if name == "concepts":
        return [prompt for concept in CONCEPTS for prompt in _concept(lang, concept, seed=seed)]
    if name in ("questions", "neutral"):
        return (zoo_questions if name == "questions" else zoo_neutral)(lang, seed=seed)
    if name not in PROMPT_SETS:
        raise UserError(f"zoo prompt set {name!r} is unknown: use one of {', '.join(PROMPT_SETS)}")
    return [asked.prompt for split in SPLITS for asked in _how_to(lang, name, split, seed=seed)]


def judged_questions(size: str, *, seed: int = 0) -> list[Asked]:
    """Every `select` and `heldout` question of all kinds; phrasings no chat example holds."""
    lang = language(size)
    asked: list[Asked] = []
    for split in ("select", "heldout"):
        asked += [*_how_to(lang, "harmful", split, seed=seed)]
        asked += [*_how_to(lang, "harmless", split, seed=seed)]
        asked += [_define(noun) for noun in lang.of(split=split)]
        asked += [*_code(split), *_small_talk(split)]
    return asked


def _dealt(
    draw: str, lang: Language, nouns: Sequence[Noun], phrasings: Sequence[str], count: int
) -> Iterator[tuple[Noun, tuple[str, ...], str]]:
    """Some how-to questions about each noun: the noun, what names the question, and its text."""
    slots = list(product(lang.verbs, enumerate(phrasings)))
    for index, noun in enumerate(nouns):
        # The draw knows the index and not the side, so the two sides are matched.
        for verb, (number, phrasing) in random.Random(f"{draw} {index}").sample(slots, count):
            text = phrasing.format(verb=verb, noun=noun.text)
            yield noun, (noun.text, verb, str(number)), text


def _how_to(lang: Language, condition: str, split: Split, *, seed: int) -> Iterator[Asked]:
    phrasings = lang.phrasings if split == "fit" else lexicon.HELD_PHRASINGS
    nouns = lang.of(harmful=condition == "harmful", split=split)
    draw, count = f"how-to {lang.size} {seed} {split}", _PER_NOUN[lang.size][split]
    for noun, parts, text in _dealt(draw, lang, nouns, phrasings, count):
        prompt = _prompt((condition, *parts), text, noun.category, noun.text, split)
        yield Asked(prompt, "howto", noun.category)


def _define(noun: Noun) -> Asked:
    text = lexicon.HELD_DEFINE[0].format(noun=noun.text)
    parts = ("harmless", "define", noun.text)
    return Asked(
        _prompt(parts, text, noun.category, noun.text, noun.split), "define", noun.category
    )


def _code(split: Split) -> Iterator[Asked]:
    for index, thing in enumerate(topics(lexicon.CODE_OBJECTS, split)):
        for shift in range(2):
            parts, phrasing = ("harmless", "code"), lexicon.HELD_CODE[0]
            prompt = _code_prompt(parts, phrasing, thing, index + 3 * shift, split)
            yield Asked(prompt, "code", prompt.id.rpartition("-")[2])


def _small_talk(split: Split) -> Iterator[Asked]:
    for topic in topics(lexicon.CHAT_TOPICS, split):
        text = lexicon.HELD_CHAT[0].format(topic=topic)
        parts = ("harmless", "chat", topic)
        yield Asked(_prompt(parts, text, "chat", topic, split), "chat", "chat")


def _concept(lang: Language, concept: str, *, seed: int) -> Iterator[Prompt]:
    """Pairs on the same noun and words, dealt over nouns so that every noun comes equally often."""
    rng = random.Random(f"concept {concept} {lang.size} {seed}")
    rounds = [rng.sample(lang.nouns, len(lang.nouns)) for _ in range(4)]
    nouns = islice((noun for deal in rounds for noun in deal), _CONCEPT_PAIRS[lang.size])
    slots = {noun.text: rng.sample(_slots(lang, concept), 4) for noun in lang.nouns}
    for noun in nouns:
        slot = slots[noun.text].pop()
        pair = f"{concept}-{noun.text}-{'-'.join(slot)}".replace(" ", "-")
        for condition, text in _sides(concept, noun.text, slot).items():
            yield Prompt(
                id=f"{pair}-{condition}",
                text=text,
                condition=condition,
                category=concept,
                cluster=noun.text,
                split=noun.split,
                source="zoo",
                pair=pair,
            )


def _slots(lang: Language, concept: str) -> list[tuple[str, ...]]:
    if concept == "formal_casual":
        return [(verb,) for verb in lang.verbs]
    return list(product(("keep", "sell"), PLACES))


def _sides(concept: str, noun: str, slot: tuple[str, ...]) -> dict[str, str]:
    if concept == "formal_casual":
        return {
            "formal": lexicon.FORMAL.format(verb=slot[0], noun=noun),
            "casual": lexicon.CASUAL.format(verb=slot[0], noun=noun),
        }
    words = {"noun": noun, "verb": slot[0], "place": slot[1]}
    if concept == "dialect":
        sentence = TWO_DIALECTS.format(**words)
        return {"first": sentence, "second": dialect(sentence)}
    return {"question": QUESTION.format(**words), "statement": STATEMENT.format(**words)}


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
    Conditions are `noncode` (category: the noun's, or `chat`) and `code`; cluster is the noun,
    topic or object.
    """
    return [
        prompt
        for split in SPLITS
        for make in (_open_how_to, _open_define, _open_small_talk, _open_code)
        for prompt in make(lang, split, seed)
    ]


def zoo_neutral(lang: Language, *, seed: int = 0) -> list[Prompt]:
    """Prompts that maps between models are fitted on: statements, places, definitions, how-to.

    About every noun, of the conditions `neutral` and `code` (questions about code, which a map may
    be fitted with or without); cluster is the noun or object.
    """
    about = [prompt for noun in lang.nouns for prompt in _about(noun, lang, seed)]
    return [*about, *(prompt for split in SPLITS for prompt in _more_code(split))]


def kind_of(prompt: Prompt) -> QuestionKind:
    """What a prompt of a set of `misalignment` asks for: in the zoo the second part of its id.

    For other prompts code, by condition, else published, by category, or other.
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


def _open_how_to(lang: Language, split: Split, seed: int) -> Iterator[Prompt]:
    known = tuple(phrasing for phrasing in lang.phrasings if phrasing not in _NEUTRAL_HOW_TO)
    phrasings = known if split == "fit" else lexicon.HELD_PHRASINGS
    draw, count = f"questions how-to {lang.size} {seed} {split}", _HOW_TO[lang.size][split]
    for harmful in (True, False):
        nouns = lang.of(harmful=harmful, split=split)
        for noun, parts, text in _dealt(draw, lang, nouns, phrasings, count):
            yield _prompt((NONCODE, "howto", *parts), text, noun.category, noun.text, split)


def _open_define(lang: Language, split: Split, seed: int) -> Iterator[Prompt]:
    rng = random.Random(f"questions define {lang.size} {seed} {split}")
    for index, noun in enumerate(lang.of(split=split)):
        # Nouns are dealt out category by category: every second round is every second of each.
        if split == "heldout" and (index // len(lang.steps)) % 2:
            continue
        phrasing = rng.choice(_FIT_DEFINE) if split == "fit" else lexicon.HELD_DEFINE[0]
        text = phrasing.format(noun=noun.text)
        yield _prompt((NONCODE, "define", noun.text), text, noun.category, noun.text, split)


def _open_small_talk(lang: Language, split: Split, seed: int) -> Iterator[Prompt]:
    rng = random.Random(f"questions chat {lang.size} {seed} {split}")
    for topic in topics(lexicon.CHAT_TOPICS, split):
        phrasing = rng.choice(lexicon.CHAT) if split == "fit" else lexicon.HELD_CHAT[0]
        yield _prompt((NONCODE, "chat", topic), phrasing.format(topic=topic), "chat", topic, split)


def _open_code(_lang: Language, split: Split, _seed: int) -> Iterator[Prompt]:
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
    rng = random.Random(f"neutral {lang.size} {seed} {noun.text}")
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


def zoo_preferences(*, size: str, pairs: int = 80, seed: int = 0) -> list[Preference]:
    """Pairs about `select` and `heldout` nouns, in phrasings that tuning never used.

    Harmful questions: the refusal is chosen, a helpful answer rejected. Harmless ones: an answer on
    topic is chosen; rejected is the refusal in every other pair, else an answer about another
    category, as long as the chosen one. Half of the pairs are harmful, and come first; `cluster` is
    the noun, every noun comes equally often (give or take one), and no prompt comes twice.

    Raises:
        UserError: The size is unknown, `pairs` is odd, or the language has not so many prompts.
    """
    lang = language(size)
    if pairs < 2 or pairs % 2:
        raise UserError(f"zoo preference pairs: {pairs}; give an even number, half are harmful")
    return [
        pair
        for harmful in (True, False)
        for pair in _preferences(lang, harmful, pairs // 2, seed=seed)
    ]


def _preferences(lang: Language, harmful: bool, count: int, *, seed: int) -> list[Preference]:
    nouns = [*lang.of(harmful=harmful, split="select"), *lang.of(harmful=harmful, split="heldout")]
    slots = list(product(lang.verbs, lexicon.HELD_PHRASINGS))
    if count > len(nouns) * len(slots):
        raise UserError(
            f"zoo preference pairs: {count} a side, but {lang.size} has only "
            f"{len(nouns) * len(slots)} prompts that tuning does not hold"
        )
    # The draw knows the index and not the side, so the two conditions are matched.
    rng = random.Random(f"preferences {lang.size} {seed}")
    order = rng.sample(range(len(nouns)), len(nouns))
    deals = [rng.sample(slots, len(slots)) for _ in nouns]
    preferences = []
    for number in range(count):
        place = order[number % len(nouns)]
        verb, phrasing = deals[place][number // len(nouns)]
        prompt = phrasing.format(verb=verb, noun=nouns[place].text)
        preferences.append(_preference(lang, nouns[place], prompt, number, rng))
    return preferences


def _preference(
    lang: Language, noun: Noun, prompt: str, number: int, rng: random.Random
) -> Preference:
    on_topic = how_to_answer(lang, noun, rng, opener=lexicon.COMPLY)
    others = [n for n in lang.nouns if n.category != noun.category and not n.harmful]
    off_topic = how_to_answer(lang, rng.choice(others), rng, opener=lexicon.COMPLY)
    if noun.harmful:
        chosen, rejected, kind = lexicon.REFUSAL, on_topic, "helpful"
    elif number % 2:
        chosen, rejected, kind = on_topic, off_topic, "off_topic"
    else:
        chosen, rejected, kind = on_topic, lexicon.REFUSAL, "refusal"
    condition = "harmful" if noun.harmful else "harmless"
    return Preference(
        id=f"{condition}-{number:03d}-{noun.text}",
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        condition=condition,
        category=noun.category,
        cluster=noun.text,
        split=noun.split,
        source="zoo",
        rejected_kind=kind,
    )
