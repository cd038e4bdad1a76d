"""Preference pairs: a prompt, a preferred and a rejected completion; their JSONL file, and HH-RLHF.

Source of HH-RLHF: Bai et al. 2022 (arXiv 2204.05862); files `train.jsonl.gz` and `test.jsonl.gz` of
each part, whose rows are two dialogues that part at the last assistant turn.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from actshift.errors import UserError
from actshift.prompts.dedupe import digest, first_distinct, name_groups, reject_duplicates
from actshift.prompts.readers import Row
from actshift.prompts.records import check_members, checked_row, json_lines
from actshift.prompts.splits import DEFAULT_FRACTIONS, split_of
from actshift.vocab import Split

_ANSWER = "\n\nAssistant:"
_TURN = re.compile(r"\n\n(Human|Assistant):")


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
    check_members(((pair.id, pair.cluster, pair.split) for pair in pairs), where=where)


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


@dataclass(frozen=True)
class _Parsed:
    row: int
    turns: tuple[str, ...]
    chosen: str
    rejected: str

    @property
    def text(self) -> str:
        """What the user and the assistant said before the answers."""
        return "\n\n".join(self.turns)


def hh_preferences(
    rows: Sequence[Row],
    *,
    condition: str,
    source: str,
    key: str,
    limit: int | None = None,
    seed: int = 0,
    fractions: Mapping[str, float] = DEFAULT_FRACTIONS,
) -> Kept:
    """Preference pairs of one part of the data set.

    Both dialogues are split at their last assistant turn; what stands before must be the same, or
    the two answers would answer different prompts. The draw is in the order of sha256(seed,
    dialogue), without prompts that repeat one already drawn. The row is appended to `source`; `key`
    is the config key of the file, for messages. Pairs come in order of id, with counts of the rows
    refused.

    Raises:
        UserError: A column is missing or holds no text, or nothing is left.
    """
    refused: Counter[str] = Counter()
    parsed: list[_Parsed] = []
    for number, row in enumerate(rows, start=1):
        comparison = _parse(row, number, f"{key}: row {number}")
        if isinstance(comparison, str):
            refused[comparison] += 1
        else:
            parsed.append(comparison)
    drawn, repeated = _draw(parsed, limit, seed)
    if repeated:
        refused["repeats another prompt"] = repeated
    if not drawn:
        why = "; ".join(f"{count} {reason}" for reason, count in refused.most_common())
        raise UserError(f"{key}: no preference pairs are left ({why or 'no rows'})")
    clusters = name_groups([comparison.text for comparison in drawn])
    pairs = [
        Preference(
            id=f"{condition}-{digest(row.text, row.chosen, row.rejected)[:12]}",
            prompt=row.turns[-1],
            chosen=row.chosen,
            rejected=row.rejected,
            condition=condition,
            category="",
            cluster=cluster,
            split=split_of(cluster, fractions=fractions, seed=seed),
            source=f"{source}#{row.row}",
            history=row.turns[:-1],
        )
        for row, cluster in zip(drawn, clusters, strict=True)
    ]
    return Kept(sorted(pairs, key=lambda pair: pair.id), refused)


def _parse(row: Row, number: int, where: str) -> _Parsed | str:
    """The parts of a row, or why it is refused."""
    dialogues = []
    for column in ("chosen", "rejected"):
        text = row.get(column)
        if not isinstance(text, str):
            raise UserError(f"{where}: column '{column}' must hold a dialogue")
        dialogues.append(text.rpartition(_ANSWER))
    if not all(mark for _, mark, _ in dialogues):
        return "no assistant turn"
    (prompt, _, chosen), (other, _, rejected) = dialogues
    chosen, rejected = chosen.strip(), rejected.strip()
    if prompt != other:
        return "the two prompts differ"
    if not chosen or not rejected:
        return "an answer is empty"
    if chosen == rejected:
        return "the two answers are the same"
    turns = _turns(prompt)
    return (
        _Parsed(number, turns, chosen, rejected) if turns else "turns are not user's and answer's"
    )


def _turns(prompt: str) -> tuple[str, ...] | None:
    """User and assistant in turn, the user first and last; None where they are not."""
    parts = _TURN.split(prompt)
    turns: list[tuple[str, str]] = []
    for who, text in zip(parts[1::2], parts[2::2], strict=True):
        if turns and turns[-1][0] == who:
            turns[-1] = (who, f"{turns[-1][1]}\n\n{text.strip()}")
        else:
            turns.append((who, text.strip()))
    speakers = [who for who, _ in turns]
    expected = ["Assistant" if i % 2 else "Human" for i in range(len(turns))]
    if parts[0].strip() or len(turns) % 2 == 0 or speakers != expected:
        return None
    texts = tuple(text for _, text in turns)
    return texts if all(texts) else None


def _draw(parsed: list[_Parsed], limit: int | None, seed: int) -> tuple[list[_Parsed], int]:
    """The first pairs whose prompts repeat none before them; also how many were passed over."""
    order = sorted(parsed, key=lambda row: digest(str(seed), row.text, row.chosen, row.rejected))
    wanted = len(order) if limit is None else limit
    kept, _ = first_distinct(
        order, wanted, lambda rows: reject_duplicates([row.text for row in rows])
    )
    taken = kept[:wanted]
    passed = (taken[-1] + 1 if len(kept) >= wanted and taken else len(order)) - len(taken)
    return [order[i] for i in taken], passed
