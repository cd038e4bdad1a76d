"""Train one zoo checkpoint, judge it, and publish it if it passes its gates."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch

from actshift.errors import UserError
from actshift.io.atomic import publishing
from actshift.io.manifest import write_manifest
from actshift.io.tables import write_table
from actshift.models.families import build
from actshift.models.load import load_model
from actshift.models.tokenizers import save_checkpoint, wrap_tokenizer
from actshift.zoo.behaviour import behaviour_table, check_gates
from actshift.zoo.corpus import chat_tokens, corpus_rows, vocabulary_texts
from actshift.zoo.judging import Identity, judge_model
from actshift.zoo.language import language
from actshift.zoo.recipes import Recipe, recipe, zoo_family
from actshift.zoo.tokenizers import STYLES, Style, train_tokenizer
from actshift.zoo.training import train_base, train_chat


def train_zoo(
    *,
    family: str,
    variant: Literal["base", "chat"],
    size: str,
    seed: int,
    base: Path | None,
    out: Path,
    rows: Path,
    steps_scale: float = 1.0,
    gates: bool | None = None,
) -> None:
    """Train, judge and publish one checkpoint; bit-equal for a machine, on one thread.

    Args:
        family: zoo name, `llama`, `gemma`, `qwen` or `ministral`.
        variant: `base` is trained from nothing, `chat` from the folder `base`.
        size: `micro`, `tiny` or `small`.
        seed: of the initial weights and of the order of documents and examples.
        base: checkpoint folder of the base variant; None for `variant="base"`.
        out: checkpoint folder to make, by one rename at the end.
        rows: CSV of judged answers, written before the gates are looked at.
        steps_scale: multiplies the numbers of training steps.
        gates: whether a missed gate fails the job; None leaves it to the size (micro: no).

    Raises:
        UserError: Unknown family, variant or size; `base` given or missing against `variant`.
        GateError: A gate is missed: the rows are there, the checkpoint is not.
    """
    if variant not in ("base", "chat") or (base is None) != (variant == "base"):
        raise UserError(
            f"zoo variant {variant!r} with base {base}: chat needs a base, base has none"
        )
    torch.set_num_threads(1)
    plan = recipe(size, family=zoo_family(family), steps_scale=steps_scale)
    who = Identity(family, variant, size, seed)
    style = STYLES[zoo_family(family)]
    torch.manual_seed(seed)
    if base is None:
        model, tokenizer, losses = _pretrain(zoo_family(family), style, plan, who)
    else:
        model, tokenizer, losses = _tune(style, plan, who, base)
    template = _with_template(tokenizer, style)
    answers = judge_model(model, tokenizer, template, who)
    write_table(answers, rows)
    if plan.gated if gates is None else gates:
        check_gates(behaviour_table(answers), where=str(rows))
    facts = {
        **asdict(who),
        "recipe": asdict(plan),
        "first_loss": losses[0],
        "last_loss": sum(losses[-20:]) / len(losses[-20:]),
    }
    with publishing(out) as folder:
        save_checkpoint(model, tokenizer if variant == "base" else template, folder)
        write_manifest(folder, kind="zoo", facts=facts)


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


def _tune(style: Style, plan: Recipe, who: Identity, base: Path) -> tuple[Any, Any, list[float]]:
    loaded = load_model(base, name=f"{who.recipe}/base", dtype="float32", device="cpu")
    model: Any = loaded.model.requires_grad_(True)
    tokenizer: Any = loaded.tokenizer
    examples = chat_tokens(language(who.size), tokenizer, style.template, plan.chat, seed=who.seed)
    losses = train_chat(model, examples, plan.chat, pad=tokenizer.pad_token_id)
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
