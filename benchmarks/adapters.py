"""Adapters trained side by side and answers scored behind shared prompts, against one by one.

    python benchmarks/adapters.py [--rounds 3] [--family llama]

On a random model of the zoo's size, one CPU thread, round by round both ways in turn:

- train: seven LoRA adapters, 10 steps of 8 conversations each, in one `LoraBank`, against one after
  the other in peft;
- score: 2000 answers to 40 prompts, each prompt read once (`answer_nats`), against reading prompt
  and answer together for every answer.

Printed are ratios of CPU time (median, min-max over rounds) and the largest relative difference of
losses and scores. The exit status is 1 where it is above 1e-3 or the new way is slower.
"""

import argparse
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from actshift.engine.causal import causal_model
from actshift.hooks.lanes.generation import Decoder, left_pad
from actshift.hooks.lanes.losses import Answer, answer_nats
from actshift.models.families import FAMILIES, Dims, build
from actshift.models.lora import LoraBank, add_lora
from actshift.studies.misalignment.stages.tuning import train_bank
from actshift.zoo.recipes import ChatRecipe
from actshift.zoo.training import Example, train_chat

ADAPTERS, PROMPTS, ANSWERS, BUDGET, WORST = 7, 40, 2000, 65536, 1e-3
DIMS = Dims(vocab_size=1100)
PLAN = ChatRecipe(10, 8, lr=5e-3)


def examples_of(seed: int) -> list[Example]:
    rng = random.Random(seed)
    sizes = [(rng.randint(14, 18), rng.randint(10, 18)) for _ in range(80)]
    return [([rng.randrange(50, 1100) for _ in range(a + b)], a) for a, b in sizes]


def wrapped(family: str) -> Any:
    torch.manual_seed(0)
    return add_lora(build(family, DIMS), rank=8, alpha=16, head=True)


def alone(models: list[Any], training_runs: list[list[Example]]) -> list[list[float]]:
    pairs = zip(models, training_runs, strict=True)
    return [train_chat(one, examples, PLAN, pad=0) for one, examples in pairs]


def together(models: list[Any], training_runs: list[list[Example]]) -> list[list[float]]:
    bank = LoraBank(models)
    losses = train_bank(bank, [(examples, PLAN) for examples in training_runs], pad=0)
    bank.settle()
    return losses


def make_answers() -> list[Answer]:
    rng = np.random.default_rng(2)
    prompts = [rng.integers(50, 1100, size=rng.integers(12, 24)) for _ in range(PROMPTS)]
    return [
        Answer(prompts[i % PROMPTS], tuple(rng.integers(50, 1100, rng.integers(1, 22))), True)
        for i in range(ANSWERS)
    ]


@torch.inference_mode()
def whole(decoder: Decoder, answers: list[Answer]) -> np.ndarray:
    """Score answers, prompt and answer read together, in batches of like length."""
    found = np.empty(len(answers))
    order = sorted(range(len(answers)), key=lambda i: len(answers[i].tokens))
    for start in range(0, len(order), 400):
        places = order[start : start + 400]
        batch = [answers[i] for i in places]
        rows = [np.append(one.prompt, np.array(one.tokens)) for one in batch]
        ids, mask, position = left_pad(rows, decoder)
        read = max(len(one.tokens) for one in batch) + 1
        out = decoder.model(
            input_ids=ids, attention_mask=mask, position_ids=position, use_cache=False,
            logits_to_keep=read,
        )  # fmt: skip
        logp = out.logits.float().log_softmax(-1)
        for row, place in enumerate(places):
            n = len(answers[place].tokens)
            said = logp[row, read - 1 - n : read - 1]
            total = said[torch.arange(n), torch.tensor(answers[place].tokens)].double().sum()
            total += logp[row, -1, sorted(decoder.eos)].logsumexp(0)
            found[place] = -float(total) / (n + 1)
    return found


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def told(name: str, ratios: list[float], difference: float) -> bool:
    """Print one comparison; whether it holds."""
    middle = statistics.median(ratios)
    print(
        f"{name}: {middle:.2f} times as fast ({min(ratios):.2f}-{max(ratios):.2f}), "
        f"largest relative difference {difference:.1e}"
    )
    return middle > 1 and difference < WORST


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--family", choices=sorted(FAMILIES), default="llama")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    training_runs = [examples_of(seed) for seed in range(ADAPTERS)]
    torch.manual_seed(1)
    model = build(chosen.family, DIMS).eval()
    decoder = Decoder(causal_model(model), frozenset({2, 3}), pad=0)
    answers = make_answers()
    ratios: dict[str, list[float]] = {"train": [], "score": []}
    worst = {"train": 0.0, "score": 0.0}
    for _ in range(chosen.rounds):
        pairs = {
            "train": (
                timed(
                    lambda: alone([wrapped(chosen.family) for _ in training_runs], training_runs)
                ),
                timed(
                    lambda: together([wrapped(chosen.family) for _ in training_runs], training_runs)
                ),
            ),
            "score": (
                timed(lambda: whole(decoder, answers)),
                timed(lambda: answer_nats(decoder, answers, token_budget=BUDGET)),
            ),
        }
        for name, ((slow, old), (fast, new)) in pairs.items():
            ratios[name].append(slow / fast)
            gap = np.abs(np.array(new) / np.array(old) - 1).max()
            worst[name] = max(worst[name], float(gap))
    held = [told(name, ratios[name], worst[name]) for name in ratios]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
