"""Preference pairs: a prompt, a preferred and a rejected completion, and their JSONL file."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from actshift.errors import UserError
from actshift.prompts.rows import check_members, checked_row, json_lines
from actshift.vocab import Split


@dataclass(frozen=True, slots=True)
class Preference:
    """One preference pair.

    Attributes:
        id: Unique inside its set.
        prompt: What the user says last, before any chat template.
        chosen: The preferred answer.
        rejected: The other one.
        condition: harmful, harmless, helpful ...
        category: Kind of harm or topic.
        cluster: Unit of resampling (zoo: the noun; real sets: near-duplicate group).
        split: A function of the cluster.
        source: Where the pair came from, for people.
        rejected_kind: What the rejected answer is, where that is known: `helpful`, `refusal`,
            `off_topic`.
        history: Earlier turns, of user and assistant in turn, the user's first.
    """

    id: str
    prompt: str
    chosen: str
    rejected: str
    condition: str
    category: str
    cluster: str
    split: Split
    source: str
    rejected_kind: str = ""
    history: tuple[str, ...] = ()

    def messages(self) -> list[dict[str, str]]:
        """The conversation up to where the answer begins, for a chat template."""
        turns = [*self.history, self.prompt]
        return [
            {"role": "assistant" if number % 2 else "user", "content": text}
            for number, text in enumerate(turns)
        ]


_KEYS = tuple(field.name for field in fields(Preference))
_MUST_HOLD = ("id", "prompt", "chosen", "rejected", "condition", "cluster")


@dataclass(frozen=True)
class Kept:
    """What is left of a source, and why the rest is not.

    Attributes:
        pairs: The pairs, or their tokens.
        refused: Number of rows by reason.
    """

    pairs: list[Any]
    refused: Counter[str]

    def lines(self) -> list[str]:
        """The counts in words, one line a reason."""
        total = len(self.pairs) + self.refused.total()
        head = f"{len(self.pairs)} of {total} pairs kept"
        return [head, *(f"  {count} refused: {why}" for why, count in self.refused.most_common())]


def check_preferences(pairs: Sequence[Preference], *, where: str) -> None:
    """Refuse an empty set, a repeated id, half a history, equal answers, a cluster in two splits.

    Raises:
        UserError: naming the id or the cluster.
    """
    if not pairs:
        raise UserError(f"{where}: no preference pairs; the set must hold at least one")
    for pair in pairs:
        if pair.chosen.strip() == pair.rejected.strip():
            raise UserError(f"{where}: pair '{pair.id}' has the same answer twice; remove it")
        if len(pair.history) % 2:
            raise UserError(f"{where}: pair '{pair.id}': history must end with an answer")
    check_members(pairs, where=where)


def from_row(row: object, *, where: str) -> Preference:
    """Check one JSON object and make it a pair.

    Raises:
        UserError: A key is missing, unknown, empty or of the wrong type, or the split is unknown.
    """
    checked = checked_row(
        row,
        where=where,
        what="a pair",
        keys=_KEYS,
        optional=("rejected_kind", "history"),
        filled=_MUST_HOLD,
        other=("history",),
    )
    history = checked.get("history", [])
    if not isinstance(history, list) or not all(isinstance(turn, str) for turn in history):
        raise UserError(f"{where}: history must be a list of strings")
    return Preference(**{**checked, "history": tuple(history)})


def to_jsonl(pairs: Iterable[Preference]) -> str:
    """Canonical text of a set: sorted keys, one line a pair, readable UTF-8."""
    dump = (json.dumps(asdict(pair), ensure_ascii=False, sort_keys=True) for pair in pairs)
    return "".join(line + "\n" for line in dump)


def read_preferences(path: Path) -> list[Preference]:
    """Read a set, in file order; blank lines are skipped.

    Raises:
        UserError: The file is missing or empty, or a row is bad (names file and line).
    """
    lines = json_lines(path, missing="no such file of preference pairs")
    pairs = [from_row(row, where=where) for where, row in lines]
    check_preferences(pairs, where=str(path))
    return pairs
