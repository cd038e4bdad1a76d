"""What an intervention job is made of: prompts, settings, batches and the key of its content."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from actshift.edits import Lane
from actshift.errors import UserError
from actshift.io.atomic import hash_bytes, hash_json
from actshift.io.manifest import read_manifest
from actshift.maths.scores import ARDITI_PHRASES, AUDIT_PHRASES
from actshift.packing import in_budget
from actshift.prompts.answers import opener_token
from actshift.prompts.records import Prompt, to_row
from actshift.prompts.templates import Tokenizer
from actshift.zoo.lexicon import ZOO_PHRASES


@dataclass(frozen=True)
class Asked:
    """A prompt and the tokens it is asked in."""

    prompt: Prompt
    ids: Int[np.ndarray, " token"]


@dataclass(frozen=True)
class Labels:
    """What names the rows."""

    run: str
    pair: str
    model: str


@dataclass(frozen=True)
class InterveneSettings:
    """All that decides rows beside models, prompts and lanes."""

    max_new: int = 100
    """Most new tokens."""
    token_budget: int = 16384
    """Padded tokens a batch, prompt and answer, over all its lanes."""
    prompts_a_batch: int = 64
    """Prompts that share their lanes' batches."""
    refusal_phrases: tuple[str, ...] = AUDIT_PHRASES
    """Phrases that count as a refusal."""
    refusal_tokens: tuple[int, ...] = ()
    """First tokens of a refusal; none: the log-odds are left empty."""

    @classmethod
    def of(
        cls, study: Mapping[str, Any], *, refusal_phrases: tuple[str, ...], tokens: tuple[int, ...]
    ) -> "InterveneSettings":
        """Settings of a study's block of the configuration, with its keywords and first tokens."""
        return cls(
            max_new=study["max_new"],
            token_budget=study["token_budget"],
            refusal_phrases=refusal_phrases,
            refusal_tokens=tokens,
        )


def refusal_tokens(tokenizer: Tokenizer, openers: Iterable[str]) -> tuple[int, ...]:
    """First tokens of answers that open as a refusal does, each once, rising."""
    return tuple(sorted({opener_token(tokenizer, opener) for opener in openers}))


@dataclass(frozen=True)
class Batch:
    """Which prompts meet which lanes."""

    prompts: tuple[int, ...]
    lanes: tuple[int, ...]


def plan_batches(lengths: Sequence[int], lanes: int, settings: InterveneSettings) -> list[Batch]:
    """Cut prompts x lanes into batches: prompts of similar length, lanes as the budget allows.

    Batches hold every (prompt, lane) once; the lanes of a batch are consecutive.
    """
    batches: list[Batch] = []
    for prompts in in_budget(
        lengths,
        budget=settings.token_budget,
        extra=settings.max_new,
        rows=settings.prompts_a_batch,
    ):
        tokens = len(prompts) * (lengths[prompts[-1]] + settings.max_new)
        width = max(1, settings.token_budget // tokens)
        batches += [
            Batch(tuple(prompts), tuple(range(first, min(first + width, lanes))))
            for first in range(0, lanes, width)
        ]
    return batches


def check_names(names: Sequence[str], what: str) -> None:
    """Refuse two equal names.

    Raises:
        UserError: naming the one.
    """
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise UserError(f"intervene: two {what} are called {doubled[0]!r}; names must differ")


def job_key(
    asked: Sequence[Asked],
    lanes: Sequence[Lane],
    *,
    labels: Labels,
    settings: InterveneSettings,
    identity: dict[str, Any],
) -> str:
    """Hash of all that decides the rows."""
    return hash_json(
        {
            "identity": identity,
            "labels": asdict(labels),
            "settings": asdict(settings),
            "prompts": [[to_row(question.prompt), question.ids.tolist()] for question in asked],
            "lanes": [_lane_facts(lane) for lane in lanes],
        }
    )


def _lane_facts(lane: Lane) -> dict[str, Any]:
    edits = [
        {
            "place": [placed.site, placed.layer, placed.positions],
            "kind": type(placed.edit).__name__,
            **{f.name: _plain(getattr(placed.edit, f.name)) for f in fields(placed.edit)},
        }
        for placed in lane.edits
    ]
    return {"name": lane.name, "draw": lane.draw, "edits": edits}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [list(value.shape), hash_bytes(np.ascontiguousarray(value, np.float64).tobytes())]
    return value


def refusal_phrases_for(
    of_zoo: bool, *, published: tuple[str, ...] = ARDITI_PHRASES
) -> tuple[str, ...]:
    """Those of the zoo's language for a model of the zoo, else the list of the study's paper."""
    return ZOO_PHRASES if of_zoo else published


def refusal_phrases_of(checkpoint: Path) -> tuple[str, ...]:
    """The phrases for a checkpoint, by the source that its manifest names."""
    source = str(read_manifest(checkpoint)["facts"]["source"])
    return refusal_phrases_for(source.startswith("zoo:"))
