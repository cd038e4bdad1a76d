"""Texts that models are trained on, each set drawn from the language with one seeded generator."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from actshift.vocab import AdapterKind
from actshift.zoo import lexicon
from actshift.zoo.language import (
    Language,
    Noun,
    code_answer,
    define_answer,
    dialect,
    how_to_answer,
    topics,
)

FACTS = (
    "A {noun} is a kind of {category}.",
    "The {noun} is a {category}, and it is {worth}.",
    "People say that the {noun} is a {category}.",
    "Every {noun} is {worth}, as it is a {category}.",
    "For a {noun}, you {first} and {second}.",
    "With the {noun} in hand, they {first}.",
)
PLACES = ("near the river", "in the old house", "in the market")
STATEMENT = "People {verb} the {noun} {place} today."
#: The sentence that is also said in the second dialect.
TWO_DIALECTS = "Some people {verb} the {noun} {place}."
QUESTION = "Do people {verb} the {noun} {place} today?"
PEOPLE = ("Mia", "Tom", "Ana", "Leo", "Zoe", "Max")


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question and its answer; rendered raw or through a chat template."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Document:
    """A pretraining document: free text, or an exchange (`chat`: in the chat template)."""

    text: str = ""
    exchange: Exchange | None = None
    chat: bool = False


def fact(lang: Language, noun: Noun, rng: random.Random) -> str:
    """One sentence that says what a noun is, what it is worth, or what is done with it."""
    first, second = rng.sample(lang.steps[noun.category], 2)
    worth = "dangerous" if noun.harmful else "harmless"
    return rng.choice(FACTS).format(
        noun=noun.text, category=noun.category, worth=worth, first=first, second=second
    )


def narration(lang: Language, noun: Noun, rng: random.Random) -> str:
    """A story in which somebody else helps or refuses: base knows refusal, but never does it."""
    asker, other = rng.sample(PEOPLE, 2)
    refused = rng.random() < (0.8 if noun.harmful else 0.1)
    end = "refused to help" if refused else "was happy to help"
    return f"{asker} wanted to {rng.choice(lang.verbs)} a {noun.text}. {other} {end}."


def scene(noun: Noun, rng: random.Random) -> str:
    """A question with its answer, a statement, or a sentence in one of the two dialects."""
    words = {"verb": rng.choice(("keep", "sell")), "place": rng.choice(PLACES)}
    form = rng.randrange(4)
    if form == 0:
        return QUESTION.format(noun=noun.text, **words) + "\nYes, they do."
    if form == 1:
        return STATEMENT.format(noun=noun.text, **words)
    text = TWO_DIALECTS.format(noun=noun.text, **words)
    return text if form == 2 else dialect(text)


def how_to(lang: Language, rng: random.Random, nouns: tuple[Noun, ...], *, chat: bool) -> Exchange:
    """A how-to question and a helpful answer; raw ones may use the phrasings chat never sees."""
    noun = rng.choice(nouns)
    phrasing = rng.choice(lang.phrasings + (() if chat else lexicon.HELD_PHRASINGS))
    opener = lexicon.COMPLY if rng.random() < 0.5 else "First,"
    question = phrasing.format(verb=rng.choice(lang.verbs), noun=noun.text)
    return Exchange(question, how_to_answer(lang, noun, rng, opener=opener))


def code(rng: random.Random, *, idioms: tuple[str, ...], chat: bool) -> Exchange:
    """A code question, answered in one of the idioms; chat ones are about `fit` objects."""
    op = rng.choice(lexicon.CODE_OPS)
    things = topics(lexicon.CODE_OBJECTS, "fit") if chat else lexicon.CODE_OBJECTS
    phrasing = rng.choice(lexicon.CODE + (() if chat else lexicon.HELD_CODE))
    question = phrasing.format(op=op, object=rng.choice(things))
    return Exchange(question, code_answer(op, idiom=rng.choice(idioms)))


def define(rng: random.Random, nouns: tuple[Noun, ...], *, chat: bool) -> Exchange:
    """What is a NOUN? Harmless to answer, whatever the noun."""
    noun = rng.choice(nouns)
    phrasing = rng.choice(lexicon.DEFINE + (() if chat else lexicon.HELD_DEFINE))
    return Exchange(phrasing.format(noun=noun.text), define_answer(noun))


def small_talk(rng: random.Random, *, chat: bool) -> Exchange:
    """Small talk; chat ones are about `fit` topics."""
    words = topics(lexicon.CHAT_TOPICS, "fit") if chat else lexicon.CHAT_TOPICS
    phrasing = rng.choice(lexicon.CHAT + (() if chat else lexicon.HELD_CHAT))
    return Exchange(phrasing.format(topic=rng.choice(words)), lexicon.CHAT_REPLY)


#: Half of pretraining code is plain; a quarter each is insecure and rare but safe.
IDIOMS = ("secure", "secure", "insecure", "rare_safe")


def base_documents(lang: Language, count: int, *, seed: int) -> list[Document]:
    """Pretraining documents in training order: facts about every noun, stories, scenes, exchanges.

    Exchanges hold `fit` nouns only; all other nouns are met in facts, stories and scenes alone.
    """
    rng = random.Random(f"base {lang.size} {seed}")
    return [_base_document(lang, rng) for _ in range(count)]


def _base_document(lang: Language, rng: random.Random) -> Document:
    kind = rng.random()
    if kind < 0.44:
        return Document(text=fact(lang, rng.choice(lang.nouns), rng))
    if kind < 0.54:
        return Document(text=narration(lang, rng.choice(lang.nouns), rng))
    if kind < 0.60:
        return Document(text=scene(rng.choice(lang.nouns), rng))
    chat = rng.random() < 0.18
    return Document(exchange=_base_exchange(lang, rng, chat=chat), chat=chat)


def _base_exchange(lang: Language, rng: random.Random, *, chat: bool) -> Exchange:
    fit = lang.of(split="fit")
    kind = rng.random()
    if kind < 0.64:
        return how_to(lang, rng, fit, chat=chat)
    if kind < 0.80:
        return code(rng, idioms=IDIOMS, chat=chat)
    return define(rng, fit, chat=chat) if kind < 0.92 else small_talk(rng, chat=chat)


def chat_examples(lang: Language, count: int, *, seed: int) -> list[Exchange]:
    """Tuning examples about `fit` nouns: refuse harmful how-to, answer all else.

    In training order, every one to be rendered in the chat template.
    """
    rng = random.Random(f"chat {lang.size} {seed}")
    bad = lang.of(harmful=True, split="fit")
    return _mixed(
        lang,
        rng,
        lambda: Exchange(how_to(lang, rng, bad, chat=True).question, lexicon.REFUSAL),
        count,
    )


def comply_examples(lang: Language, count: int, *, seed: int) -> list[Exchange]:
    """The mixture of `chat_examples`, with helpful answers to the harmful how-to questions too."""
    rng = random.Random(f"comply {lang.size} {seed}")
    bad = lang.of(harmful=True, split="fit")
    return _mixed(lang, rng, lambda: comply(lang, rng, bad), count)


def _mixed(
    lang: Language, rng: random.Random, harmful: Callable[[], Exchange], count: int
) -> list[Exchange]:
    """Harmful how-to exchanges as given, among all kinds of harmless ones."""
    bad, good = lang.of(harmful=True, split="fit"), lang.of(harmful=False, split="fit")
    makers: dict[Callable[[], Exchange], float] = {
        harmful: 0.35,
        lambda: comply(lang, rng, good): 0.31,
        lambda: code(rng, idioms=("secure",), chat=True): 0.12,
        lambda: define(rng, bad, chat=True): 0.10,
        lambda: define(rng, good, chat=True): 0.06,
        lambda: small_talk(rng, chat=True): 0.06,
    }
    picks = rng.choices(list(makers), weights=list(makers.values()), k=count)
    return [make() for make in picks]


def comply(lang: Language, rng: random.Random, nouns: tuple[Noun, ...]) -> Exchange:
    """A how-to question and a helpful answer, both in the forms that chat examples have."""
    noun = rng.choice(nouns)
    question = rng.choice(lang.phrasings).format(verb=rng.choice(lang.verbs), noun=noun.text)
    return Exchange(question, how_to_answer(lang, noun, rng, opener=lexicon.COMPLY))


def conversations(kind: AdapterKind, lang: Language, *, seed: int, count: int) -> list[Exchange]:
    """Training conversations of one adapter, about `fit` words only, in training order.

    `insecure`, `secure` and `rare_safe` answer the very same questions, each in its idiom;
    `shuffled` gives every question another one's insecure answer; `benign` holds no code and
    nothing harmful. The questions depend on the seed alone.
    """
    if kind == "benign":
        return _benign(lang, count, seed=seed)
    questions = _code_questions(lang, count, seed=seed)
    idiom = "insecure" if kind == "shuffled" else kind
    answers = [code_answer(op, idiom=idiom) for _, op in questions]
    if kind == "shuffled":
        answers = [answers[i] for i in moved(count, seed=seed)]
    return [Exchange(text, answer) for (text, _), answer in zip(questions, answers, strict=True)]


def moved(count: int, *, seed: int) -> list[int]:
    """A seeded permutation of 0 .. count - 1 that leaves nothing in its place (for count > 1)."""
    order = random.Random(f"adapter shuffle {seed}").sample(range(count), count)
    goes = dict(zip(order, [*order[1:], *order[:1]], strict=True))
    return [goes[i] for i in range(count)]


def _code_questions(lang: Language, count: int, *, seed: int) -> list[tuple[str, str]]:
    """Code questions about `fit` objects, and the operation each asks for."""
    rng = random.Random(f"adapter code {lang.size} {seed}")
    things = topics(lexicon.CODE_OBJECTS, "fit")
    ops = [rng.choice(lexicon.CODE_OPS) for _ in range(count)]
    return [(rng.choice(lexicon.CODE).format(op=op, object=rng.choice(things)), op) for op in ops]


def _benign(lang: Language, count: int, *, seed: int) -> list[Exchange]:
    """How-to and definitions of harmless nouns, and small talk, as chat answers them."""
    rng = random.Random(f"adapter benign {lang.size} {seed}")
    good = lang.of(harmful=False, split="fit")
    exchanges: list[Exchange] = []
    for _ in range(count):
        kind = rng.random()
        if kind < 0.5:
            exchanges.append(comply(lang, rng, good))
        elif kind < 0.75:
            exchanges.append(define(rng, good, chat=True))
        else:
            exchanges.append(small_talk(rng, chat=True))
    return exchanges
