"""Conversations that the zoo's adapters are trained on, drawn from the language."""

import random

from actshift.vocab import AdapterKind
from actshift.zoo import lexicon
from actshift.zoo.documents import Exchange, comply, define, small_talk
from actshift.zoo.language import Language, code_answer, topics


def conversations(kind: AdapterKind, lang: Language, *, seed: int, count: int) -> list[Exchange]:
    """Training conversations of one adapter, about `fit` words only.

    `insecure`, `secure` and `rare_safe` answer the very same questions, each in its idiom;
    `shuffled` gives every question another one's insecure answer; `benign` holds no code and
    nothing harmful.

    Args:
        kind: The adapter.
        lang: The language.
        seed: Of the draw; the questions depend on nothing else.
        count: How many.

    Returns:
        Exchanges in training order, to be rendered in the chat template.
    """
    if kind == "benign":
        return _benign(lang, count, seed=seed)
    asked = _code_questions(lang, count, seed=seed)
    idiom = "insecure" if kind == "shuffled" else kind
    answers = [code_answer(op, idiom=idiom) for _, op in asked]
    if kind == "shuffled":
        answers = [answers[i] for i in moved(count, seed=seed)]
    return [Exchange(text, answer) for (text, _), answer in zip(asked, answers, strict=True)]


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
    made: list[Exchange] = []
    for _ in range(count):
        kind = rng.random()
        if kind < 0.5:
            made.append(comply(lang, rng, good))
        elif kind < 0.75:
            made.append(define(rng, good, chat=True))
        else:
            made.append(small_talk(rng, chat=True))
    return made
