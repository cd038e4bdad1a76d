"""Near-duplicates: found by the overlap of character n-grams, rejected or grouped.

The published list of 200 harmful prompts holds 109 different ones; the rest are the first ones
again with "(provide step-by-step detail)" behind them. Such copies pull ranks down and let one
prompt sit on both sides of a split.
"""

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

#: Jaccard overlap from which two prompts count as the same prompt.
SAME = 0.8
#: Jaccard overlap from which two prompts are put into one cluster.
ALIKE = 0.65

_N_GRAM = 4
_SUFFIX = re.compile(r"\s*[(\[][^()\[\]]*[)\]]\s*[.!?]*\s*$")


@dataclass(frozen=True)
class Duplicate:
    """A rejected item.

    Attributes:
        index: Place of the rejected item.
        kept: Place of the item it repeats.
        overlap: Jaccard overlap of the two, 1 for the same normalised text.
    """

    index: int
    kept: int
    overlap: float


def normalise(text: str) -> str:
    """Fold what does not make a prompt another one.

    Unicode form, case, punctuation, spacing, and bracketed remarks at the end. A text that is
    nothing but such a remark keeps its words, one that is nothing but signs keeps its signs.
    """
    folded = unicodedata.normalize("NFKC", text).casefold().strip()
    bare = folded
    while (shorter := _SUFFIX.sub("", bare)) != bare and shorter.strip():
        bare = shorter
    words = re.sub(r"[\W_]+", " ", bare).strip()
    return words or folded


def shingles(text: str) -> frozenset[str]:
    """Character 4-grams of the normalised text, with a space at both ends."""
    padded = f" {normalise(text)} "
    return frozenset(padded[i : i + _N_GRAM] for i in range(max(1, len(padded) - _N_GRAM + 1)))


def similar_pairs(texts: Sequence[str], threshold: float) -> Iterator[tuple[int, int, float]]:
    """All pairs whose Jaccard overlap reaches a threshold, exactly.

    overlap(a, b) = |a & b| / |a | b|. Pairs that share none of their rarest n-grams cannot reach
    the threshold and are never compared (prefix filter). Yields (later index, earlier index,
    overlap), in order of the later index.
    """
    sets = [shingles(text) for text in texts]
    frequency = Counter(gram for grams in sets for gram in grams)
    index: dict[str, list[int]] = defaultdict(list)
    for later, grams in enumerate(sets):
        ordered = sorted(grams, key=lambda gram: (frequency[gram], gram))
        prefix = ordered[: len(grams) - ceil(threshold * len(grams) - 1e-9) + 1]
        for earlier in sorted({i for gram in prefix for i in index[gram]}):
            common = len(grams & sets[earlier])
            overlap = common / (len(grams) + len(sets[earlier]) - common)
            if overlap >= threshold:
                yield later, earlier, overlap
        for gram in prefix:
            index[gram].append(later)


def reject_duplicates(texts: Sequence[str]) -> tuple[list[int], list[Duplicate]]:
    """Keep the first of every run of near-duplicates.

    Returns the places kept, in order, and what was rejected with the text it repeats.
    """
    rejected: dict[int, Duplicate] = {}
    for later, earlier, overlap in similar_pairs(texts, SAME):
        if earlier in rejected:
            continue
        if later not in rejected or overlap > rejected[later].overlap:
            rejected[later] = Duplicate(later, earlier, overlap)
    kept = [index for index in range(len(texts)) if index not in rejected]
    return kept, [rejected[index] for index in sorted(rejected)]


def first_distinct(
    order: list[Any],
    wanted: int,
    distinct: Callable[[list[Any]], tuple[list[Any], Any]],
    size: Callable[[list[Any]], int] = len,
) -> tuple[list[Any], Any]:
    """What `distinct` keeps of an order, and the rest; it looks no further than needed."""
    ahead = 2 * wanted
    while True:
        kept, rest = distinct(order[:ahead])
        if size(kept) >= wanted or ahead >= len(order):
            return kept, rest
        ahead *= 2


def groups(texts: Sequence[str], *, links: Iterable[tuple[int, int]] = ()) -> list[int]:
    """Connected groups of alike texts: for every text the smallest place in its group.

    `links` are further pairs of places that belong together (the sides of a concept pair).
    """
    parent = list(range(len(texts)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    alike = ((later, earlier) for later, earlier, _ in similar_pairs(texts, ALIKE))
    for pair in [*alike, *links]:
        low, high = sorted(map(root, pair))
        parent[high] = low
    return [root(place) for place in range(len(texts))]


def name_groups(texts: Sequence[str], *, links: Iterable[tuple[int, int]] = ()) -> list[str]:
    """Name of each text's group of near-duplicates, made from the group's first text.

    The names do not depend on the order of the texts. `links` are pairs of places that belong
    together whatever their texts.
    """
    roots = groups(texts, links=links)
    least: dict[int, str] = {}
    for text, root in zip(texts, roots, strict=True):
        words = normalise(text)
        least[root] = min(least.get(root, words), words)
    return [f"group-{digest(least[root])[:10]}" for root in roots]


def digest(*parts: str) -> str:
    """Hex sha256 of some texts; ids and the order of draws are made from it."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
