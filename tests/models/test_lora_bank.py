"""A bank of LoRA updates: trained side by side, each becomes what it becomes alone."""

import random

import pytest
import torch

from actshift.errors import UserError
from actshift.models.families import Dims, build
from actshift.models.lora import LoraBank, add_lora
from actshift.studies.misalignment.stages.tuning import train_bank
from actshift.zoo.recipes import ChatRecipe
from actshift.zoo.training import Example, train_chat

DIMS = Dims(vocab_size=64, d_model=32, n_layers=2, d_head=8, d_mlp=48, max_positions=64)
PAD = 0


def wrapped(family: str, *, seed: int = 0, rank: int = 2):
    torch.manual_seed(5)
    model = build(family, DIMS)
    torch.manual_seed(seed)
    return add_lora(model, rank=rank, alpha=4, head=True)


def examples_of(seed: int) -> list[Example]:
    """Draw ten conversations of unlike lengths."""
    rng = random.Random(seed)
    made = []
    for _ in range(10):
        asked, said = rng.randint(3, 9), rng.randint(1, 7)
        made.append(([rng.randrange(1, 64) for _ in range(asked + said)], asked))
    return made


def updates(wrapped) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in wrapped.named_parameters() if "lora_" in name}


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen2", "ministral3"])
def test_side_by_side_is_one_after_the_other(family: str) -> None:
    """Steps differ, seeds differ, conversations differ; SGD's like would not see the clipping."""
    plans = [ChatRecipe(6, 4, lr=1e-2), ChatRecipe(6, 4, lr=1e-2), ChatRecipe(4, 4, lr=1e-2)]
    training_runs = [(examples_of(seed), plan) for seed, plan in enumerate(plans)]
    alone = [wrapped(family, seed=seed) for seed in (0, 0, 1)]
    start = [updates(one) for one in alone]
    expected = [
        train_chat(one, examples, plan, pad=PAD)
        for one, (examples, plan) in zip(alone, training_runs, strict=True)
    ]
    together = [wrapped(family, seed=seed) for seed in (0, 0, 1)]
    bank = LoraBank(together)
    found = train_bank(bank, training_runs, pad=PAD)
    assert [len(one) for one in found] == [6, 6, 4]
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    # Nothing of theirs has changed before it is settled.
    for one, before in zip(together, start, strict=True):
        assert all(torch.equal(value, before[name]) for name, value in updates(one).items())
    bank.settle()
    for one, other, before in zip(together, alone, start, strict=True):
        wanted = updates(other)
        for name, value in updates(one).items():
            moved = (wanted[name] - before[name]).norm()
            assert float(moved) > 1e-3, name
            # AdamW divides by the gradient's own size, so rounding of tiny ones is not tiny.
            assert float((value - wanted[name]).norm()) < 0.02 * float(moved), name


def test_updates_of_unlike_ranks_are_refused() -> None:
    with pytest.raises(UserError, match="unlike"):
        LoraBank([wrapped("llama"), wrapped("llama", rank=3)])
