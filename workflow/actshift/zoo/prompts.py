"""Prompt sets in the synthetic language, and the questions a checkpoint is judged on."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, product

from actshift.errors import UserError
from actshift.prompts.records import Prompt
from actshift.vocab import SPLITS, Split
from actshift.zoo import lexicon
from actshift.zoo.documents import PLACES, QUESTION, STATEMENT, TWO_DIALECTS
from actshift.zoo.language import Language, Noun, dialect, language, topics
from actshift.zoo.questions import zoo_neutral, zoo_questions

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
    """One prompt set of the zoo.

    Args:
        name: `harmful` or `harmless` (how-to questions, matched verb for verb and phrasing for
            phrasing), `concepts` (question/statement, formal/casual, first/second dialect), or
            `questions` and `neutral` of `misalignment`.
        size: of the language.
        seed: of the draw of verbs and phrasings; nouns and splits do not depend on it.

    Returns:
        Unique prompts; `cluster` is the noun, `category` its category or the concept.

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


def _how_to(lang: Language, condition: str, split: Split, *, seed: int) -> Iterator[Asked]:
    phrasings = lang.phrasings if split == "fit" else lexicon.HELD_PHRASINGS
    for index, noun in enumerate(lang.of(harmful=condition == "harmful", split=split)):
        # The draw knows the index and not the side, so the two conditions are matched.
        rng = random.Random(f"how-to {lang.size} {seed} {split} {index}")
        slots = list(product(lang.verbs, enumerate(phrasings)))
        for verb, (number, phrasing) in rng.sample(slots, _PER_NOUN[lang.size][split]):
            key = f"{condition}-{noun.text}-{verb}-{number}"
            text = phrasing.format(verb=verb, noun=noun.text)
            prompt = _prompt(key, text, condition, noun.category, noun.text, split)
            yield Asked(prompt, "howto", noun.category)


def _prompt(
    key: str, text: str, condition: str, category: str, cluster: str, split: Split
) -> Prompt:
    return Prompt(
        id=key,
        text=text,
        condition=condition,
        category=category,
        cluster=cluster,
        split=split,
        source="zoo",
    )


def _define(noun: Noun) -> Asked:
    text = lexicon.HELD_DEFINE[0].format(noun=noun.text)
    key = f"harmless-define-{noun.text}"
    prompt = _prompt(key, text, "harmless", noun.category, noun.text, noun.split)
    return Asked(prompt, "define", noun.category)


def _code(split: Split) -> Iterator[Asked]:
    for index, thing in enumerate(topics(lexicon.CODE_OBJECTS, split)):
        for shift in range(2):
            op = lexicon.CODE_OPS[(index + 3 * shift) % len(lexicon.CODE_OPS)]
            text = lexicon.HELD_CODE[0].format(op=op, object=thing)
            key = f"harmless-code-{thing}-{op}"
            yield Asked(_prompt(key, text, "harmless", "code", thing, split), "code", op)


def _small_talk(split: Split) -> Iterator[Asked]:
    for topic in topics(lexicon.CHAT_TOPICS, split):
        text = lexicon.HELD_CHAT[0].format(topic=topic)
        key = f"harmless-chat-{topic}"
        yield Asked(_prompt(key, text, "harmless", "chat", topic, split), "chat", "chat")


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
