"""Lanes in company: the plain lane is `generate()`, and company, order and padding change nothing.

Where the two largest logits are closer than `NEAR_TIE` along the way, another batch shape may
rightly choose another token: such rows are named by their margin, and the tests see to it that
they stay few.
"""

from typing import Any

import numpy as np
import pytest
import torch
from reference.tiny_models import FAMILIES

from actshift.edits import Ablate, Lane, Patch, Placed, Steer, everywhere
from actshift.engine.causal import causal_model
from actshift.hooks.lanes.edit import EditState, edited
from actshift.hooks.lanes.generation import Continuation, Decoder, generate_lanes
from actshift.models.load import load_model

NEAR_TIE = 1e-3
MAX_NEW = 10
PAD = 1


@pytest.fixture(params=FAMILIES)
def decoder(request, tiny_checkpoint):
    return open_decoder(tiny_checkpoint(request.param))


def open_decoder(folder: Any, *, dtype: Any = "float32") -> Decoder:
    loaded = load_model(folder, name="m", dtype=dtype, device="cpu")
    # A tied head makes a random model repeat its input whatever its blocks do.
    torch.manual_seed(7)
    loaded.model.lm_head = torch.nn.Linear(32, 64, bias=False, dtype=loaded.dtype)
    # Several tokens end an answer, so that rows leave the batch at different steps.
    eos = frozenset(range(3, 18))
    return Decoder(causal_model(loaded.model), eos, pad=PAD)


def make_prompts(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(2, 64, size=rng.integers(2, 12)) for _ in range(count)]


def make_lanes(layers: int = 3, width: int = 32) -> list[Lane]:
    rng = np.random.default_rng(3)
    bases = [np.linalg.qr(rng.standard_normal((width, 4)))[0] for _ in range(layers)]
    away = tuple(Placed(Ablate(basis), layer) for layer, basis in enumerate(bases))
    vector = 3 * rng.standard_normal(width)
    return [
        Lane("plain"),
        Lane("ablate", away),
        everywhere("write", Ablate(bases[0][:, :1]), n_layers=layers),
        Lane("steer", (Placed(Steer(vector, 0.5), 1, positions="prompt"),)),
        Lane("once", (Placed(Steer(vector), layers - 1, positions="last_prompt"),)),
        Lane("mean", (Placed(Ablate(bases[1], centre=vector), 1),)),
    ]


def same(one: Continuation, other: Continuation) -> bool:
    """Equal, or apart at what either run knows to be a near tie."""
    if min(one.margin, other.margin) < NEAR_TIE:
        return True
    return one.tokens == other.tokens and one.ended == other.ended


def ties(answers: list[list[Continuation]]) -> float:
    flat = [answer for lane in answers for answer in lane]
    return sum(answer.margin < NEAR_TIE for answer in flat) / len(flat)


def test_the_empty_lane_is_plain_generate(decoder):
    prompts = make_prompts(40)
    answers = generate_lanes(decoder, prompts, [Lane("plain")], max_new=MAX_NEW).answers[0]
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), PAD)
    mask = torch.zeros_like(ids)
    for row, one in enumerate(prompts):
        ids[row, longest - len(one) :] = torch.from_numpy(one)
        mask[row, longest - len(one) :] = 1
    out = decoder.model.generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=False,
        max_new_tokens=MAX_NEW,
        eos_token_id=sorted(decoder.eos),
        pad_token_id=PAD,
    )
    lengths = set()
    for row, answer in enumerate(answers):
        said = out[row, longest:].tolist()
        stop = next((i for i, token in enumerate(said) if token in decoder.eos), None)
        assert answer.ended == (stop is not None)
        assert list(answer.tokens) == said[:stop]
        lengths.add(len(answer.tokens))
    assert len(lengths) > 2  # rows did leave the batch at different steps


def test_a_lane_says_the_same_alone_and_in_company(decoder):
    prompts, lanes = make_prompts(8), make_lanes()
    together = generate_lanes(decoder, prompts, lanes, max_new=MAX_NEW)
    assert ties(together.answers) < 0.1
    for index, lane in enumerate(lanes):
        alone = generate_lanes(decoder, prompts, [lane], max_new=MAX_NEW)
        assert all(map(same, alone.answers[0], together.answers[index])), lane.name
        np.testing.assert_allclose(
            alone.first_logits[0], together.first_logits[index], rtol=1e-4, atol=1e-4
        )
    said = {tuple(a.tokens for a in lane) for lane in together.answers}
    assert len(said) > 3  # the edits do something


def test_batch_order_and_padding_change_nothing(decoder):
    prompts, lanes = make_prompts(8), make_lanes()
    plain = generate_lanes(decoder, prompts, lanes, max_new=MAX_NEW).answers
    turned = generate_lanes(decoder, prompts[::-1], lanes[::-1], max_new=MAX_NEW).answers
    long = [*prompts, np.arange(2, 42)]  # one long prompt pads all the others
    padded = generate_lanes(decoder, long, lanes, max_new=MAX_NEW).answers
    for index in range(len(lanes)):
        assert all(map(same, plain[index], turned[-1 - index][::-1]))
        assert all(map(same, plain[index], padded[index][:-1]))


def test_a_patch_of_all_layers_turns_the_receiver_into_the_donor(tiny_checkpoint):
    receiver = open_decoder(tiny_checkpoint("llama"))
    donor = open_decoder(tiny_checkpoint("llama", seed=1))
    # Only the last block matters once it is replaced; head and norm are the receiver's own.
    donor.model.lm_head, donor.model.model.norm = (
        receiver.model.lm_head,
        receiver.model.model.norm,
    )
    prompts = make_prompts(6)
    lanes = [
        Lane("plain"),
        Lane("last", (Placed(Patch(), 2),)),
        Lane("nothing", (Placed(Patch(alpha=0.0), 2),)),
        Lane("whole", (Placed(Patch(basis=np.eye(32)), 2),)),
    ]
    found = generate_lanes(receiver, prompts, lanes, max_new=MAX_NEW, donor=donor).answers
    wanted = generate_lanes(donor, prompts, [Lane("plain")], max_new=MAX_NEW).answers[0]
    assert all(map(same, found[1], wanted))
    assert all(map(same, found[3], wanted))
    assert all(map(same, found[2], found[0]))
    assert [a.tokens for a in found[1]] != [a.tokens for a in found[0]]


def test_a_patch_without_a_donor_is_refused(tiny_checkpoint):
    decoder = open_decoder(tiny_checkpoint("llama"))
    lane = Lane("p", (Placed(Patch(), 0),))
    with pytest.raises(ValueError, match="lane p patches from a donor"):
        generate_lanes(decoder, make_prompts(2), [lane], max_new=2)


def test_bf16_runs_and_keeps_its_dtype(tiny_checkpoint):
    decoder = open_decoder(tiny_checkpoint("qwen2"), dtype="bfloat16")
    batch = generate_lanes(decoder, make_prompts(3), make_lanes(), max_new=4)
    assert decoder.dtype == torch.bfloat16
    assert batch.first_logits.dtype == np.float32
    assert np.isfinite(batch.first_logits).all()


def test_no_hook_outlives_the_call(tiny_checkpoint):
    decoder = open_decoder(tiny_checkpoint("gemma2"))
    generate_lanes(decoder, make_prompts(2), make_lanes(), max_new=2)
    modules = list(decoder.model.modules())
    assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules) == 0


def test_ablated_everywhere_leaves_nothing_along_the_direction(decoder):
    direction = np.linalg.qr(np.random.default_rng(5).standard_normal((32, 1)))[0]
    lane = everywhere("r", Ablate(direction), n_layers=3)
    seen: list[torch.Tensor] = []
    prompt = torch.from_numpy(make_prompts(1)[0])[None]
    state = EditState([(0, 1)])
    with torch.inference_mode(), edited(decoder.sites, [lane], state, dtype=decoder.dtype):
        handles = [
            block.register_forward_hook(
                lambda _m, _a, out: seen.append(out[0] if isinstance(out, tuple) else out)
            )
            for block in decoder.sites["resid_post"]
        ]
        decoder.model(input_ids=prompt)
    for handle in handles:
        handle.remove()
    assert len(seen) == 3
    for hidden in seen:
        rest = hidden.double().numpy().reshape(-1, 32) @ direction
        assert np.abs(rest).max() < 1e-4 * float(hidden.abs().max())
