"""From rows of a public data set to prompts without cluster and split.

Layouts: `columns` (any table), `advbench` (goal, target), `alpaca` (instruction, input),
`hh_rlhf` (chosen), `messages` (a list of role and content).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actshift.errors import UserError
from actshift.prompts.readers import Row

LAYOUTS = ("columns", "advbench", "alpaca", "hh_rlhf", "messages")
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
    text = {"columns": "text", "advbench": "goal", "alpaca": "instruction"}
    return {"text": text.get(layout, {"hh_rlhf": "chosen"}.get(layout, "messages"))}


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
    while turns and not turns[-1][0]:
        turns = turns[:-1]
    tail: list[str] = []
    while turns and turns[-1][0]:
        tail.insert(0, turns[-1][1])
        turns = turns[:-1]
    return "\n\n".join(tail) or None
