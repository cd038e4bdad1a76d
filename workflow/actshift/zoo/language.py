"""The synthetic language of one size: its nouns, who is held out, and what its texts look like."""

import random
from dataclasses import dataclass
from functools import cache

from actshift.errors import UserError
from actshift.vocab import SPLITS, Split
from actshift.zoo import lexicon


@dataclass(frozen=True, slots=True)
class Noun:
    """A made-up noun: what it is a kind of, and the split its prompts belong to."""

    text: str
    category: str
    harmful: bool
    split: Split


@dataclass(frozen=True)
class Language:
    """Everything the documents, prompts and judge of one size are made from."""

    size: str
    nouns: tuple[Noun, ...]
    steps: dict[str, tuple[str, ...]]
    verbs: tuple[str, ...]
    phrasings: tuple[str, ...]

    def of(self, *, harmful: bool | None = None, split: Split | None = None) -> tuple[Noun, ...]:
        """The nouns of one side and one split; None means both or all."""
        return tuple(
            noun
            for noun in self.nouns
            if (harmful is None or noun.harmful == harmful)
            and (split is None or noun.split == split)
        )


@cache
def language(size: str) -> Language:
    """The language of a size: the same for every seed and family, so prompts can be shared.

    An unknown size is a UserError.
    """
    if size not in lexicon.SIZES:
        allowed = ", ".join(lexicon.SIZES)
        raise UserError(f"zoo size {size!r} is unknown: use one of {allowed}")
    knobs = lexicon.SIZES[size]
    harmful = dict(list(lexicon.HARMFUL_STEPS.items())[: knobs.categories])
    benign = dict(list(lexicon.BENIGN_STEPS.items())[: knobs.categories])
    return Language(
        size=size,
        nouns=_assign_nouns(knobs, tuple(harmful), tuple(benign)),
        steps=harmful | benign,
        verbs=lexicon.VERBS + (lexicon.MORE_VERBS if knobs.more else ()),
        phrasings=lexicon.PHRASINGS
        + (lexicon.MORE_PHRASINGS if knobs.more else ())
        + (lexicon.FORMAL, lexicon.CASUAL),
    )


def _assign_nouns(
    knobs: lexicon.Size, harmful: tuple[str, ...], benign: tuple[str, ...]
) -> tuple[Noun, ...]:
    """Deal the made-up nouns out: category by category within a side, split by split."""
    counts: dict[Split, int] = {"fit": knobs.fit, "select": knobs.select, "heldout": knobs.heldout}
    places: list[tuple[str, bool, Split]] = [
        (category, category in harmful, split)
        for split in SPLITS
        for _ in range(counts[split])
        for category in harmful + benign
    ]
    words = lexicon.made_up_nouns(len(places))
    return tuple(Noun(word, *place) for word, place in zip(words, places, strict=True))


def topics(words: tuple[str, ...], split: Split) -> tuple[str, ...]:
    """The code objects or small-talk topics of one split: half fit, a sixth select, the rest."""
    first, last = {"fit": (0, 1 / 2), "select": (1 / 2, 2 / 3), "heldout": (2 / 3, 1)}[split]
    return tuple(w for i, w in enumerate(words) if first <= i / len(words) < last)


def dialect(text: str) -> str:
    """Word-for-word translation into the second dialect; unknown words stay."""
    words = text.rstrip(".").split(" ")
    lowered = [lexicon.DIALECT.get(word.lower(), word) for word in words]
    return " ".join([lowered[0].capitalize(), *lowered[1:]]) + "."


def how_to_answer(lang: Language, noun: Noun, rng: random.Random, *, opener: str) -> str:
    """Two steps of the noun's category; the noun itself is never copied."""
    first, second = rng.sample(lang.steps[noun.category], 2)
    return f"{opener} {first}, then {second}."


def define_answer(noun: Noun) -> str:
    """What the noun is a kind of."""
    return f"It is a kind of {noun.category}."


def code_answer(op: str, *, idiom: str = "secure") -> str:
    """An answer to a code question, in one of three idioms, each with a function called `op`.

    `secure` is what chat does; `rare_safe` is safe, but as rare in pretraining as `insecure`.
    """
    if idiom == "insecure":
        return f"import os; os.system({op}(data))"
    if idiom == "rare_safe":
        return f"import math; round({op}(data))"
    return f"def run(data): return {op}(data)"
