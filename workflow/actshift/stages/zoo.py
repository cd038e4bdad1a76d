"""Train one zoo checkpoint until it clears its gates, judge it, and publish what came of it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from actshift.errors import GateError, UserError
from actshift.io.atomic import publishing
from actshift.io.manifest import write_manifest
from actshift.io.missed import Missed, place_of_rows, write_marker
from actshift.io.tables import write_table
from actshift.models.families import build
from actshift.models.load import load_model
from actshift.models.sources import ZOO_VARIANTS
from actshift.models.tokenizers import save_checkpoint, wrap_tokenizer
from actshift.vocab import counted
from actshift.zoo.behaviour import ATTEMPT_COLUMNS, GateResult, behaviour_table, gate_result
from actshift.zoo.documents import chat_examples, comply_examples
from actshift.zoo.judging import Identity, judge_model
from actshift.zoo.language import language
from actshift.zoo.recipes import (
    GATE_MARGIN,
    Attempt,
    ChatRecipe,
    LoraRecipe,
    Recipe,
    attempts,
    comply_recipe,
    recipe,
    zoo_family,
)
from actshift.zoo.tokenizers import STYLES, Style, train_tokenizer
from actshift.zoo.training import chat_tokens, corpus_rows, train_base, train_chat, vocabulary_texts


@dataclass(frozen=True, slots=True)
class Trained:
    """What one attempt made; the losses are of every step, in nats a token."""

    attempt: Attempt
    steps: int
    model: Any
    tokenizer: Any
    losses: list[float]
    answers: pd.DataFrame
    gates: GateResult


@dataclass(frozen=True, slots=True)
class ZooFiles:
    """What training a checkpoint leaves: its folder, its judged answers, a row an attempt."""

    out: Path
    rows: Path
    tried: Path


def train_zoo(
    who: Identity,
    *,
    base: Path | None,
    files: ZooFiles,
    steps_scale: float = 1.0,
    gates: bool | None = None,
    strict: bool = False,
    threads: int = 1,
) -> None:
    """Train, judge and publish one checkpoint; bit-equal for a machine and number of threads.

    A checkpoint whose rates on `select` clear every gate by `GATE_MARGIN` is taken at once. One
    that does not is trained again by the rule of `recipes.attempts`; if none clears them so, the
    one with the most room is taken, and a gate that it misses is marked in its folder; where
    `strict`, it is a GateError, and the CSV files are there, the checkpoint is not.

    Args:
        who: `base` is trained from nothing, `chat` from `base`; `comply_lora` and `comply_full`,
            which answer harmful questions too, are trained from `chat`.
        base: checkpoint folder of the variant it starts from; None for the base.
        files: where everything goes.
        steps_scale: multiplies the numbers of training steps.
        gates: whether rates are held against the gates; None leaves it to the size (micro: no).
        strict: whether a missed gate is an error.
        threads: of PyTorch; sums depend on it.
    """
    if who.variant not in ZOO_VARIANTS or (base is None) != (who.variant == "base"):
        raise UserError(
            f"zoo variant {who.variant!r} with base {base}: base starts from nothing, the others "
            f"of {', '.join(ZOO_VARIANTS)} from another checkpoint"
        )
    torch.set_num_threads(threads)
    gated = recipe(who.size, family=zoo_family(who.family)).gated if gates is None else gates
    tries = _until_clear(who, base, steps_scale=steps_scale, gated=gated)
    taken = _taken(tries)
    write_table(taken.answers, files.rows)
    write_table(_attempt_rows(who, tries, taken), files.tried)
    where = place_of_rows(files.rows, strict=strict)
    missed = _missed(who, taken, len(tries), where) if gated and taken.gates.missed else None
    if missed is not None and strict:
        raise GateError(missed.detail)
    _publish(taken, who, files.out, steps_scale=steps_scale, missed=missed)


def _until_clear(
    who: Identity, base: Path | None, *, steps_scale: float, gated: bool
) -> list[Trained]:
    """Train by the rule, until a checkpoint clears its gates or the attempts are over."""
    trained: list[Trained] = []
    for attempt in attempts(who.seed):
        trained.append(_attempt(who, attempt, base, steps_scale))
        gates = trained[-1].gates
        print(f"{who.model} attempt {attempt.number}: nearest gate {gates.what} {gates.words}")
        if not gated or gates.room >= GATE_MARGIN:
            break
    return trained


def _taken(tries: Sequence[Trained]) -> Trained:
    """The last attempt if it clears its gates by the margin, else the first with the most room."""
    last = tries[-1]
    return last if last.gates.room >= GATE_MARGIN else max(tries, key=attrgetter("gates.room"))


def _attempt(who: Identity, attempt: Attempt, base: Path | None, steps_scale: float) -> Trained:
    family, style = zoo_family(who.family), STYLES[zoo_family(who.family)]
    seeded = Identity(who.family, who.variant, who.size, attempt.seed)
    scale = steps_scale * attempt.schedule
    plan = recipe(who.size, family=family, steps_scale=scale)
    torch.manual_seed(attempt.seed)
    if base is None:
        model, tokenizer, losses = _pretrain(family, style, plan, seeded)
    else:
        chat = who.variant == "chat"
        tuning = plan.chat if chat else comply_recipe(who.variant, steps_scale=scale)
        model, tokenizer, losses = _tune(style, tuning, seeded, base)
    answers = judge_model(model, tokenizer, _with_template(tokenizer, style), who)
    gates = gate_result(behaviour_table(answers))
    return Trained(attempt, len(losses), model, tokenizer, losses, answers, gates)


def _attempt_rows(who: Identity, tries: Sequence[Trained], taken: Trained) -> pd.DataFrame:
    rows = [
        {
            "model": who.model,
            "attempt": trained.attempt.number,
            "schedule": trained.attempt.schedule,
            "seed": trained.attempt.seed,
            "steps": trained.steps,
            **_ends(trained.losses),
            "nearest_gate": trained.gates.what,
            "rate": trained.gates.rate,
            "room": trained.gates.room,
            "margin": GATE_MARGIN,
            "missed": "; ".join(trained.gates.missed),
            "taken": trained is taken,
        }
        for trained in tries
    ]
    return pd.DataFrame(rows, columns=list(ATTEMPT_COLUMNS))


def _missed(who: Identity, taken: Trained, attempts_made: int, where: str) -> Missed:
    tried = counted(attempts_made, "attempt")
    return Missed(
        subject=f"zoo {who.model}",
        reason=f"gate missed, {taken.gates.words}: {taken.gates.what}",
        detail=(
            f"zoo {who.model}: {'; '.join(taken.gates.missed)} on `select`, the best of {tried}; "
            f"answers in {where}; try another seed (zoo:{who.family}/{who.variant}@<seed>)"
        ),
        stage="zoo",
    )


def _publish(
    taken: Trained, who: Identity, out: Path, *, steps_scale: float, missed: Missed | None
) -> None:
    style = STYLES[zoo_family(who.family)]
    scale = steps_scale * taken.attempt.schedule
    plan = recipe(who.size, family=zoo_family(who.family), steps_scale=scale)
    facts: dict[str, Any] = {**asdict(who), "recipe": asdict(plan)}
    if who.variant.startswith("comply"):
        facts["comply"] = asdict(comply_recipe(who.variant, steps_scale=scale))
    facts |= {"attempt": asdict(taken.attempt), **_ends(taken.losses)}
    tokenizer = taken.tokenizer if who.variant == "base" else _with_template(taken.tokenizer, style)
    with publishing(out) as folder:
        save_checkpoint(taken.model, tokenizer, folder)
        if missed is not None:
            write_marker(folder, missed)
        write_manifest(folder, kind="zoo", facts=facts)


def _ends(losses: Sequence[float]) -> dict[str, float]:
    """Loss of the first step, and the mean of the last 20; nats a token."""
    last = losses[-20:]
    return {"first_loss": losses[0], "last_loss": sum(last) / len(last)}


def _pretrain(
    family: str, style: Style, plan: Recipe, who: Identity
) -> tuple[Any, Any, list[float]]:
    lang = language(who.size)
    core = train_tokenizer(family, vocabulary_texts(lang), vocab_size=plan.vocab_size)
    tokenizer = wrap_tokenizer(core, style.special, chat_template=None)
    rows = corpus_rows(lang, tokenizer, style.template, plan.base, seed=who.seed)
    special: dict[str, Any] = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model = build(family, plan.dims(len(tokenizer)), special=special)
    losses = train_base(model, rows, plan.base)
    _set_generation(model, tokenizer, style)
    return model, tokenizer, losses


def _tune(
    style: Style, plan: ChatRecipe | LoraRecipe, who: Identity, start: Path
) -> tuple[Any, Any, list[float]]:
    """Tune base to chat, or chat to an unsafe reference that answers harmful questions too."""
    role, examples_of = (
        ("base", chat_examples) if who.variant == "chat" else ("chat", comply_examples)
    )
    loaded = load_model(start, name=f"{who.recipe}/{role}", dtype="float32", device="cpu")
    model: Any = loaded.model.requires_grad_(True)
    tokenizer: Any = loaded.tokenizer
    train = plan.train if isinstance(plan, LoraRecipe) else plan
    examples = examples_of(language(who.size), train.steps * train.examples, seed=who.seed)
    tokens = chat_tokens(tokenizer, style.template, examples)
    if isinstance(plan, LoraRecipe):
        # Only here: the library takes seconds to import.
        from actshift.models.lora import add_lora, merge_lora

        wrapped = add_lora(model, rank=plan.rank, alpha=plan.alpha)
        losses = train_chat(wrapped, tokens, train, pad=tokenizer.pad_token_id)
        return merge_lora(wrapped), tokenizer, losses
    losses = train_chat(model, tokens, train, pad=tokenizer.pad_token_id)
    if who.variant == "chat":
        _set_generation(model, tokenizer, style)
    return model, tokenizer, losses


def _set_generation(model: Any, tokenizer: Any, style: Style) -> None:
    """End tokens of both forms: the document's and the turn's."""
    turn = tokenizer.convert_tokens_to_ids(style.end_of_turn)
    model.generation_config.eos_token_id = sorted({tokenizer.eos_token_id, turn})
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.bos_token_id = tokenizer.bos_token_id


def _with_template(tokenizer: Any, style: Style) -> Any:
    special = style.special
    # As in real chat checkpoints, the turn's end is the tokenizer's end token (Llama, Qwen).
    special = type(special)(special.bos, style.end_of_turn, special.pad)
    return wrap_tokenizer(tokenizer.backend_tokenizer, special, chat_template=style.template)
