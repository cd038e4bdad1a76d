"""The intervene stage: rows, batches, resume after a kill, and faults."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference.processes import kill_between_parts

from actshift.edits import Ablate, Lane, Placed, Steer
from actshift.engine.intervene import intervene
from actshift.engine.intervene_plan import Asked, InterveneSettings, Labels, plan_batches
from actshift.errors import UserError
from actshift.models.load import load_model
from actshift.prompts.records import read_prompts

SETTINGS = InterveneSettings(
    max_new=6, token_budget=200, prompts_a_batch=4, refusal_phrases=("bake",), refusal_tokens=(5, 6)
)
LABELS = Labels("run", "pair", "pair.tuned")


def lanes() -> list[Lane]:
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((32, 2)))[0]
    steer = Steer(4 * rng.standard_normal(32))
    return [
        Lane("plain"),
        Lane("ablate", tuple(Placed(Ablate(basis), layer) for layer in range(3))),
        Lane("random", (Placed(steer, 1),), draw=3),
    ]


def asked(folder: Path, prompts: Path) -> list[Asked]:
    loaded = load_model(folder, name="m", dtype="float32", device="cpu")
    rows = read_prompts(prompts)
    return [Asked(p, np.array(loaded.tokenizer(p.text)["input_ids"])) for p in rows]


def model(folder: Path) -> Any:
    loaded = load_model(folder, name="m", dtype="float32", device="cpu")
    assert loaded.model.generation_config is not None
    loaded.model.generation_config.eos_token_id = [7, 9]
    return loaded


def run(folder: Path, prompts: Path, root: Path, **options: Any) -> Path:
    out = root / "rows.parquet"
    intervene(
        model(folder),
        options.get("asked") or asked(folder, prompts),
        options.get("lanes") or lanes(),
        labels=LABELS,
        settings=options.get("settings", SETTINGS),
        staging=root / "staging",
        out=out,
        identity={"weights": "w"},
    )
    return out


def test_one_row_a_prompt_and_lane(tiny_checkpoint, make_prompts, tmp_path):
    folder, prompts = tiny_checkpoint("llama"), make_prompts(10)
    table = pq.read_table(run(folder, prompts, tmp_path)).to_pandas()
    assert len(table) == 30
    assert not table.duplicated(["prompt_id", "lane"]).any()
    assert set(table["prompt_id"]) == {p.id for p in read_prompts(prompts)}
    assert table["draw"].dropna().unique().tolist() == [3]
    plain = table[table["lane"] == "plain"]
    assert plain["kl_first"].max() < 1e-9
    assert table[table["lane"] != "plain"]["kl_first"].min() > 1e-6
    assert (table["refused"] == table["text"].str.contains("bake")).all()
    assert np.isfinite(table["refusal_log_odds"]).all()
    assert (table.loc[~table["ended"], "n_tokens"] == SETTINGS.max_new).all()
    assert not list((tmp_path / "staging").glob("*/*"))


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=30),
    st.integers(1, 40),
    st.integers(1, 400),
    st.integers(1, 9),
)
def test_batches_hold_every_row_once_and_keep_to_the_budget(lengths, count, budget, most):
    settings = InterveneSettings(max_new=5, token_budget=budget, prompts_a_batch=most)
    batches = plan_batches(lengths, count, settings)
    rows = [(p, lane) for batch in batches for p in batch.prompts for lane in batch.lanes]
    assert sorted(rows) == [(p, lane) for p in range(len(lengths)) for lane in range(count)]
    for batch in batches:
        size = len(batch.prompts) * (max(lengths[p] for p in batch.prompts) + 5)
        assert len(batch.prompts) <= most
        assert size * len(batch.lanes) <= budget or len(batch.lanes) == 1
        assert size <= budget or len(batch.prompts) == 1


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tiny_checkpoint, make_prompts, tmp_path):
    folder, prompts = tiny_checkpoint("qwen2"), make_prompts(12)
    whole = run(folder, prompts, tmp_path / "whole").read_bytes()
    root = tmp_path / "killed"
    kill_between_parts(
        lambda: len(list(root.glob("staging/*/*.parquet"))) >= 2,
        "stages.test_intervene",
        folder,
        prompts,
        root,
        pause=0.4,
    )
    left = {path: path.stat().st_mtime_ns for path in root.glob("staging/*/*.parquet")}
    assert left
    assert not (root / "rows.parquet").exists()
    (next(iter(left)).parent / "00001.parquet.partial").write_bytes(b"half")
    assert run(folder, prompts, root).read_bytes() == whole


@pytest.mark.parametrize(
    ("error", "expected", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), UserError, "lower the token budget"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), UserError, "out of memory"),
        (RuntimeError("shapes differ"), RuntimeError, "shapes differ"),
    ],
)
def test_memory_that_ran_out_is_told_and_nothing_else_is_taken_for_it(
    error, expected, words, tiny_checkpoint, make_prompts, tmp_path, monkeypatch
):
    def fail(*_args: Any, **_options: Any) -> None:
        raise error

    monkeypatch.setattr("actshift.engine.intervene.generate_lanes", fail)
    with pytest.raises(expected, match=words):
        run(tiny_checkpoint("llama"), make_prompts(3), tmp_path)


def test_a_damaged_part_is_made_again(tiny_checkpoint, make_prompts, tmp_path, monkeypatch):
    folder, prompts = tiny_checkpoint("llama"), make_prompts(8)
    import actshift.engine.intervene as stage

    whole = run(folder, prompts, tmp_path / "whole").read_bytes()
    # Keep the parts of a first run, flip a byte in one, run again.
    monkeypatch.setattr(stage, "remove", lambda _: None)
    out = run(folder, prompts, tmp_path / "again")
    part = sorted(tmp_path.glob("again/staging/*/*.parquet"))[0]
    data = bytearray(part.read_bytes())
    data[len(data) // 3] ^= 0xFF
    part.write_bytes(bytes(data))
    out.unlink()
    assert run(folder, prompts, tmp_path / "again").read_bytes() == whole


def test_other_lanes_do_not_take_up_old_parts(tiny_checkpoint, make_prompts, tmp_path):
    folder, prompts = tiny_checkpoint("llama"), make_prompts(6)
    first = pq.read_table(run(folder, prompts, tmp_path)).to_pandas()
    weak = [Lane("plain"), Lane("ablate"), lanes()[2]]
    second = pq.read_table(run(folder, prompts, tmp_path, lanes=weak)).to_pandas()
    said = second.set_index(["lane", "prompt_id"])["text"]
    assert said["ablate"].sort_index().tolist() == said["plain"].sort_index().tolist()
    assert first.shape == second.shape


def test_names_must_differ(tiny_checkpoint, make_prompts, tmp_path):
    folder, prompts = tiny_checkpoint("llama"), make_prompts(3)
    with pytest.raises(UserError, match="two lanes are called 'plain'"):
        run(folder, prompts, tmp_path, lanes=[Lane("plain"), Lane("plain")])
    rows = asked(folder, prompts)
    with pytest.raises(UserError, match="two prompts are called"):
        run(folder, prompts, tmp_path, asked=[*rows, rows[0]])


def test_a_model_that_never_ends_is_refused(tiny_checkpoint, make_prompts, tmp_path):
    folder, prompts = tiny_checkpoint("llama"), make_prompts(3)
    endless = load_model(folder, name="m", dtype="float32", device="cpu")
    assert endless.model.generation_config is not None
    endless.model.generation_config.eos_token_id = None
    endless.tokenizer.chat_template = None
    with pytest.raises(UserError, match="names no eos_token_id"):
        intervene(
            endless,
            asked(folder, prompts),
            lanes(),
            labels=LABELS,
            settings=SETTINGS,
            staging=tmp_path / "s",
            out=tmp_path / "o.parquet",
            identity={},
        )
