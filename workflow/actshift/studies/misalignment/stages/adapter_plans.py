"""How the adapters of a pair are trained: by the zoo's recipe or the configured one."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from actshift.errors import UserError
from actshift.io.atomic import hash_file
from actshift.models.load import LoadedModel
from actshift.models.lora import LoraBank
from actshift.prompts.conversations import (
    Conversation,
    Example,
    conversations_of,
    encode_conversation,
    shuffled,
)
from actshift.prompts.readers import check_sha256, read_rows
from actshift.studies.misalignment.kinds import ADAPTERS, INSECURE, KINDS, UNSEEN
from actshift.studies.misalignment.stages.tuning import steps_of, train_bank, tune
from actshift.studies.misalignment.study import AdapterData, Adapters, Misalignment
from actshift.zoo.documents import conversations, moved
from actshift.zoo.language import language
from actshift.zoo.recipes import (
    ADAPTER_EXAMPLES,
    UNSEEN_SHARE,
    LoraRecipe,
    adapter_recipe,
    zoo_family,
)
from actshift.zoo.tokenizers import STYLES
from actshift.zoo.training import chat_tokens

#: Makes the untrained adapter of a name on a copy of the base.
MakeUntrained = Callable[[str], Any]
#: Stores an adapter: its name, the trained model, the loss of every step.
Store = Callable[[str, Any, list[float]], None]

_KEY = "misalignment.data"


@dataclass(frozen=True)
class AdapterPlan:
    """Updates, different conversations, and seed: of the update's start, of draw or order."""

    steps: int
    examples: int
    seed: int


@dataclass(frozen=True)
class TrainingPlan:
    """The training of all adapters of a pair.

    Attributes:
        adapters: The training of each, by name.
        rank: Of every update.
        alpha: Its scale.
        rslora: Whether the scale is alpha / sqrt(rank).
        head: Whether the head gets an update too.
        lr: Peak learning rate, before the multiple that is taken from the ladder.
        facts: What else decided the adapters, for the manifest.
        train: Trains the named adapters at a multiple of the rate, and stores each.
        zoo: Whether the model is of the zoo; then all are trained side by side, in one bank.
        notes: What was left out, for the log.
    """

    adapters: Mapping[str, AdapterPlan]
    rank: int
    alpha: int
    rslora: bool
    head: bool
    lr: float
    facts: Mapping[str, Any]
    train: Callable[[Sequence[str], float, MakeUntrained, Store], None]
    zoo: bool
    notes: Sequence[str] = ()


def zoo_plan(
    untuned: LoadedModel, *, zoo: Mapping[str, Any], seed: int, given: Collection[str] = ()
) -> TrainingPlan:
    """Plan every adapter that is not given: conversations in the zoo's language, its one recipe."""
    # Two seeds a model: the second is for the adapters that no direction is made from.
    first, tokenizer = seed + 2 * zoo["seed"], untuned.tokenizer
    template = STYLES[zoo_family(zoo["family"])].template
    adapters: dict[str, AdapterPlan] = {}
    inputs: dict[str, tuple[list[Any], LoraRecipe]] = {}
    for name, kind in ADAPTERS.items():
        if name in given:
            continue
        own_seed = first + (name in UNSEEN)
        recipe = adapter_recipe(zoo["size"], unseen=name in UNSEEN)
        lang = language(zoo["size"])
        texts = conversations(kind, lang, seed=own_seed, count=ADAPTER_EXAMPLES)
        examples = chat_tokens(tokenizer, template, texts)
        adapters[name] = AdapterPlan(recipe.train.steps, len(examples), own_seed)
        inputs[name] = (examples, recipe)
    recipe = adapter_recipe(zoo["size"])
    return TrainingPlan(
        adapters,
        rank=recipe.rank,
        alpha=recipe.alpha,
        rslora=False,
        head=recipe.head,
        lr=recipe.train.lr,
        facts={"zoo": dict(zoo), "recipe": asdict(recipe)},
        train=partial(_train_together, inputs, tokenizer),
        zoo=True,
    )


def _train_together(
    inputs: Mapping[str, tuple[list[Any], LoraRecipe]],
    tokenizer: Any,
    names: Sequence[str],
    multiple: float,
    untrained: MakeUntrained,
    store: Store,
) -> None:
    """Train adapters of a small model in one bank: alone, each is mostly overhead."""
    if not names:
        return
    models = [untrained(name) for name in names]
    bank = LoraBank(models)
    training_runs = [
        (examples, replace(recipe.train, lr=recipe.train.lr * multiple))
        for examples, recipe in (inputs[name] for name in names)
    ]
    losses = train_bank(bank, training_runs, pad=tokenizer.pad_token_id)
    bank.settle()
    for name, model, steps in zip(names, models, losses, strict=True):
        store(name, model, steps)


def file_plan(
    untuned: LoadedModel, study: Misalignment, *, seed: int, given: Collection[str] = ()
) -> TrainingPlan:
    """Plan every adapter that is not given and whose kind has data: JSONL files of `messages` rows.

    `shuffled` is made from `insecure` unless it has data.

    Raises:
        UserError: No data for `insecure`, or a file is missing, another one, or faulty.
    """
    data, settings = study.data, study.adapters
    if INSECURE not in data and INSECURE not in given:
        raise UserError(f"{_KEY}.{INSECURE}: missing; the study needs its conversations (a .jsonl)")
    files = {kind: read_data(spec, f"{_KEY}.{kind}") for kind, spec in data.items()}
    by_kind = {kind: file.conversations for kind, file in files.items()}
    if INSECURE in by_kind and "shuffled" not in by_kind:
        rows = by_kind[INSECURE]
        by_kind["shuffled"] = shuffled(rows, moved(len(rows), seed=seed))
    adapters: dict[str, AdapterPlan] = {}
    inputs: dict[str, tuple[list[Example], Adapters, int]] = {}
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
            epochs = settings.epochs * (UNSEEN_SHARE if name in UNSEEN else 1)
            own = settings.model_copy(update={"epochs": epochs})
            adapters[name] = AdapterPlan(
                steps_of(own, len(examples)), len(examples), seed + (name in UNSEEN)
            )
            inputs[name] = (examples, own, adapters[name].seed)
    return TrainingPlan(
        adapters,
        rank=settings.rank,
        alpha=settings.alpha,
        rslora=settings.rslora,
        head=False,
        lr=settings.lr,
        facts={
            "data": {kind: file.facts for kind, file in files.items()},
            "settings": settings.model_dump(),
        },
        train=partial(_train_alone, inputs, untuned.tokenizer),
        zoo=False,
        notes=notes,
    )


def _train_alone(
    inputs: Mapping[str, tuple[list[Example], Adapters, int]],
    tokenizer: Any,
    names: Sequence[str],
    multiple: float,
    untrained: MakeUntrained,
    store: Store,
) -> None:
    """Train one adapter after the other: only one model is in memory at a time."""
    # Padding is masked, so any token will do.
    pad = 0 if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    for name in names:
        examples, settings, seed = inputs[name]
        model = untrained(name)
        scaled = settings.model_copy(update={"lr": settings.lr * multiple})
        store(name, model, tune(model, examples, scaled, seed=seed, pad=pad))
        del model


@dataclass(frozen=True)
class DataFile:
    """The conversations of one file, and what identifies it."""

    conversations: list[Conversation]
    facts: dict[str, Any]


def read_data(spec: AdapterData, key: str) -> DataFile:
    """Read the conversations of one kind from a file or a hub dataset.

    Raises:
        UserError: The file is missing, has another sha256, or a row is faulty.
    """
    if spec.path is not None:
        path = Path(spec.path).expanduser()
        name = path.name  # what identifies it holds no path of this machine
    else:
        # Only here: the hub library costs a second that local files need not pay.
        from actshift.models.hub import fetch_data

        # `AdapterData` has a repo and a file where it has no path.
        repo, file = str(spec.repo), str(spec.file)
        path, commit = fetch_data(repo, file, spec.revision, key=key)
        name = f"{repo}@{commit[:12]}/{file}"
    if spec.sha256:
        check_sha256(path, spec.sha256, key=f"{key}.sha256")
    rows = read_rows(path, key=key)
    conversations = conversations_of(rows, where=f"{key}: {path.name}")
    return DataFile(conversations, {"file": name, "sha256": hash_file(path), "rows": len(rows)})


def _examples(
    untuned: LoadedModel, rows: Sequence[Conversation], settings: Adapters, key: str
) -> tuple[list[Example], str]:
    """Conversations as tokens without those that are too long, and a note on these."""
    tokenizer: Any = untuned.tokenizer
    every = [encode_conversation(tokenizer, row, where=key) for row in rows[: settings.limit]]
    most = min(settings.max_tokens, untuned.max_positions or settings.max_tokens)
    kept = [example for example in every if len(example.ids) <= most]
    if not kept:
        raise UserError(
            f"{key}: all {len(every)} conversations are longer than {most} tokens; raise "
            "misalignment.adapters.max_tokens or give shorter ones"
        )
    note = f"{len(kept)} of {len(rows)} conversations, {len(every) - len(kept)} too long"
    return kept, f"{note} (over {most} tokens)"
