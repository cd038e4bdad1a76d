"""Prompt records and their JSONL file: one row a prompt, the same shape for every source."""

import hashlib
import json
import os
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from actshift.errors import UserError
from actshift.prompts.readers import numbered_json
from actshift.vocab import SPLITS, Split


def json_lines(path: Path, *, missing: str) -> Iterator[tuple[str, Any]]:
    """Yield `file:line` and the JSON value of every line that is not blank, in order.

    `missing` is the message where the file is not there.

    Raises:
        UserError: The file is missing, is not UTF-8, or a line is not JSON (names file and line).
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: {missing}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
    yield from numbered_json(text, str(path))


def checked_row(
    row: object,
    *,
    where: str,
    what: str,
    keys: Sequence[str],
    optional: Collection[str],
    filled: Sequence[str],
    other: Collection[str] = (),
) -> dict[str, Any]:
    """Check the keys and values of one JSON object.

    `where` (`file:line`) and `what` (`a prompt`) are for the message. A row may have all `keys`,
    may lack the `optional` ones, and must not leave the `filled` ones blank. The caller checks
    those in `other`, whose value is no string.

    Raises:
        UserError: A key is missing, unknown, blank or of the wrong type, or the split is unknown.
    """
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected a JSON object, found {type(row).__name__}")
    missing = [key for key in keys if key not in row and key not in optional]
    unknown = sorted(str(key) for key in row if key not in keys)
    if missing or unknown:
        faults = [f"missing {', '.join(missing)}"] if missing else []
        faults += [f"unknown {', '.join(unknown)}"] if unknown else []
        raise UserError(f"{where}: {'; '.join(faults)}; {what} has the keys {', '.join(keys)}")
    for key, value in row.items():
        if key not in other and not isinstance(value, str):
            raise UserError(f"{where}: {key} must be a string, found {type(value).__name__}")
    for key in filled:
        if not row[key].strip():
            raise UserError(f"{where}: {key} is empty")
    if row["split"] not in SPLITS:
        raise UserError(f"{where}: split '{row['split']}' is not one of {', '.join(SPLITS)}")
    return row


def check_members(members: Iterable[tuple[str, str, str]], *, where: str) -> None:
    """Refuse a repeated id, and a cluster that lies in two splits, of (id, cluster, split).

    Raises:
        UserError: naming the id or the cluster.
    """
    seen: set[str] = set()
    split_of: dict[str, str] = {}
    for name, cluster, split in members:
        if name in seen:
            raise UserError(f"{where}: id '{name}' occurs twice; ids must be unique in a set")
        seen.add(name)
        if split_of.setdefault(cluster, split) != split:
            raise UserError(
                f"{where}: cluster '{cluster}' lies in the splits {split_of[cluster]} and {split}; "
                "splits go by cluster"
            )


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt of a prompt set.

    Attributes:
        id: Unique inside its prompt set.
        text: What the user says, before any chat template.
        condition: What the prompt stands for: harmful, harmless, question, statement ...
        category: Kind of harm or topic; for paired concepts the name of the concept.
        cluster: Unit of resampling (zoo: the noun; real sets: near-duplicate group).
        split: `fit`, `select` or `heldout`; a function of the cluster.
        source: Where the text came from, for people.
        pair: Id shared by the two sides of a concept pair; None when the prompt has no partner.
    """

    id: str
    text: str
    condition: str
    category: str
    cluster: str
    split: Split
    source: str
    pair: str | None = None


_KEYS = tuple(field.name for field in fields(Prompt))


def to_row(prompt: Prompt) -> dict[str, str]:
    """The JSON object of a prompt, keys sorted, `pair` left out when it is None."""
    row = {key: getattr(prompt, key) for key in sorted(_KEYS)}
    return {key: value for key, value in row.items() if value is not None}


def from_row(row: object, *, where: str) -> Prompt:
    """Check one JSON object, of `where` (`file:line`), and make it a prompt.

    Raises:
        UserError: A key is missing, unknown or of the wrong type, or the split is unknown.
    """
    alone = isinstance(row, dict) and row.get("pair") is None
    checked = checked_row(
        row,
        where=where,
        what="a prompt",
        keys=_KEYS,
        optional=("pair",),
        filled=("id", "text", "condition", "cluster"),
        other=("pair",) if alone else (),
    )
    return Prompt(**checked)


def check_prompts(prompts: Sequence[Prompt], *, where: str) -> None:
    """Refuse an empty set, a repeated id, and a cluster that lies in two splits.

    Raises:
        UserError: naming the id or the cluster.
    """
    if not prompts:
        raise UserError(f"{where}: no prompts; the set must hold at least one")
    check_members(((p.id, p.cluster, p.split) for p in prompts), where=where)


def read_prompts(path: Path) -> list[Prompt]:
    """Read a prompt set from JSONL, in file order; blank lines are skipped.

    Raises:
        UserError: The file is missing or empty, or a row is bad (names file and line).
    """
    lines = json_lines(path, missing="no such prompt file; run the `prompts` rule first")
    prompts = [from_row(row, where=where) for where, row in lines]
    check_prompts(prompts, where=str(path))
    return prompts


def to_jsonl(prompts: Iterable[Prompt]) -> str:
    """Canonical text of a prompt set: sorted keys, one line a prompt, readable UTF-8."""
    dump = (json.dumps(to_row(p), ensure_ascii=False, sort_keys=True) for p in prompts)
    return "".join(line + "\n" for line in dump)


def write_prompts(path: Path, prompts: Sequence[Prompt]) -> None:
    """Write a prompt set so that the file is either the whole set or what was there before.

    Raises:
        UserError: The set is empty, repeats an id, splits a cluster or holds half a character.
    """
    check_prompts(prompts, where=str(path))
    try:
        payload = to_jsonl(prompts).encode("utf-8")
    except UnicodeEncodeError as error:
        bad = next(p.id for p in prompts if _lone_surrogate(p))
        raise UserError(f"{path}: prompt '{bad}' cannot be written ({error.reason})") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, staged = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(payload)
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes private files; results are shared like any other file.
        os.chmod(staged, 0o666 & ~_umask())
        os.replace(staged, path)
    except BaseException:
        Path(staged).unlink(missing_ok=True)
        raise


def content_hash(prompts: Iterable[Prompt]) -> str:
    """Hex sha256 over the canonical text of the prompts, in the order given."""
    return hashlib.sha256(to_jsonl(prompts).encode("utf-8")).hexdigest()


def _lone_surrogate(prompt: Prompt) -> bool:
    return any("\ud800" <= sign <= "\udfff" for sign in "".join(to_row(prompt).values()))


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
