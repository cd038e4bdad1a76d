import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from reference.forward import hidden_states
from reference.processes import modules_after
from reference.tiny_models import FAMILIES, seal_checkpoint, word_tokenizer

from actshift.engine.extract import ExtractSettings, extract, plan_job
from actshift.errors import StoreError, UserError
from actshift.io import layout as layout_module
from actshift.io.store import ActivationStore, verify_store
from actshift.models.load import load_model
from actshift.prompts.records import read_prompts
from actshift.prompts.templates import encode

SETTINGS = ExtractSettings(token_budget=48, max_tokens=40, device="cpu")


def run(stream, tmp_path, siblings=(), settings=SETTINGS) -> ActivationStore:
    extract(stream, siblings, cache=tmp_path / "cache", settings=settings, code="c0")
    return ActivationStore.open(stream.out)


@pytest.fixture
def small_windows(monkeypatch):
    """Cut windows of 4 prompts, so that a dozen prompts cross their borders."""
    monkeypatch.setattr(layout_module, "WINDOW_PROMPTS", 4)
    monkeypatch.setattr(layout_module, "CHUNK_BYTES", 256)


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("template", ["raw", "chat"])
@pytest.mark.parametrize("family", FAMILIES)
def test_store_equals_a_hook_free_forward(family, template, make_stream, tmp_path):
    stream = make_stream(family, template=template, positions="last_8")
    store = run(stream, tmp_path)
    loaded = load_model(stream.checkpoint, name="m", device="cpu")
    final = np.asarray(store.array("final_norm"))
    texts = {prompt.id: prompt.text for prompt in read_prompts(stream.prompts)}
    for row, name in enumerate(store.prompt_ids):
        ids = encode(loaded.tokenizer, texts[name], template=template).ids
        resid, norm = hidden_states(loaded.model, list(ids))
        k = min(8, len(ids))
        got = np.stack(
            [store.read_window(layer, range(-k, 0), [name])[0][:, 0] for layer in (0, 1, 2)]
        )
        np.testing.assert_allclose(got, resid[:, -k:], rtol=1e-4, atol=2e-5)
        np.testing.assert_allclose(final[-k:, row], norm[-k:], rtol=1e-4, atol=2e-5)
        assert tuple(store.token_id[-k:, row]) == ids[-k:]
        assert store.n_tokens[row] == len(ids)
        assert store.valid[:, row].sum() == k


@pytest.mark.parametrize("budget", [1, 30, 1000])
def test_batches_do_not_change_activations(budget, make_stream, tmp_path):
    one = run(make_stream(out=tmp_path / "a"), tmp_path)
    settings = dataclasses.replace(SETTINGS, token_budget=budget)
    other = run(make_stream(out=tmp_path / "b"), tmp_path, settings=settings)
    assert one.attrs["n_batches"] != other.attrs["n_batches"]
    np.testing.assert_allclose(one.read(2), other.read(2), rtol=1e-4, atol=2e-5)


def test_prompt_order_is_length_then_id_for_every_model_and_template(make_stream, tmp_path):
    stores = [
        run(make_stream(family, template=template), tmp_path)
        for family, template in [("llama", "raw"), ("llama", "chat"), ("gpt2", "raw")]
    ]
    prompts = read_prompts(make_stream().prompts)
    expected = sorted(prompts, key=lambda p: (len(p.text.encode()), p.id))
    assert all(store.prompt_ids == [p.id for p in expected] for store in stores)


def test_rows_are_returned_in_the_order_asked_for(make_stream, tmp_path):
    store = run(make_stream(), tmp_path)
    names = store.prompt_ids[::-2]
    np.testing.assert_array_equal(store.read(1, prompt_ids=names), store.read(1)[::-2])


def test_opens_in_xarray_with_names_and_coordinates_and_no_warning(make_stream, tmp_path):
    store = run(make_stream(positions="last_8"), tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = xr.open_zarr(store.folder / "acts.zarr")
        assert data.resid_post.dims == ("layer", "position", "prompt", "d_model")
        assert {"layer", "position", "prompt_id", "n_tokens"} <= set(data.resid_post.coords)
        named = data.resid_post.set_index(prompt="prompt_id")
        row = named.sel(layer=1, position=-1, prompt="p003").values
    np.testing.assert_array_equal(row, store.read(1, prompt_ids=["p003"])[0])
    assert data.attrs["weights_hash"] == store.attrs["weights_hash"]


def test_absent_positions_are_masked_and_refused(make_stream, tmp_path):
    store = run(make_stream(positions="last_8"), tmp_path)
    short = store.prompt_ids[0]
    values, valid = store.read_window(0, store.positions.tolist())
    assert not valid.all()
    assert np.isnan(values[~valid]).all()
    assert np.isfinite(values[valid]).all()
    with pytest.raises(StoreError, match=f"'{short}' has no position -8"):
        store.read(0, -8)


def test_special_and_template_tokens_are_marked(make_stream, tmp_path):
    store = run(make_stream(template="chat", positions="post_instruction"), tmp_path)
    assert store.positions.tolist() == [-2, -1]
    assert store.is_special.all()


def test_bf16_is_widened_exactly(make_stream, tmp_path):
    settings = dataclasses.replace(SETTINGS, dtype="bfloat16")
    values = torch.from_numpy(run(make_stream(), tmp_path, settings=settings).read(2))
    assert torch.equal(values.bfloat16().float(), values)


def test_one_load_serves_siblings_and_their_jobs_only_publish(
    make_stream, make_prompts, tmp_path, monkeypatch
):
    mine = make_stream()
    other = make_stream(prompt_set="harmless", prompts=make_prompts(9, "harmless", 3))
    missing = make_stream(prompt_set="later", prompts=tmp_path / "none.jsonl")
    run(mine, tmp_path, siblings=[mine, other, missing])
    assert not other.out.exists()
    monkeypatch.setattr("actshift.models.load.load_model", None)
    monkeypatch.setattr("actshift.engine.extract_stream.load_model", None)
    assert len(run(other, tmp_path).prompt_ids) == 9


def test_share_false_leaves_siblings_alone(make_stream, make_prompts, tmp_path):
    other = make_stream(prompt_set="harmless", prompts=make_prompts(9, "harmless", 3))
    settings = dataclasses.replace(SETTINGS, share=False)
    run(make_stream(), tmp_path, siblings=[other], settings=settings)
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 1


def test_a_bad_sibling_is_left_to_its_own_job(make_stream, make_prompts, tmp_path, capsys):
    bad = make_prompts(3, "bad")
    bad.write_text("{not json\n")
    run(make_stream(), tmp_path, siblings=[make_stream(prompt_set="bad", prompts=bad)])
    assert "left to its own job" in capsys.readouterr().err


def test_a_publishing_job_starts_no_torch(make_stream, tmp_path):
    stream = make_stream()
    run(stream, tmp_path)
    script = (
        "import sys, pickle, pathlib\n"
        "stream, settings = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
        "from actshift.engine.extract import extract\n"
        "extract(stream, cache=pathlib.Path(sys.argv[2]), settings=settings, code='c0')\n"
    )
    import pickle

    blob = pickle.dumps((stream, SETTINGS)).hex()
    loaded = modules_after(script, blob, str(tmp_path / "cache"))
    assert "actshift.engine.extract" in loaded
    assert not {"torch", "transformers"} & loaded


def test_key_follows_what_decides_bytes_and_nothing_else(make_stream, make_prompts):
    stream = make_stream()
    key = plan_job(stream, SETTINGS, code="c0").key
    same = dataclasses.replace(SETTINGS, device="auto", share=False, max_tokens=99)
    renamed = dataclasses.replace(stream, model="other.tuned", prompt_set="x", out=Path("y"))
    assert plan_job(renamed, same, code="c0").key == key
    changed = [
        plan_job(stream, SETTINGS, code="c1"),
        plan_job(stream, dataclasses.replace(SETTINGS, token_budget=47), code="c0"),
        plan_job(dataclasses.replace(stream, positions="last_8"), SETTINGS, code="c0"),
        plan_job(make_stream("qwen2"), SETTINGS, code="c0"),
        plan_job(make_stream(template="chat"), SETTINGS, code="c0"),
        plan_job(make_stream(prompts=make_prompts(5)), SETTINGS, code="c0"),
    ]
    assert len({key, *(job.key for job in changed)}) == 7


def test_republishing_gives_the_same_files(make_stream, tmp_path):
    stream = make_stream()
    first = run(stream, tmp_path).manifest
    (stream.out / ".snakemake_timestamp").touch()
    assert verify_store(stream.out) == []
    assert run(stream, tmp_path).manifest == first


def test_a_template_less_tuned_tokenizer_is_refused(make_stream, tiny_checkpoint, tmp_path):
    bare = tiny_checkpoint("llama", template=None)
    stream = make_stream(template="chat", template_from=bare)
    with pytest.raises(UserError, match="no chat template"):
        run(stream, tmp_path)


def test_the_tuned_template_is_given_to_a_template_less_base(
    make_stream, tiny_checkpoint, tmp_path
):
    bare = tiny_checkpoint("llama", template=None)
    own = run(make_stream(template="chat", out=tmp_path / "a"), tmp_path)
    given = make_stream(
        checkpoint=bare, template="chat", template_from=tiny_checkpoint("llama"), out=tmp_path / "b"
    )
    np.testing.assert_array_equal(run(given, tmp_path).read(2), own.read(2))


def test_a_template_whose_marks_the_model_lacks_is_refused(make_stream, own_checkpoint, tmp_path):
    tuned = own_checkpoint()
    tokenizer = word_tokenizer("{% for m in messages %}<new> {{ m['content'] }}{% endfor %} now")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<new>"]})
    tokenizer.save_pretrained(tuned)
    seal_checkpoint(tuned)
    with pytest.raises(UserError, match="no token '<new>'"):
        run(make_stream(template="chat", template_from=tuned), tmp_path)


def test_a_long_prompt_is_refused_by_its_id(make_stream, tmp_path):
    settings = dataclasses.replace(SETTINGS, max_tokens=5)
    with pytest.raises(UserError, match=r"prompt 'p\d+' has \d+ tokens, allowed are 5"):
        run(make_stream(), tmp_path, settings=settings)
