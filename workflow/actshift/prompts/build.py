"""From loaded items to a prompt set: drawn, without near-duplicates, clustered and split."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from actshift.errors import UserError
from actshift.prompts.dedupe import Duplicate, digest, name_groups, reject_duplicates
from actshift.prompts.layouts import Item
from actshift.prompts.records import Prompt
from actshift.prompts.splits import DEFAULT_FRACTIONS, check_fractions, split_of
from actshift.vocab import SPLITS, Split

#: Prompts that stay together: one prompt, or the sides of a pair.
Unit = tuple[Item, ...]


@dataclass(frozen=True)
class Rejected:
    """A prompt left out because it repeats another one (or is the other side of such a one)."""

    row: int
    text: str
    repeats: str
    overlap: float


@dataclass(frozen=True)
class Drawn:
    """A finished prompt set and what was left out on the way."""

    prompts: list[Prompt]
    rejected: list[Rejected]

    def lines(self) -> list[str]:
        """The set in words, one line a fact, every rejected prompt named."""
        clusters = Counter(prompt.cluster for prompt in self.prompts)
        counts = Counter(prompt.split for prompt in self.prompts)
        splits = ", ".join(f"{split} {counts[split]}" for split in SPLITS)
        lines = [f"{len(self.prompts)} prompts in {len(clusters)} clusters ({splits})"]
        name, size = clusters.most_common(1)[0]
        if size > max(10, len(self.prompts) / 5):
            lines.append(
                f"note: cluster {name} holds {size} prompts, so intervals by cluster are wide and "
                "split sizes uneven; look at how alike they are"
            )
        lines.append(f"{len(self.rejected)} near-duplicates rejected")
        lines += [
            f"  row {left.row}: {left.text!r} repeats {left.repeats!r} (overlap {left.overlap:.2f})"
            for left in self.rejected
        ]
        return lines


def draw(
    items: Sequence[Item],
    *,
    condition: str,
    source: str,
    limit: int | None = None,
    seed: int = 0,
    fractions: Mapping[str, float] = DEFAULT_FRACTIONS,
    key: str = "prompts",
) -> Drawn:
    """Make a prompt set.

    The order is that of sha256(seed, text): a draw without replacement that depends neither on the
    order of the file nor on what else is in it. Near-duplicates are looked for inside a condition;
    the sides of a pair share a cluster and come or go together. `condition` is for items that carry
    none; the row is appended to `source`; `seed` is of the draw and of the splits; `key` is the
    config key, for messages.

    Raises:
        UserError: Nothing is left, or a pair lacks a side.
    """
    check_fractions(fractions)
    items = [
        replace(item, condition=item.condition or condition, category=item.category or "")
        for item in items
    ]
    order = sorted(_units(items, key), key=lambda unit: digest(str(seed), *_texts(unit)))
    kept, rejected = _until(order, limit)
    if not kept:
        raise UserError(f"{key}: no prompts are left; check columns, filters and limit")
    chosen = [item for unit in kept for item in unit]
    clusters = _clusters(chosen)
    prompts = [
        _prompt(item, cluster, f"{source}#{item.row}", _split(item, cluster, fractions, seed, key))
        for item, cluster in zip(chosen, clusters, strict=True)
    ]
    return Drawn(sorted(prompts, key=lambda prompt: (prompt.condition, prompt.id)), rejected)


def _units(items: Iterable[Item], key: str) -> list[Unit]:
    single: list[Unit] = []
    paired: dict[tuple[str | None, str], list[Item]] = {}
    for item in items:
        if item.pair is None:
            single.append((item,))
        else:
            paired.setdefault((item.category, item.pair), []).append(item)
    for (_, name), sides in paired.items():
        conditions = {side.condition for side in sides}
        if len(sides) != 2 or len(conditions) != 2:
            raise UserError(
                f"{key}: pair '{name}' has {len(sides)} sides in {len(conditions)} conditions; "
                "a pair is two prompts of two conditions"
            )
    return single + [tuple(sorted(sides, key=_condition)) for sides in paired.values()]


def _until(order: list[Unit], limit: int | None) -> tuple[list[Unit], list[Rejected]]:
    """The first units that repeat none before them, looking no further than needed."""
    wanted = sum(len(unit) for unit in order) if limit is None else limit
    ahead = 2 * wanted
    while True:
        kept, rejected = _distinct(order[:ahead])
        if sum(len(unit) for unit in kept) >= wanted or ahead >= len(order):
            break
        ahead *= 2
    taken: list[Unit] = []
    room = wanted
    for unit in kept:
        if len(unit) > room:
            break
        taken.append(unit)
        room -= len(unit)
    return taken, rejected


def _distinct(units: list[Unit]) -> tuple[list[Unit], list[Rejected]]:
    members: dict[str | None, list[tuple[int, Item]]] = {}
    for place, unit in enumerate(units):
        for item in unit:
            members.setdefault(item.condition, []).append((place, item))
    out: set[int] = set()
    rejected: list[Rejected] = []
    for same in members.values():
        _, duplicates = reject_duplicates([item.text for _, item in same])
        out |= {same[duplicate.index][0] for duplicate in duplicates}
        rejected += [_rejected(duplicate, [item for _, item in same]) for duplicate in duplicates]
    kept = [unit for place, unit in enumerate(units) if place not in out]
    return kept, sorted(rejected, key=lambda duplicate: duplicate.row)


def _rejected(duplicate: Duplicate, items: list[Item]) -> Rejected:
    item = items[duplicate.index]
    return Rejected(item.row, item.text, items[duplicate.kept].text, duplicate.overlap)


def _clusters(items: list[Item]) -> list[str]:
    """The source's own cluster, else the group of alike prompts named after its first text."""
    firsts: dict[tuple[str | None, str], int] = {}
    links: list[tuple[int, int]] = []
    for place, item in enumerate(items):
        if item.pair is not None:
            first = firsts.setdefault((item.category, item.pair), place)
            links.append((first, place))
    named = name_groups([item.text for item in items], links=links)
    return [item.cluster or name for item, name in zip(items, named, strict=True)]


def _split(item: Item, cluster: str, fractions: Mapping[str, float], seed: int, key: str) -> Split:
    if item.split is None:
        return split_of(cluster, fractions=fractions, seed=seed)
    for split in SPLITS:
        if item.split == split:
            return split
    raise UserError(
        f"{key}: row {item.row}: split '{item.split}' is not one of {', '.join(SPLITS)}; leave "
        "the column out of `columns` to have the prompts split here"
    )


def _prompt(item: Item, cluster: str, source: str, split: Split) -> Prompt:
    condition = item.condition or ""
    return Prompt(
        id=item.id or f"{condition}-{digest(item.category or '', item.text)[:12]}",
        text=item.text,
        condition=condition,
        category=item.category or "",
        cluster=cluster,
        split=split,
        source=source,
        pair=item.pair,
    )


def _texts(unit: Unit) -> list[str]:
    return [item.text for item in unit]


def _condition(item: Item) -> str:
    return item.condition or ""
