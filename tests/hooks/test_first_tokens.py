"""First-token logits part by part: the same numbers as in one pass, and never too many rows."""

import numpy as np
import pytest

from actshift.edits import Ablate, Lane, Placed, Steer
from actshift.engine.causal import causal_model
from actshift.hooks.lanes.generation import Decoder, generate_lanes
from actshift.hooks.reading import first_tokens
from actshift.hooks.reading.first_tokens import first_logits
from actshift.models.load import load_model

LENGTHS = (3, 9, 4, 4, 12, 2, 7)


@pytest.fixture
def decoder(tiny_checkpoint) -> Decoder:
    loaded = load_model(tiny_checkpoint("llama"), name="m", dtype="float32", device="cpu")
    return Decoder(causal_model(loaded.model), frozenset({1}), pad=1)


@pytest.fixture
def prompts() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(2, 64, size=n) for n in LENGTHS]


def make_lanes(count: int) -> list[Lane]:
    rng = np.random.default_rng(1)
    lanes = [Lane("plain")]
    for number in range(1, count):
        basis = np.linalg.qr(rng.standard_normal((32, 1)))[0]
        edit = Ablate(basis) if number % 2 else Steer(3 * basis[:, 0])
        lanes.append(Lane(f"lane {number}", (Placed(edit, number % 3),)))
    return lanes


@pytest.mark.parametrize("budget", [1, 12, 40, 100, 10**6])
def test_parts_are_one_pass_and_never_larger_than_the_budget(
    decoder, prompts, budget, monkeypatch
) -> None:
    lanes = make_lanes(21)
    whole = generate_lanes(decoder, prompts, lanes, max_new=1).first_logits
    passes = []

    def counted(model, asked, some, **options):
        passes.append((len(asked) * len(some), max(map(len, asked))))
        return generate_lanes(model, asked, some, **options)

    monkeypatch.setattr(first_tokens, "generate_lanes", counted)
    found = np.full(whole.shape, np.nan)
    for part in first_logits(decoder, prompts, lanes, token_budget=budget):
        assert np.isnan(found[part.lanes, part.prompts]).all()
        found[part.lanes, part.prompts] = part.logits
    np.testing.assert_allclose(found, whole, rtol=1e-4, atol=1e-4)
    assert all(rows == 1 or rows * longest <= budget for rows, longest in passes)
    if budget == 10**6:
        # A pass of all lanes would hold the logits of all rows.
        assert max(rows for rows, _ in passes) == 16 * len(prompts)
