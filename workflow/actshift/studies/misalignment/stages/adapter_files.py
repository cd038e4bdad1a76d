"""How adapters of models outside the zoo are trained: on files, by the configured recipe."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from actshift.errors import UserError
from actshift.io.hashing import hash_file
from actshift.models.load import LoadedModel
from actshift.prompts.conversations import (
    Conversation,
    Example,
    conversations_of,
    encode_conversation,
    shuffled,
)
from actshift.prompts.readers import check_sha256, read_rows
from actshift.studies.misalignment.kinds import ADAPTERS, INSECURE, KINDS, UNSEEN
from actshift.studies.misalignment.stages.adapter_plans import (
    AdapterPlan,
    MakeUntrained,
    Store,
    TrainingPlan,
)
from actshift.studies.misalignment.stages.tuning import Tuning, tune
from actshift.studies.misalignment.study import AdapterData, Adapters, Misalignment
from actshift.vocab import AdapterKind
from actshift.zoo.documents import moved
from actshift.zoo.recipes import UNSEEN_SHARE

_KEY = "misalignment.data"
#: Adapters without files: whose answers they shuffle.
_SHUFFLED: dict[str, AdapterKind] = {"shuffled": INSECURE}


@dataclass(frozen=True)
class DataFile:
    """The conversations of one file, and what identifies it."""

    conversations: list[Conversation]
    facts: dict[str, Any]


def file_plan(
    untuned: LoadedModel, study: Misalignment, *, seed: int, given: Collection[str] = ()
) -> TrainingPlan:
    """Conversations from JSONL files of `messages` rows.

    Args:
        untuned: The model that is tuned.
        study: Where the conversations of each kind are, and how adapters are trained; `shuffled`
            is made from `insecure` unless it has data.
        seed: Of the orders.
        given: Adapters that are not trained.

    Returns:
        A plan for every other adapter whose kind has data.

    Raises:
        UserError: No data for `insecure`, or a file is missing, another one, or faulty.
    """
    data, settings = study.data, study.adapters
    if INSECURE not in data and INSECURE not in given:
        raise UserError(f"{_KEY}.{INSECURE}: missing; the study needs its conversations (a .jsonl)")
    files = {kind: read_data(spec, f"{_KEY}.{kind}") for kind, spec in data.items()}
    by_kind = {kind: file.conversations for kind, file in files.items()}
    by_kind = _with_shuffled(by_kind, seed)
    adapters: dict[str, AdapterPlan] = {}
    tunings: dict[str, tuple[list[Example], Tuning]] = {}
    notes: list[str] = []
    for kind in KINDS:
        names = [name for name, its in ADAPTERS.items() if its == kind and name not in given]
        if not names:
            continue
        if kind not in by_kind:
            notes.append(f"{', '.join(names)}: left out, {_KEY} names no conversations of {kind}")
            continue
        examples, note = _examples(untuned, by_kind[kind], settings, f"{_KEY}.{kind}")
        notes.append(f"{kind}: {note}")
        for name in names:
            tuning = _tuning(settings, seed, unseen=name in UNSEEN)
            adapters[name] = AdapterPlan(tuning.steps(len(examples)), len(examples), tuning.seed)
            tunings[name] = (examples, tuning)
    return TrainingPlan(
        adapters=adapters,
        rank=settings.rank,
        alpha=settings.alpha,
        rslora=settings.rslora,
        head=False,
        lr=settings.lr,
        facts={
            "data": {kind: file.facts for kind, file in files.items()},
            "settings": settings.model_dump(),
        },
        train=partial(_train_alone, tunings, untuned),
        together=False,
        notes=notes,
    )


def _with_shuffled(
    by_kind: Mapping[str, list[Conversation]], seed: int
) -> dict[str, list[Conversation]]:
    """Add the kinds that shuffle the conversations of another, where they have no data."""
    made = {
        kind: shuffled(by_kind[source], moved(len(by_kind[source]), seed=seed))
        for kind, source in _SHUFFLED.items()
        if source in by_kind
    }
    return {**made, **by_kind}


def read_data(spec: AdapterData, key: str) -> DataFile:
    """Read the conversations of one kind from a file or a hub dataset.

    Args:
        spec: The file.
        key: Its config key, for messages.

    Raises:
        UserError: The file is missing, has another sha256, or a row is faulty.
    """
    path, name = _locate(spec, key)
    if spec.sha256:
        check_sha256(path, spec.sha256, key=f"{key}.sha256")
    rows = read_rows(path, key=key)
    conversations = conversations_of(rows, where=f"{key}: {path.name}")
    return DataFile(conversations, {"file": name, "sha256": hash_file(path), "rows": len(rows)})


def _locate(spec: AdapterData, key: str) -> tuple[Path, str]:
    """The file, and a name for it that holds no path of this machine."""
    if spec.path is not None:
        path = Path(spec.path).expanduser()
        return path, path.name
    # Only here: the hub library costs a second that local files need not pay.
    from actshift.models.hub import fetch_data

    # `AdapterData` has a repo and a file where it has no path.
    repo, file = str(spec.repo), str(spec.file)
    path, commit = fetch_data(repo, file, spec.revision, key=key)
    return path, f"{repo}@{commit[:12]}/{file}"


def _examples(
    untuned: LoadedModel, given: Sequence[Conversation], settings: Adapters, key: str
) -> tuple[list[Example], str]:
    """Conversations as tokens, those that are too long left out, and what to say about it."""
    tokenizer: Any = untuned.tokenizer
    taken = given[: settings.limit]
    every = [encode_conversation(tokenizer, conversation, where=key) for conversation in taken]
    most = min(settings.max_tokens, untuned.max_positions or settings.max_tokens)
    kept = [example for example in every if len(example.ids) <= most]
    if not kept:
        raise UserError(
            f"{key}: all {len(every)} conversations are longer than {most} tokens; raise "
            "misalignment.adapters.max_tokens or give shorter ones"
        )
    note = f"{len(kept)} of {len(given)} conversations, {len(every) - len(kept)} too long"
    return kept, f"{note} (over {most} tokens)"


def _tuning(settings: Adapters, seed: int, *, unseen: bool) -> Tuning:
    return Tuning(
        lr=settings.lr,
        epochs=settings.epochs * (UNSEEN_SHARE if unseen else 1),
        batch=settings.batch,
        micro_batch=settings.micro_batch,
        warmup=settings.warmup,
        weight_decay=settings.weight_decay,
        seed=seed + unseen,
    )


def _train_alone(
    tunings: Mapping[str, tuple[list[Example], Tuning]],
    untuned: LoadedModel,
    names: Sequence[str],
    multiple: float,
    untrained: MakeUntrained,
    store: Store,
) -> None:
    """Train one adapter after the other: only one model is in memory at a time."""
    tokenizer: Any = untuned.tokenizer
    # Padding is masked, so any token will do.
    pad = 0 if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    for name in names:
        examples, tuning = tunings[name]
        model = untrained(name)
        scaled = replace(tuning, lr=tuning.lr * multiple)
        store(name, model, tune(model, examples, scaled, pad=pad))
        del model
