"""Tuning an adapter on conversations: batches by accumulation, linear schedule, answer loss."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from actshift.models.lora import LoraBank
from actshift.models.qlora import adamw
from actshift.prompts.conversations import Example
from actshift.random_streams import EXAMPLE_ORDER
from actshift.studies.misalignment.study import Adapters
from actshift.zoo.recipes import ChatRecipe
from actshift.zoo.training import IGNORED, pick, rate
from actshift.zoo.training import Example as ZooExample
from actshift.zoo.training import collate as zoo_collate

#: Largest norm of a step's gradient (the default of the libraries the recipe comes from).
_CLIP = 1.0


def steps_of(settings: Adapters, count: int) -> int:
    """Updates that `count` examples make."""
    return math.ceil(max(1, round(settings.epochs * count)) / settings.batch)


def tune(
    model: Any, examples: Sequence[Example], settings: Adapters, *, seed: int, pad: int
) -> list[float]:
    """Train what requires gradients, in place; `seed` is of the order, `pad` fills up on the right.

    The loss of a step is the mean over all its learned tokens, whatever the micro-batch.

    Returns:
        Loss of every step, nats a learned token.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = adamw(weights, lr=settings.lr, weight_decay=settings.weight_decay)
    steps = steps_of(settings, len(examples))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: linear(step, steps, warmup=settings.warmup)
    )
    model.train()
    losses = []
    for picks in batches(len(examples), settings, seed=seed):
        batch = [examples[i] for i in picks]
        losses.append(add_gradients(model, batch, settings.micro_batch, pad=pad))
        nn.utils.clip_grad_norm_(weights, _CLIP)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        schedule.step()
    model.eval()
    return losses


def linear(step: int, steps: int, *, warmup: int) -> float:
    """Multiplier of the learning rate: up to 1 over `warmup` steps, then down to 0 at the end.

    The first step is not lost: it has 1 / (warmup + 1).
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return max(0.0, (steps - step) / max(1, steps - warmup))


def batches(count: int, settings: Adapters, *, seed: int) -> list[list[int]]:
    """Places of the examples of every step: each pass in a new seeded order, the last one cut."""
    total = max(1, round(settings.epochs * count))
    passes = range(math.ceil(total / count))
    orders = [EXAMPLE_ORDER.rng(seed, epoch).permutation(count) for epoch in passes]
    order = np.concatenate(orders)[:total].tolist()
    size = settings.batch
    return [order[start : start + size] for start in range(0, total, size)]


def add_gradients(model: Any, batch: Sequence[Example], micro_batch: int, *, pad: int) -> float:
    """Add one step's gradient to the weights, a micro-batch at a time.

    Returns:
        Mean loss over the learned tokens of the whole batch, nats.
    """
    # The first token is predicted by nothing.
    tokens = sum(sum(one.learned[1:]) for one in batch)
    device = next(model.parameters()).device
    total = 0.0
    for start in range(0, len(batch), micro_batch):
        inputs, labels, mask = collate(batch[start : start + micro_batch], pad=pad)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = model(
                input_ids=inputs.to(device), attention_mask=mask.to(device), use_cache=False
            ).logits
        loss = answer_loss(logits, labels.to(device)) / tokens
        loss.backward()
        total += float(loss.detach())
    return total


def answer_loss(
    logits: Float[Tensor, "row token vocab"], labels: Int[Tensor, "row token"]
) -> Float[Tensor, ""]:
    """Sum of -log p over the labelled tokens, nats, in float32."""
    # Prompts are most of the tokens: their logits are left out before they are widened.
    asked = labels[:, 1:] != IGNORED
    return cross_entropy(logits[:, :-1][asked].float(), labels[:, 1:][asked], reduction="sum")


def collate(
    batch: Sequence[Example], *, pad: int
) -> tuple[Int[Tensor, "row token"], Int[Tensor, "row token"], Int[Tensor, "row token"]]:
    """Right-pad a batch: inputs, labels (IGNORED where nothing is learned), attention mask."""
    longest = max(len(one.ids) for one in batch)
    inputs = torch.full((len(batch), longest), pad, dtype=torch.long)
    labels = torch.full_like(inputs, IGNORED)
    mask = torch.zeros_like(inputs)
    for row, one in enumerate(batch):
        size = len(one.ids)
        inputs[row, :size] = torch.tensor(one.ids)
        learned = torch.tensor(one.learned)
        labels[row, :size] = torch.where(learned, inputs[row, :size], IGNORED)
        mask[row, :size] = 1
    return inputs, labels, mask


def train_bank(
    bank: LoraBank, training_runs: Sequence[tuple[Sequence[ZooExample], ChatRecipe]], *, pad: int
) -> list[list[float]]:
    """Tune every update of a bank on conversations of its own, as `train_chat` would one by one.

    `training_runs` has examples and settings of each; the number of steps may fall from one to the
    next, all else is the same. Returns the losses of every step of each, nats an answer token.
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
        batch = [example for every in running for example in pick(every, step, plans[0].examples)]
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


def _bank_losses(bank: LoraBank, batch: Sequence[ZooExample], updates: int, *, pad: int) -> Tensor:
    """Mean loss over the answer tokens of each update's rows."""
    inputs, labels, mask = zoo_collate(batch, pad=pad)
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
