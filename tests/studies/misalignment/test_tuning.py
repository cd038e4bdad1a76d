"""The tuning loop: loss by hand, accumulation, schedule, order."""

import pytest
import torch

from actshift.models.families import Dims, build
from actshift.models.lora import add_lora
from actshift.prompts.conversations import Example
from actshift.studies.misalignment.stages.tuning import (
    add_gradients,
    batches,
    collate,
    linear,
    steps_of,
    tune,
)
from actshift.studies.misalignment.study import Adapters

PLAN = Adapters(lr=1e-2, epochs=1.0, batch=4, micro_batch=2, warmup=2, weight_decay=0.0)


@pytest.fixture
def model():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    plain = build("llama", Dims(vocab_size=64, d_model=32, n_layers=2, d_head=8, d_mlp=48))
    # At the library's start a narrow head cannot tell tokens apart.
    for weight in plain.parameters():
        weight.data.mul_(8 if weight.ndim == 2 else 1)
    wrapped = add_lora(plain, rank=2, alpha=4)
    with torch.no_grad():
        for weight in trained(wrapped):
            weight.add_(0.1 * torch.randn(weight.shape))
    return wrapped


def trained(model):
    return [weight for weight in model.parameters() if weight.requires_grad]


def examples(count: int = 8) -> list[Example]:
    draw = torch.Generator().manual_seed(3)
    made = []
    for i in range(count):
        size = 4 + i % 5
        ids = torch.randint(64, (size,), generator=draw).tolist()
        # Two answers in one conversation, with a question between them.
        learned = [place in (1, size - 2, size - 1) for place in range(size)]
        made.append(Example(tuple(ids), tuple(learned)))
    return made


def by_hand(model, batch) -> torch.Tensor:
    """-log p of every learned token, one conversation at a time, no padding."""
    losses = []
    for one in batch:
        logp = model(torch.tensor([one.ids])).logits[0].log_softmax(1)
        for place, learned in enumerate(one.learned):
            if learned and place > 0:
                losses.append(-logp[place - 1, one.ids[place]])
    return torch.stack(losses).mean()


def gradients(model, work) -> tuple[float, list[torch.Tensor]]:
    model.zero_grad()
    loss = work()
    return loss, [weight.grad.clone() for weight in trained(model)]


@pytest.mark.parametrize("micro", [1, 3, 8])
def test_loss_and_gradient_are_those_of_the_whole_batch_whatever_the_micro_batch(model, micro):
    batch = examples()

    def reference() -> float:
        loss = by_hand(model, batch)
        loss.backward()
        return float(loss.detach())

    wanted, slopes = gradients(model, reference)
    found, got = gradients(model, lambda: add_gradients(model, batch, micro, pad=63))
    assert found == pytest.approx(wanted, rel=1e-5)
    for one, other in zip(got, slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_tokens_that_are_not_learned_leave_no_trace_in_the_labels():
    inputs, labels, mask = collate(examples(2), pad=63)
    for row, one in enumerate(examples(2)):
        size = len(one.ids)
        assert inputs[row].tolist() == [*one.ids, *[63] * (inputs.shape[1] - size)]
        assert mask[row].sum() == size
        shown = [i if learned else -100 for i, learned in zip(one.ids, one.learned, strict=True)]
        assert labels[row].tolist() == shown + [-100] * (inputs.shape[1] - size)


def test_the_schedule_rises_to_one_and_falls_to_nothing():
    rates = [linear(step, 10, warmup=4) for step in range(10)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[4:] == pytest.approx([1 - i / 6 for i in range(6)])
    assert linear(10, 10, warmup=4) == 0
    # No step is lost, not even where there are fewer steps than the warm-up.
    assert all(linear(step, 3, warmup=5) > 0 for step in range(3))
    assert [linear(step, 2, warmup=0) for step in range(2)] == [1.0, 0.5]


@pytest.mark.parametrize("epochs", [0.5, 1.0, 2.5])
def test_every_pass_reads_every_example_once(epochs):
    plan = PLAN.model_copy(update={"epochs": epochs})
    picked = batches(10, plan, seed=0)
    order = [place for step in picked for place in step]
    assert len(order) == 10 * epochs
    assert len(picked) == steps_of(plan, 10)
    assert all(len(step) == 4 for step in picked[:-1])
    for start in range(0, len(order) - 9, 10):
        assert sorted(order[start : start + 10]) == list(range(10))
    assert picked == batches(10, plan, seed=0) != batches(10, plan, seed=1)


def test_tuning_lowers_the_loss_and_repeats_bit_for_bit(model):
    start = [weight.detach().clone() for weight in trained(model)]
    plan = PLAN.model_copy(update={"epochs": 20.0})
    runs = []
    for _ in range(2):
        with torch.no_grad():
            for weight, value in zip(trained(model), start, strict=True):
                weight.copy_(value)
        losses = tune(model, examples(), plan, seed=0, pad=63)
        runs.append((losses, [weight.detach().clone() for weight in trained(model)]))
    (losses, weights), (again, others) = runs
    assert losses == again
    assert all(torch.equal(one, other) for one, other in zip(weights, others, strict=True))
    assert len(losses) == 40
    assert losses[-1] < 0.7 * losses[0]
