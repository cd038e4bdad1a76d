"""Final-layer edits by matrix products, against generation with the same edit in a lane."""

import numpy as np
import pytest
import torch

from actshift.edits import Lane, Placed, Steer
from actshift.engine.causal import causal_model
from actshift.engine.first_token import FirstTokenEdits
from actshift.engine.intervene import decoder_of
from actshift.engine.intervene_plan import Asked
from actshift.hooks.lanes import final_edit
from actshift.hooks.lanes.final_edit import (
    biased_first_tokens,
    continue_from,
    final_states,
    first_tokens,
    mean_bias,
)
from actshift.hooks.lanes.generation import Decoder, LaneBatch, generate_lanes
from actshift.models.load import LoadedModel, load_model
from actshift.prompts.records import Prompt

FAMILIES = ("llama", "gemma2", "qwen2", "ministral3")
BUDGET, NEW, LANES, LAYERS = 64, 6, 5, 3
SCALES = np.array([0.0, 0.5, 2.0, 8.0, 30.0])[:, None]


class Book:
    """Distinct answers, each under its number."""

    def __init__(self) -> None:
        self.said: list[tuple[int, tuple[int, ...], bool]] = []

    def add(self, prompt: int, tokens: tuple[int, ...], ended: bool) -> int:
        answer = (prompt, tokens, ended)
        if answer not in self.said:
            self.said.append(answer)
        return self.said.index(answer)


def prompts(n: int = 7) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.integers(6, 24, size=int(rng.integers(2, 12))) for _ in range(n)]


def steered(decoder: Decoder, vectors: np.ndarray) -> LaneBatch:
    lanes = [
        Lane(
            str(number),
            (Placed(Steer(vector, -1.0), LAYERS - 1, positions="last_prompt"),),
        )
        for number, vector in enumerate(vectors)
    ]
    return generate_lanes(decoder, prompts(), lanes, max_new=NEW)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64)
    return (
        wide
        - np.log(np.exp(wide - wide.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - (wide.max(-1, keepdims=True))
    )


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request, tiny_checkpoint) -> LoadedModel:
    found = load_model(tiny_checkpoint(request.param), name=request.param)
    # An end token that answers do meet.
    found.model.generation_config.eos_token_id = [3, *range(25, 40)]
    return found


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((LANES, 32)) * SCALES


@pytest.fixture(scope="module")
def lanes(loaded, vectors) -> LaneBatch:
    return steered(decoder_of(loaded), vectors)


def test_first_tokens_and_divergence_are_those_of_generation(loaded, vectors, lanes):
    causal = causal_model(loaded.model)
    states = final_states(causal, prompts(), token_budget=BUDGET)
    found = first_tokens(causal, states, vectors)
    np.testing.assert_array_equal(found.tokens, lanes.first_logits.argmax(-1))
    logp = log_softmax(lanes.first_logits)
    kl = (np.exp(logp[0]) * (logp[0] - logp)).sum(-1)
    np.testing.assert_allclose(found.kl, kl, rtol=1e-3, atol=1e-5)
    assert found.kl[-1].min() > 0.1
    assert (found.tokens[-1] != found.tokens[0]).any()


def test_answers_are_those_of_steered_generation(loaded, vectors, lanes):
    asked = [
        Asked(Prompt(str(i), "t", "noncode", "a", str(i), "heldout", "test"), ids)
        for i, ids in enumerate(prompts())
    ]
    book = Book()
    places = [4, 0, 6]
    edits = FirstTokenEdits(loaded, asked, max_new=NEW, token_budget=BUDGET)
    tokens = edits.first(vectors, places).tokens
    said = edits.continued(np.broadcast_to(places, tokens.shape).ravel(), tokens.ravel())
    numbers = [book.add(place, one.tokens, one.ended) for place, one in said.answers]
    ids = np.array(numbers)[said.number].reshape(tokens.shape)
    for lane, row in enumerate(ids):
        for place, answer in zip(places, row, strict=True):
            whole = lanes.answers[lane][place]
            assert book.said[answer] == (place, whole.tokens, whole.ended)
    assert len(book.said) < ids.size


def test_a_bias_measured_on_one_prompt_is_the_edit_there(loaded, vectors):
    causal = causal_model(loaded.model)
    states = final_states(causal, prompts(), token_budget=BUDGET)
    edit = first_tokens(causal, states[2:3], vectors)
    bias = biased_first_tokens(causal, states[2:3], mean_bias(causal, states[2:3], vectors))
    np.testing.assert_array_equal(bias.tokens, edit.tokens)
    np.testing.assert_allclose(bias.kl, edit.kl, rtol=1e-3, atol=1e-5)


def test_a_small_bias_is_the_head_of_the_direction_over_the_norm_of_the_state(tiny_checkpoint):
    causal = causal_model(load_model(tiny_checkpoint("llama"), name="llama").model)
    states = final_states(causal, prompts(), token_budget=BUDGET)
    h = states.numpy().astype(np.float64)
    gain, head = (
        part.get_parameter("weight").numpy().astype(np.float64)
        for part in (causal.final_norm, causal.head)
    )
    v = np.random.default_rng(2).standard_normal(32)
    rms = np.sqrt((h**2).mean(1, keepdims=True))
    # The closed form holds where the edit leaves the norm of the state alone.
    v -= np.linalg.lstsq(h, h @ v, rcond=None)[0]
    closed = -((gain * 1e-3 * v) @ head.T) * (1 / rms).mean()
    found = mean_bias(causal, states, 1e-3 * v[None])[0]
    np.testing.assert_allclose(found, closed, rtol=1e-2, atol=2e-5)


def test_chunks_change_nothing(loaded, vectors, monkeypatch):
    causal = causal_model(loaded.model)
    states = final_states(causal, prompts(), token_budget=BUDGET)
    whole = first_tokens(causal, states, vectors), mean_bias(causal, states, vectors)
    for numbers in (64, 3 * 64, 11 * 64):
        monkeypatch.setattr(final_edit, "_LOGITS_CPU", numbers)
        cut = first_tokens(causal, states, vectors), mean_bias(causal, states, vectors)
        np.testing.assert_array_equal(cut[0].tokens, whole[0].tokens)
        np.testing.assert_allclose(cut[0].kl, whole[0].kl, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(cut[1], whole[1], rtol=1e-3, atol=1e-5)


def test_states_do_not_depend_on_the_batch(loaded):
    causal = causal_model(loaded.model)
    together, alone = (final_states(causal, prompts(), token_budget=n) for n in (10**4, 1))
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_an_end_token_first_is_an_empty_answer(loaded):
    decoder = decoder_of(loaded)
    first, alone = continue_from(
        decoder, prompts(), [(0, 3), (1, 7)], max_new=1, token_budget=BUDGET
    )
    assert (first.tokens, first.ended) == ((), True)
    assert (alone.tokens, alone.ended) == ((7,), False)
