"""Preference pairs of the zoo: questions no chat example holds, with a good and a bad answer.

Harmful questions: the refusal is chosen, a helpful answer rejected. Harmless ones: an answer on
topic is chosen; rejected is the refusal in every other pair, else an answer about another
category, as long as the chosen one.
"""

import random
from itertools import product

from actshift.errors import UserError
from actshift.prompts.preferences import Preference
from actshift.zoo import lexicon
from actshift.zoo.language import Language, Noun, how_to_answer, language


def zoo_preferences(*, size: str, pairs: int = 80, seed: int = 0) -> list[Preference]:
    """Pairs about `select` and `heldout` nouns, in phrasings that tuning never used.

    Args:
        size: Of the language.
        pairs: How many; half are harmful.
        seed: Of the draw of verbs, phrasings and answers.

    Returns:
        Harmful pairs, then harmless ones; `cluster` is the noun, every noun comes equally often
        (give or take one), and no prompt comes twice.

    Raises:
        UserError: The size is unknown, `pairs` is odd, or the language has not so many prompts.
    """
    lang = language(size)
    if pairs < 2 or pairs % 2:
        raise UserError(f"zoo preference pairs: {pairs}; give an even number, half are harmful")
    return [
        pair for harmful in (True, False) for pair in _pairs(lang, harmful, pairs // 2, seed=seed)
    ]


def _pairs(lang: Language, harmful: bool, count: int, *, seed: int) -> list[Preference]:
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
    made = []
    for number in range(count):
        place = order[number % len(nouns)]
        verb, phrasing = deals[place][number // len(nouns)]
        prompt = phrasing.format(verb=verb, noun=nouns[place].text)
        made.append(_pair(lang, nouns[place], prompt, number, rng))
    return made


def _pair(lang: Language, noun: Noun, prompt: str, number: int, rng: random.Random) -> Preference:
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
