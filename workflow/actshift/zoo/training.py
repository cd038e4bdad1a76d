"""The two training loops: pretraining on packed rows, tuning on padded conversations."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from actshift.models.families import embedding_of, head_of
from actshift.models.lora import LoraBank
from actshift.zoo.muon import BatchedMuon
from actshift.zoo.recipes import BaseRecipe, ChatRecipe

#: Token ids of a conversation, and the length of the prompt part.
Example = tuple[list[int], int]
#: Label of tokens that carry no loss.
IGNORED = -100


def pack(tokens: Sequence[int], *, row_tokens: int) -> Tensor:
    """Cut one long stream into rows of equal length; the rest is dropped.

    Returns:
        int64 `[row, token]`.
    """
    rows = len(tokens) // row_tokens
    return torch.tensor(tokens[: rows * row_tokens], dtype=torch.long).view(rows, row_tokens)


def train_base(model: Any, rows: Tensor, recipe: BaseRecipe) -> list[float]:
    """Pretrain in place.

    Args:
        model: a causal language model.
        rows: packed tokens, at least `steps * rows` of them or they are reused, `[row, token]`.
        recipe: the settings.

    Returns:
        Loss of every step, nats a token.
    """
    optimisers = _split_optimisers(model, recipe)
    batches = _batches(rows, recipe.rows, recipe.steps)
    return _loop(model, optimisers, batches, recipe.steps, lambda batch: (batch, batch, None))


def train_chat(
    model: Any, examples: Sequence[Example], recipe: ChatRecipe, *, pad: int
) -> list[float]:
    """Tune every weight in place on conversations, with loss on the answer alone.

    Args:
        model: the base model.
        examples: token ids and the length of the prompt part.
        recipe: the settings.
        pad: id to fill up with, on the right.

    Returns:
        Loss of every step, nats an answer token.
    """
    adam = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=0.0)
    picks = (_pick(examples, step, recipe.examples) for step in range(recipe.steps))
    return _loop(model, [adam], picks, recipe.steps, lambda batch: collate(batch, pad=pad))


def train_bank(
    bank: LoraBank, training_runs: Sequence[tuple[Sequence[Example], ChatRecipe]], *, pad: int
) -> list[list[float]]:
    """Tune every update of a bank on conversations of its own, as `train_chat` would one by one.

    Args:
        bank: The updates.
        training_runs: Examples and settings of each; the number of steps may fall from one to the
            next, all else is the same.
        pad: id to fill up with, on the right.

    Returns:
        Losses of every step of each update, nats an answer token.
    """
    plans = [plan for _, plan in training_runs]
    groups = [
        {"params": [vector], "lr": plan.lr}
        for vector, plan in zip(bank.vectors, plans, strict=True)
    ]
    adam = torch.optim.AdamW(groups, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        adam, [partial(rate, steps=plan.steps) for plan in plans]
    )
    losses: list[list[float]] = [[] for _ in training_runs]
    for step in range(plans[0].steps):
        running = [examples for examples, plan in training_runs if step < plan.steps]
        batch = [example for every in running for example in _pick(every, step, plans[0].examples)]
        losses_of_step = _bank_losses(bank, batch, len(running), pad=pad)
        losses_of_step.sum().backward()
        for vector in bank.vectors[: len(running)]:
            nn.utils.clip_grad_norm_([vector], 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)
        schedule.step()
        for number, loss in enumerate(losses_of_step.tolist()):
            losses[number].append(loss)
    return losses


def _bank_losses(bank: LoraBank, batch: Sequence[Example], updates: int, *, pad: int) -> Tensor:
    """Mean loss over the answer tokens of each update's rows."""
    inputs, labels, mask = collate(batch, pad=pad)
    # No answer begins before this place: the logits of what is asked are not wanted.
    first = min(start for _, start in batch) - 1
    kept = torch.arange(first, inputs.shape[1] - 1)
    logits = bank.logits(inputs, mask, updates=updates, kept=kept)
    wanted = labels[:, first + 1 :]
    each = cross_entropy(
        logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="none"
    )
    counts = (wanted != IGNORED).view(updates, -1).sum(1)
    return each.view(updates, -1).sum(1) / counts


def _pick(examples: Sequence[Example], step: int, size: int) -> list[Example]:
    """The examples of a step: one after the other, from the start again after the last."""
    return [examples[(step * size + i) % len(examples)] for i in range(size)]


def collate(batch: Sequence[Example], *, pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """Right-pad a batch of conversations.

    Returns:
        Inputs, labels (IGNORED at prompt and padding) and attention mask, each `[row, token]`.
    """
    longest = max(len(ids) for ids, _ in batch)
    inputs = torch.full((len(batch), longest), pad, dtype=torch.long)
    labels = torch.full_like(inputs, IGNORED)
    mask = torch.zeros_like(inputs)
    for row, (ids, start) in enumerate(batch):
        inputs[row, : len(ids)] = torch.tensor(ids)
        labels[row, start : len(ids)] = torch.tensor(ids[start:])
        mask[row, : len(ids)] = 1
    return inputs, labels, mask


def _split_optimisers(model: Any, recipe: BaseRecipe) -> list[torch.optim.Optimizer]:
    outer = {id(embedding_of(model).weight), id(head_of(model).weight)}
    weights = [w for w in model.parameters() if w.requires_grad]
    hidden = [w for w in weights if w.ndim == 2 and id(w) not in outer]
    kept = {id(w) for w in hidden}
    rest = [w for w in weights if id(w) not in kept]
    return [
        BatchedMuon(hidden, lr=recipe.muon_lr, weight_decay=recipe.weight_decay),
        torch.optim.AdamW(
            rest,
            lr=recipe.adam_lr,
            betas=(0.9, 0.98),
            weight_decay=recipe.weight_decay,
            foreach=True,
        ),
    ]


def _batches(rows: Tensor, size: int, steps: int) -> Iterator[Tensor]:
    for step in range(steps):
        index = torch.arange(step * size, (step + 1) * size) % len(rows)
        yield rows[index]


def _loop(
    model: Any,
    optimisers: list[torch.optim.Optimizer],
    batches: Iterator[Any],
    steps: int,
    prepare: Callable[[Any], tuple[Tensor, Tensor, Tensor | None]],
) -> list[float]:
    model.train()
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate(step, steps))
        for optimiser in optimisers
    ]
    losses = []
    for batch in batches:
        inputs, labels, mask = prepare(batch)
        logits = model(input_ids=inputs, attention_mask=mask, use_cache=False).logits
        loss = cross_entropy(
            logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED
        )
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        for schedule in schedules:
            schedule.step()
        losses.append(float(loss.detach()))
    model.eval()
    return losses


def rate(step: int, steps: int) -> float:
    """Multiplier of the learning rate: 5 % linear warm-up, then a cosine to a tenth."""
    warm = max(1, round(0.05 * steps))
    if step < warm:
        return (step + 1) / warm
    share = min(1.0, (step - warm) / max(1, steps - warm))
    return 0.1 + 0.45 * (1 + math.cos(math.pi * share))
