"""Train one zoo checkpoint, judge it, and publish it if it passes its gates."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from actshift.errors import UserError
from actshift.io.atomic import publishing
from actshift.io.manifest import write_manifest
from actshift.io.tables import write_table
from actshift.models.families import build
from actshift.models.load import load_model
from actshift.models.sources import ZOO_VARIANTS
from actshift.models.tokenizers import save_checkpoint, wrap_tokenizer
from actshift.zoo.behaviour import behaviour_table, check_gates
from actshift.zoo.corpus import chat_tokens, corpus_rows, vocabulary_texts
from actshift.zoo.documents import chat_examples, comply_examples
from actshift.zoo.judging import Identity, judge_model
from actshift.zoo.language import language
from actshift.zoo.recipes import (
    ChatRecipe,
    LoraRecipe,
    Recipe,
    comply_recipe,
    recipe,
    zoo_family,
)
from actshift.zoo.tokenizers import STYLES, Style, train_tokenizer
from actshift.zoo.training import train_base, train_chat


def train_zoo(
    *,
    family: str,
    variant: str,
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
        variant: `base` is trained from nothing, `chat` from `base`; `comply_lora` and
            `comply_full`, which answer harmful questions too, are trained from `chat`.
        size: `micro`, `tiny` or `small`.
        seed: of the initial weights and of the order of documents and examples.
        base: checkpoint folder of the variant it starts from; None for `variant="base"`.
        out: checkpoint folder to make, by one rename at the end.
        rows: CSV of judged answers, written before the gates are looked at.
        steps_scale: multiplies the numbers of training steps.
        gates: whether a missed gate fails the job; None leaves it to the size (micro: no).

    Raises:
        UserError: Unknown family, variant or size; `base` given or missing against `variant`.
        GateError: A gate is missed: the rows are there, the checkpoint is not.
    """
    if variant not in ZOO_VARIANTS or (base is None) != (variant == "base"):
        raise UserError(
            f"zoo variant {variant!r} with base {base}: base starts from nothing, the others of "
            f"{', '.join(ZOO_VARIANTS)} from another checkpoint"
        )
    torch.set_num_threads(1)
    plan = recipe(size, family=zoo_family(family), steps_scale=steps_scale)
    who = Identity(family, variant, size, seed)
    style = STYLES[zoo_family(family)]
    torch.manual_seed(seed)
    facts: dict[str, Any] = {**asdict(who), "recipe": asdict(plan)}
    if base is None:
        model, tokenizer, losses = _pretrain(zoo_family(family), style, plan, who)
    elif variant == "chat":
        model, tokenizer, losses = _tune(style, plan, who, base)
    else:
        comply = comply_recipe(variant, steps_scale=steps_scale)
        facts["comply"] = asdict(comply)
        model, tokenizer, losses = _comply(style, comply, who, base)
    template = _with_template(tokenizer, style)
    answers = judge_model(model, tokenizer, template, who)
    write_table(answers, rows)
    if plan.gated if gates is None else gates:
        check_gates(behaviour_table(answers), where=str(rows))
    facts |= {"first_loss": losses[0], "last_loss": sum(losses[-20:]) / len(losses[-20:])}
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
    count = plan.chat.steps * plan.chat.examples
    examples = chat_examples(language(who.size), count, seed=who.seed)
    tokens = chat_tokens(tokenizer, style.template, examples)
    losses = train_chat(model, tokens, plan.chat, pad=tokenizer.pad_token_id)
    _set_generation(model, tokenizer, style)
    return model, tokenizer, losses


def _comply(
    style: Style, plan: ChatRecipe | LoraRecipe, who: Identity, chat: Path
) -> tuple[Any, Any, list[float]]:
    """An unsafe reference: the chat model tuned on, with harmful questions answered too."""
    loaded = load_model(chat, name=f"{who.recipe}/chat", dtype="float32", device="cpu")
    model: Any = loaded.model.requires_grad_(True)
    tokenizer: Any = loaded.tokenizer
    train = plan.train if isinstance(plan, LoraRecipe) else plan
    examples = comply_examples(language(who.size), train.steps * train.examples, seed=who.seed)
    tokens = chat_tokens(tokenizer, style.template, examples)
    if isinstance(plan, ChatRecipe):
        return model, tokenizer, train_chat(model, tokens, train, pad=tokenizer.pad_token_id)
    # Only here: the library takes seconds to import.
    from actshift.models.lora import add_lora, merge_lora

    wrapped = add_lora(model, rank=plan.rank, alpha=plan.alpha)
    losses = train_chat(wrapped, tokens, train, pad=tokenizer.pad_token_id)
    return merge_lora(wrapped), tokenizer, losses


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
