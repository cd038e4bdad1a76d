"""Preference pairs from HH-RLHF: rows of two dialogues that part at the last assistant turn.

Source: Bai et al. 2022 (arXiv 2204.05862); files `train.jsonl.gz` and `test.jsonl.gz` of each part.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from actshift.errors import UserError
from actshift.prompts.dedupe import digest, name_groups, reject_duplicates
from actshift.prompts.preferences import Kept, Preference
from actshift.prompts.readers import Row
from actshift.prompts.splits import DEFAULT_FRACTIONS, split_of

_ANSWER = "\n\nAssistant:"
_TURN = re.compile(r"\n\n(Human|Assistant):")


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
        _preference(comparison, cluster, condition, f"{source}#{comparison.row}", fractions, seed)
        for comparison, cluster in zip(drawn, clusters, strict=True)
    ]
    return Kept(sorted(pairs, key=lambda pair: pair.id), refused)


def _preference(
    comparison: _Parsed,
    cluster: str,
    condition: str,
    source: str,
    fractions: Mapping[str, float],
    seed: int,
) -> Preference:
    return Preference(
        id=f"{condition}-{digest(comparison.text, comparison.chosen, comparison.rejected)[:12]}",
        prompt=comparison.turns[-1],
        chosen=comparison.chosen,
        rejected=comparison.rejected,
        condition=condition,
        category="",
        cluster=cluster,
        split=split_of(cluster, fractions=fractions, seed=seed),
        source=source,
        history=comparison.turns[:-1],
    )


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
    ahead = 2 * wanted
    while True:
        kept, _ = reject_duplicates([comparison.text for comparison in order[:ahead]])
        if len(kept) >= wanted or ahead >= len(order):
            break
        ahead *= 2
    taken = kept[:wanted]
    passed = (taken[-1] + 1 if len(kept) >= wanted and taken else len(order)) - len(taken)
    return [order[i] for i in taken], passed
