"""The abliterated checkpoint: ordinary, of the model's own dtype, and equal to the hook lane."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from reference.tiny_models import seal_checkpoint, word_tokenizer
from safetensors.numpy import save_file
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from actshift.edits import Ablate, Lane, everywhere
from actshift.engine.intervene import decoder_of
from actshift.errors import UserError
from actshift.hooks.lanes.generation import generate_lanes
from actshift.io.manifest import check_manifest, read_manifest
from actshift.io.tables import write_table
from actshift.models.load import load_model
from actshift.stages.checkpoint import make_checkpoint
from actshift.stages.edited import abliterate
from actshift.studies.refusal_direction.stage import ARRAYS, TABLE

WIDTH = 32
PROMPTS = [np.array([2, 3, 6 + i, 9, 8 + i, 12 + i % 5, 4, 5]) for i in range(8)]


@pytest.fixture
def direction(tmp_path: Path) -> Path:
    """A folder as rule refusal_direction leaves it, with a long difference of means."""
    folder = tmp_path / "direction"
    folder.mkdir()
    vector = 7 * np.random.default_rng(3).standard_normal(WIDTH)
    save_file({"direction": vector, "candidates": np.zeros((3, 2, WIDTH))}, folder / ARRAYS)
    rows = [
        {"layer": 0, "position": -1, "chosen": False, "verdict": None},
        {"layer": 2, "position": -2, "chosen": True, "verdict": "none passes"},
    ]
    write_table(pd.DataFrame(rows), folder / TABLE)
    return folder


def run(checkpoint: Path, direction: Path, out: Path) -> Path:
    abliterate(pair="p", checkpoint=checkpoint, direction=direction, out=out)
    return out


def unit() -> np.ndarray:
    vector = np.random.default_rng(3).standard_normal(WIDTH)
    return (vector / np.linalg.norm(vector))[:, None]


def answers(folder: Path, lane: Lane):
    loaded = load_model(folder, name="m", dtype="float32", device="cpu")
    loaded.model.generation_config.eos_token_id = 1
    batch = generate_lanes(decoder_of(loaded), PROMPTS, [lane], max_new=12)
    return [answer.tokens for answer in batch.answers[0]], batch.first_logits[0]


@pytest.mark.parametrize("family", ["llama", "qwen2", "ministral3"])
def test_answers_are_those_of_the_hook_lane(tiny_checkpoint, direction, tmp_path, family):
    checkpoint = tiny_checkpoint(family)
    out = run(checkpoint, direction, tmp_path / "out")
    cut = everywhere("ablate", Ablate(unit()), n_layers=3)
    by_weights, weight_logits = answers(out, Lane("plain"))
    by_hooks, hook_logits = answers(checkpoint, cut)
    plain, plain_logits = answers(checkpoint, Lane("plain"))
    np.testing.assert_allclose(weight_logits, hook_logits, rtol=1e-3, atol=1e-4)
    assert np.abs(hook_logits - plain_logits).max() > 0.05
    assert by_weights == by_hooks
    assert by_weights != plain


def test_gemma_is_nearly_the_hook_lane(tiny_checkpoint, direction, tmp_path):
    """A norm stands between its matrices and the stream, so only the direction is exact."""
    checkpoint = tiny_checkpoint("gemma2")
    out = run(checkpoint, direction, tmp_path / "out")
    _, weights = answers(out, Lane("plain"))
    _, hooks = answers(checkpoint, everywhere("ablate", Ablate(unit()), n_layers=3))
    _, plain = answers(checkpoint, Lane("plain"))
    assert np.linalg.norm(weights - hooks) < 0.5 * np.linalg.norm(hooks - plain)


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen2", "ministral3", "gpt2"])
def test_the_folder_loads_with_the_library_alone(tiny_checkpoint, direction, tmp_path, family):
    out = run(tiny_checkpoint(family), direction, tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(out)
    stream = torch.cat(
        model(torch.arange(2, 18)[None], output_hidden_states=True).hidden_states[:-1]
    )
    along = stream @ torch.from_numpy(unit()).float()
    assert float(along.detach().abs().max()) < 1e-4 * float(stream.detach().abs().max())
    assert check_manifest(out, deep=True) == []
    facts = read_manifest(out)["facts"]
    assert (facts["layer"], facts["position"], facts["verdict"]) == (2, -2, "none passes")
    assert word_tokenizer().chat_template == (out / "chat_template.jinja").read_text()


def test_the_dtype_of_the_checkpoint_is_kept(own_checkpoint, direction, tmp_path):
    folder = own_checkpoint("llama")
    model = AutoModelForCausalLM.from_pretrained(folder).to(torch.bfloat16)
    model.save_pretrained(folder)
    out = run(seal_checkpoint(folder), direction, tmp_path / "out")
    before, after = (load_file(f / "model.safetensors") for f in (folder, out))
    assert {value.dtype for value in after.values()} == {torch.bfloat16}
    assert {k: v.shape for k, v in before.items()} == {k: v.shape for k, v in after.items()}
    written = after["model.layers.1.mlp.down_proj.weight"].double()
    basis = torch.from_numpy(unit())
    share = float((basis.T @ written).norm() / written.norm())
    assert share < 4e-3 < float((basis.T @ before["lm_head.weight"].double().T).norm())


def test_equal_runs_give_equal_bytes(tiny_checkpoint, direction, tmp_path):
    one, two = (run(tiny_checkpoint("gemma2"), direction, tmp_path / name) for name in "ab")
    assert read_manifest(one) == read_manifest(two)


def test_it_becomes_a_checkpoint_of_the_run(tiny_checkpoint, direction, tmp_path):
    made = run(tiny_checkpoint("llama"), direction, tmp_path / "made")
    facts = make_checkpoint(
        "abliterated",
        model="p.abliterated",
        out=tmp_path / "p.abliterated",
        made=made,
        dtype="float32",
        stamps=tmp_path / "stamps",
    )
    assert facts["source"] == "abliterated"
    assert facts["template_hash"]
    load_model(tmp_path / "p.abliterated", name="p.abliterated")


def test_a_direction_of_another_width_is_refused(tiny_checkpoint, direction, tmp_path):
    save_file({"direction": np.ones(16)}, direction / ARRAYS)
    with pytest.raises(UserError, match=r"has 16 coordinates and p\.tuned is 32 wide"):
        run(tiny_checkpoint("llama"), direction, tmp_path / "out")
    assert not (tmp_path / "out").exists()
