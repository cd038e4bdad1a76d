"""Preference pairs: a prompt, a preferred and a rejected completion, and their JSONL file."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from actshift.errors import UserError
from actshift.vocab import SPLITS, Split


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
    seen: set[str] = set()
    split_of: dict[str, str] = {}
    for pair in pairs:
        if pair.id in seen:
            raise UserError(f"{where}: id '{pair.id}' occurs twice; ids must be unique in a set")
        seen.add(pair.id)
        if pair.chosen.strip() == pair.rejected.strip():
            raise UserError(f"{where}: pair '{pair.id}' has the same answer twice; remove it")
        if len(pair.history) % 2:
            raise UserError(f"{where}: pair '{pair.id}': history must end with an answer")
        if split_of.setdefault(pair.cluster, pair.split) != pair.split:
            raise UserError(
                f"{where}: cluster '{pair.cluster}' lies in the splits "
                f"{split_of[pair.cluster]} and {pair.split}; splits go by cluster"
            )


def from_row(row: object, *, where: str) -> Preference:
    """Check one JSON object and make it a pair.

    Raises:
        UserError: A key is missing, unknown, empty or of the wrong type, or the split is unknown.
    """
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected a JSON object, found {type(row).__name__}")
    optional = ("rejected_kind", "history")
    missing = [key for key in _KEYS if key not in row and key not in optional]
    unknown = sorted(str(key) for key in row if key not in _KEYS)
    if missing or unknown:
        faults = [f"missing {', '.join(missing)}"] if missing else []
        faults += [f"unknown {', '.join(unknown)}"] if unknown else []
        raise UserError(f"{where}: {'; '.join(faults)}; a pair has the keys {', '.join(_KEYS)}")
    history = row.get("history", [])
    if not isinstance(history, list) or not all(isinstance(turn, str) for turn in history):
        raise UserError(f"{where}: history must be a list of strings")
    for key, value in row.items():
        if key != "history" and not isinstance(value, str):
            raise UserError(f"{where}: {key} must be a string, found {type(value).__name__}")
    for key in _MUST_HOLD:
        if not row[key].strip():
            raise UserError(f"{where}: {key} is empty")
    if row["split"] not in SPLITS:
        raise UserError(f"{where}: split '{row['split']}' is not one of {', '.join(SPLITS)}")
    return Preference(**{**row, "history": tuple(history)})


def to_jsonl(pairs: Iterable[Preference]) -> str:
    """Canonical text of a set: sorted keys, one line a pair, readable UTF-8."""
    dump = (json.dumps(asdict(pair), ensure_ascii=False, sort_keys=True) for pair in pairs)
    return "".join(line + "\n" for line in dump)


def read_preferences(path: Path) -> list[Preference]:
    """Read a set, in file order; blank lines are skipped.

    Raises:
        UserError: The file is missing or empty, or a row is bad (names file and line).
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file of preference pairs") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
    pairs = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            pairs.append(from_row(_json(line, f"{path}:{number}"), where=f"{path}:{number}"))
    check_preferences(pairs, where=str(path))
    return pairs


def _json(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON ({error.msg}, column {error.colno})") from None
