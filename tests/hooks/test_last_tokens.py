"""Block inputs of the last tokens, against an unpadded forward a prompt."""

import numpy as np
import pytest
import torch
from reference.tiny_models import FAMILIES

from actshift.engine.causal import causal_model
from actshift.hooks.lanes.generation import Decoder
from actshift.hooks.reading.first_tokens import last_inputs
from actshift.models.load import load_model


@pytest.mark.parametrize("family", FAMILIES)
def test_block_inputs_are_those_of_each_prompt_alone(family, tiny_checkpoint):
    loaded = load_model(tiny_checkpoint(family), name="m", dtype="float32", device="cpu")
    decoder = Decoder(causal_model(loaded.model), frozenset({1}), pad=1)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(2, 64, size=n) for n in (9, 4, 12, 7, 5)]
    found = last_inputs(decoder, prompts, width=3, batch=2)
    assert found.shape == (3, 3, 5, 32)
    for row, ids in enumerate(prompts):
        with torch.inference_mode():
            states = loaded.model(
                input_ids=torch.from_numpy(ids)[None], output_hidden_states=True
            ).hidden_states
        wanted = np.stack([state[0, -3:].numpy() for state in states[:3]])
        np.testing.assert_allclose(found[:, :, row], wanted, rtol=1e-4, atol=1e-5)
