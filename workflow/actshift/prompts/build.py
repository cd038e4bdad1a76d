"""From the rows of a public data set to a prompt set: no near-duplicates, clustered and split.

Layouts: `columns` (any table), `advbench` (goal, target), `alpaca` (instruction, input),
`hh_rlhf` (chosen), `messages` (a list of role and content).
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from actshift.errors import UserError
from actshift.prompts.dedupe import digest, first_distinct, name_groups, reject_duplicates
from actshift.prompts.readers import Row
from actshift.prompts.records import Prompt
from actshift.prompts.splits import DEFAULT_FRACTIONS, check_fractions, split_of
from actshift.vocab import SPLITS, Split

#: Column of the text in each layout.
_TEXT_COLUMNS = {
    "columns": "text",
    "advbench": "goal",
    "alpaca": "instruction",
    "hh_rlhf": "chosen",
    "messages": "messages",
}
LAYOUTS = tuple(_TEXT_COLUMNS)
#: Prompt fields that a column may fill.
FIELDS = ("text", "condition", "category", "cluster", "id", "pair", "split")
_TURN = re.compile(r"\n\n(Human|Assistant):")


@dataclass(frozen=True)
class Item:
    """A prompt as its source gives it; None where the source is silent.

    Attributes:
        row: Number of the row in its file, from 1.
    """

    row: int
    text: str
    condition: str | None = None
    category: str | None = None
    cluster: str | None = None
    id: str | None = None
    pair: str | None = None
    split: str | None = None


def items_of(
    rows: Sequence[Row], *, layout: str, columns: Mapping[str, str], key: str
) -> list[Item | None]:
    """One item a row; None for a row that holds no prompt of its own.

    `columns` maps a prompt field to a column. With none given, the layout `columns` takes the
    columns that are called like a prompt field; the other layouts know their text column, and a
    mapping adds fields or replaces it. `key` is the config key of the prompt set, for the message.

    Raises:
        UserError: Unknown layout or field, or a column that the file does not have (the message
            names those it has).
    """
    if layout not in LAYOUTS:
        raise UserError(f"{key}.layout: '{layout}' is unknown; allowed: {', '.join(LAYOUTS)}")
    strange = sorted(set(columns) - set(FIELDS))
    if strange:
        allowed = ", ".join(FIELDS)
        raise UserError(f"{key}.columns: '{strange[0]}' is no prompt field; allowed: {allowed}")
    present = list(dict.fromkeys(name for row in rows for name in row))
    mapping = {**_defaults(layout, columns, present), **columns}
    for field, column in mapping.items():
        if column not in present:
            raise UserError(
                f"{key}.columns.{field}: no column '{column}' in the file; "
                f"it has {', '.join(present)}"
            )
    return [
        _item(row, number, layout, mapping, f"{key}: row {number}")
        for number, row in enumerate(rows, start=1)
    ]


def _defaults(layout: str, columns: Mapping[str, str], present: list[str]) -> dict[str, str]:
    if layout == "columns" and not columns:
        return {"text": "text"} | {field: field for field in FIELDS if field in present}
    return {"text": _TEXT_COLUMNS[layout]}


def _item(
    row: Row, number: int, layout: str, mapping: Mapping[str, str], where: str
) -> Item | None:
    value = row.get(mapping["text"])
    if layout == "alpaca" and str(row.get("input") or "").strip():
        return None
    if layout == "messages":
        text = _last_user(value, where)
    else:
        text = _string(value, f"{where}: column '{mapping['text']}'")
        text = _last_human(text) if layout == "hh_rlhf" and text else text
    if text is None or not text.strip():
        return None
    extra = {
        field: None if row.get(column) is None else str(row[column])
        for field, column in mapping.items()
        if field != "text"
    }
    return Item(number, text.strip(), **extra)


def _string(value: Any, where: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise UserError(f"{where}: expected text, found {type(value).__name__}")


def _last_human(dialogue: str) -> str | None:
    """The last human turn that is followed by an answer (turns in a row are joined)."""
    parts = _TURN.split(dialogue)
    turns = list(zip(parts[1::2], parts[2::2], strict=True))
    return _last_of([(who == "Human", text.strip()) for who, text in turns])


def _last_user(messages: Any, where: str) -> str | None:
    # Parquet gives lists of dicts as JSON does; a string is a JSON column of a CSV file.
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise UserError(f"{where}: expected a list of messages with role and content")
    turns: list[tuple[bool, str]] = []
    for message in messages:
        if message.get("role") not in ("system", "tool"):
            content = _string(message.get("content"), f"{where}: content") or ""
            turns.append((message.get("role") == "user", content.strip()))
    return _last_of(turns)


def _last_of(turns: list[tuple[bool, str]]) -> str | None:
    """The last turns in a row that are the user's."""
    while turns and not turns[-1][0]:
        turns = turns[:-1]
    tail = takewhile(lambda turn: turn[0], reversed(turns))
    return "\n\n".join([text for _, text in tail][::-1]) or None


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
    order = sorted(
        _units(items, key), key=lambda unit: digest(str(seed), *(item.text for item in unit))
    )
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
    return single + [
        tuple(sorted(sides, key=lambda item: item.condition or "")) for sides in paired.values()
    ]


def _until(order: list[Unit], limit: int | None) -> tuple[list[Unit], list[Rejected]]:
    """The first units that repeat none before them, looking no further than needed."""
    wanted = sum(len(unit) for unit in order) if limit is None else limit
    kept, rejected = first_distinct(order, wanted, _distinct, lambda units: sum(map(len, units)))
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
        for duplicate in duplicates:
            item, repeats = same[duplicate.index][1], same[duplicate.kept][1].text
            rejected.append(Rejected(item.row, item.text, repeats, duplicate.overlap))
    kept = [unit for place, unit in enumerate(units) if place not in out]
    return kept, sorted(rejected, key=lambda duplicate: duplicate.row)


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
