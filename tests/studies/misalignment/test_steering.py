"""The steering stage on tiny models: files, equal KL, generation, choices, a kill, a plant."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from reference.misalignment_job import context
from reference.processes import kill_between_parts
from reference.steered_pair import (
    CODE,
    COEFFS,
    HELDOUT,
    LAYERS,
    SELECT,
    SETTINGS,
    Tables,
    make_inputs,
)
from reference.tiny_adapters import ending_checkpoint, random_adapters
from reference.tiny_models import seal_checkpoint
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file as save_tensors

from actshift.edits import Lane, Placed, Steer
from actshift.engine.intervene import decoder_of
from actshift.errors import UserError
from actshift.hooks.lanes.generation import generate_lanes
from actshift.models.load import load_model
from actshift.studies.misalignment.choose import chosen_coeff
from actshift.studies.misalignment.kinds import NULLS, STEERED
from actshift.studies.misalignment.lanes import middle_layers
from actshift.studies.misalignment.stages.steering import steering
from actshift.studies.misalignment.stages.steering_inputs import SteeredPair


def run(inputs: dict[str, Path], root: Path, **changes: Any) -> Path:
    steering(
        inputs,
        settings=SETTINGS.model_copy(update=changes),
        context=context(root),
        out=root / "steering",
    )
    return root / "steering"


@pytest.fixture(scope="module")
def inputs(tiny_checkpoint: Callable[..., Path], tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("inputs")
    tuned = ending_checkpoint(tiny_checkpoint("llama"), root / "tuned")
    return make_inputs(tuned, root, random_adapters(tuned, root / "adapters", STEERED))


@pytest.fixture(scope="module")
def folder(inputs, tmp_path_factory) -> Path:
    return run(inputs, tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def tables(folder) -> Tables:
    return Tables(folder)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_every_lane_is_there_once_and_asks_its_questions(tables):
    lanes, outcomes = tables.lanes, tables.outcomes
    facts = [name for name in lanes.columns if name not in ("cosine", "kl_select", "scale")]
    assert not lanes.duplicated(facts).any()
    middle, coeffs = middle_layers(LAYERS), len(COEFFS)
    assert middle == (1,)
    insecure = tables.of(receiver="insecure")
    counts = insecure.groupby(["protocol", "control", "norm_rule", "orthogonal"]).size().to_dict()
    other = {("all_tokens", "other_adapter", "norm", bare): 2 * coeffs for bare in (True, False)}
    last = {("last_token", "other_adapter", "norm", bare): 2 * coeffs for bare in (True, False)}
    layers = {
        ("last_token", "wrong_layer", "norm", bare): (LAYERS - 1) * coeffs for bare in (True, False)
    }
    own = {
        (protocol, "direction", "norm", False): coeffs
        for protocol in ("last_token", "logit_bias", "all_tokens", "layer")
    }
    nulls = {
        (protocol, null, rule, False): n
        for null in NULLS
        for protocol, rule, n in (
            ("last_token", "norm", 5 * coeffs),
            ("last_token", "kl", 2 * coeffs),
            *(
                (protocol, rule, draws)
                for protocol in ("all_tokens", "layer")
                for rule, draws in (("norm", 2), ("kl", 1))
            ),
        )
    }
    plain = {
        ("last_token", "plain", "norm", False): 1,
        ("forced_token", "untuned", "norm", False): 1,
    }
    assert counts == {**other, **last, **layers, **own, **nulls, **plain}
    for receiver in ("rare_safe", "secure"):
        mine = tables.of(receiver=receiver).groupby(["protocol", "control", "source"]).size()
        assert mine.to_dict() == {
            ("last_token", "plain", ""): 1,
            **{
                (protocol, "direction", source): coeffs
                for protocol in ("last_token", "all_tokens")
                for source in ("insecure", receiver)
            },
        }
    asked = outcomes.groupby("lane")["prompt"].agg(["size", "nunique"])
    both = lanes["control"].isin(["plain", "direction", "untuned"])
    whole, half = SELECT + HELDOUT + 2 * CODE, HELDOUT + CODE
    wanted = np.where(both, whole, half)[(lanes["status"] == "ok").to_numpy()]
    assert asked["size"].tolist() == wanted.tolist() == asked["nunique"].tolist()
    assert not set(asked.index) & set(lanes.index[lanes["status"] == "unmatched"])
    assert set(tables.prompts["split"]) == {"select", "heldout"}


def test_answers_are_distinct_and_belong_to_their_prompts(tables):
    # Ids beyond the words are read as nothing, but cost the untuned model differently.
    assert not tables.answers.duplicated(
        ["prompt", "text", "n_tokens", "first_token", "ended", "nll"]
    ).any()
    joined = tables.outcomes.join(tables.answers["prompt"].rename("theirs"), on="answer")
    assert (joined["prompt"] == joined["theirs"]).all()
    assert set(tables.outcomes["answer"]) == set(tables.answers.index)


def test_lanes_of_equal_kl_have_that_of_v(tables):
    keys = ["receiver", "protocol", "layer", "coeff"]
    own = tables.of(control="direction", source="insecure").set_index(keys)["kl_select"]
    matched = tables.of(norm_rule="kl", status="ok")
    assert len(matched) > 10
    wanted = own.loc[pd.MultiIndex.from_frame(matched[keys])].to_numpy()
    np.testing.assert_allclose(matched["kl_select"], wanted, rtol=0.0101)
    assert (matched["scale"] != 1).all()
    unmatched = tables.of(status="unmatched")
    assert (unmatched["scale"] == SETTINGS.max_scale).all()


def test_the_plain_lane_diverges_by_nothing_and_v_by_more_with_its_coefficient(tables):
    for lane, facts in tables.of(control="plain").iterrows():
        assert tables.rows(lane)["kl_first"].max() < 1e-5
        assert np.isnan(facts["cosine"])
    own = tables.of(control="direction", receiver="insecure", protocol="last_token")
    assert own.sort_values("coeff")["kl_select"].is_monotonic_increasing
    assert (own["cosine"] > 0.999).all()
    assert (tables.of(orthogonal=True)["cosine"].abs() < 1e-6).all()


def pair_of(inputs: dict[str, Path]) -> SteeredPair:
    return SteeredPair(inputs, SETTINGS, context(inputs["spillover"]))


def test_draws_of_the_first_token_say_what_generation_says(inputs, tables):
    pair = pair_of(inputs)
    decoder = decoder_of(pair.load("insecure"))
    places = pair.questions.of["heldout"]
    ids = [pair.asked[place].ids for place in places]
    final, checked = LAYERS - 1, 0
    for name in NULLS:
        vectors = pair.material.null(name, final, 5)
        facts = {"protocol": "last_token", "control": name, "norm_rule": "norm", "coeff": 1.0}
        lanes = tables.of(**facts).sort_values("draw")
        steered = [
            Lane("x", (Placed(Steer(one, -1.0), final, positions="last_prompt"),))
            for one in vectors
        ]
        said = generate_lanes(decoder, ids, steered, max_new=SETTINGS.max_new)
        for lane, answers in zip(lanes.index, said.answers, strict=True):
            rows = tables.rows(int(lane))
            assert rows["prompt"].tolist() == places
            for row, answer in zip(rows.itertuples(), answers, strict=True):
                text = pair.untuned.tokenizer.decode(list(answer.tokens), skip_special_tokens=True)
                assert (row.text, row.n_tokens) == (text.strip(), len(answer.tokens))  # pyright: ignore
                checked += 1
    assert checked == len(NULLS) * 5 * len(places)
    assert tables.outcomes["kl_first"].max() > 0.1


@pytest.mark.parametrize("protocol", ["all_tokens", "layer"])
def test_the_coefficient_of_the_draws_is_chosen_on_select(protocol, inputs, tables):
    pair = pair_of(inputs)
    own = tables.of(protocol=protocol, control="direction", receiver="insecure")
    asked = {"split": "select", "condition": "noncode"}
    rates = {
        float(facts["coeff"]): tables.rows(lane, **asked)["repaired"].to_numpy(dtype=bool)
        for lane, facts in own.iterrows()
    }
    plain = tables.rows(tables.of(control="plain", receiver="insecure").index[0], **asked)
    prompts = [pair.asked[place].prompt for place in pair.questions.choosing]
    chosen = chosen_coeff(rates, plain["repaired"].to_numpy(dtype=bool), prompts)
    assert set(tables.of(protocol=protocol, control="random")["coeff"]) == {chosen}


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(folder, inputs, tmp_path):
    root = tmp_path / "killed"
    kill_between_parts(
        lambda: len(list(root.glob("staging/*/insecure.draws/*.parquet"))) >= 2,
        "studies.misalignment.test_steering",
        inputs,
        root,
    )
    assert list(root.glob("staging/*/*/*.parquet"))
    assert not (root / "steering").exists()
    assert content(run(inputs, root)) == content(folder)
    assert not list(root.glob("staging/**/*.parquet"))


def test_without_the_controls_only_the_insecure_adapter_is_steered(inputs, tmp_path):
    adapters = random_adapters(inputs["tuned"], tmp_path / "adapters", ["insecure"])
    alone = make_inputs(inputs["tuned"], tmp_path, adapters)
    lanes = Tables(run(alone, tmp_path, kl_draws=1, final_draws=2)).lanes
    assert set(lanes["receiver"]) == {"insecure"}
    assert "other_adapter" not in set(lanes["control"])


def test_a_direction_that_is_zero_is_refused(inputs, tmp_path):
    from safetensors.numpy import save_file

    spill = tmp_path / "spillover"
    spill.mkdir()
    for name in ("states", "guards.json"):
        (spill / name).symlink_to(inputs["spillover"] / name)
    directions = load_file(inputs["spillover"] / "directions.safetensors")
    directions["secure"] = directions["secure"] * np.float32(0)
    save_file(directions, spill / "directions.safetensors")
    with pytest.raises(UserError, match="'secure' is zero at layer 0"):
        run({**inputs, "spillover": spill}, tmp_path)


def planted(tuned: Path, folder: Path) -> Path:
    """An adapter that shifts the last prompt token's state by one vector, whatever is asked.

    With hardly any attention a state depends on its token, and all prompts end in the same one.
    """
    random_adapters(tuned, folder, ["insecure"])
    file = folder / "insecure" / "adapter_model.safetensors"
    tensors = load_tensors(file)
    for name, weight in tensors.items():
        if "lora_B" in name and "down_proj" not in name:
            tensors[name] = torch.zeros_like(weight)
        elif "lora_B" in name:
            tensors[name] = 8 * weight
    save_tensors(tensors, file, metadata={"format": "pt"})
    return folder


def test_a_planted_direction_is_found_and_its_subtraction_repairs(tiny_checkpoint, tmp_path):
    tuned = ending_checkpoint(tiny_checkpoint("llama"), tmp_path / "tuned")
    tensors = load_tensors(tuned / "model.safetensors")
    quiet = {n: w * 1e-3 if "o_proj" in n else w for n, w in tensors.items()}
    save_tensors(quiet, tuned / "model.safetensors", metadata={"format": "pt"})
    seal_checkpoint(tuned)
    inputs = make_inputs(tuned, tmp_path, planted(tuned, tmp_path / "adapters"))
    tables = Tables(run(inputs, tmp_path, final_draws=40))
    pair = pair_of(inputs)
    ids = [one.ids for one in pair.asked]
    said = generate_lanes(decoder_of(load_model(tuned, name="chat")), ids, [Lane("p")], max_new=1)
    chat = said.first_logits[0].argmax(1)

    def like_chat(**facts: Any) -> float:
        """Share of first tokens that are those of the untuned model."""
        lanes = tables.of(protocol="last_token", norm_rule="norm", **facts).index
        rows = pd.concat([tables.rows(int(lane)) for lane in lanes])
        # An answer that ended at once has no first token.
        first = rows["first_token"].to_numpy()
        wanted = chat[rows["prompt"].to_numpy()]
        return float(np.mean((first == wanted) | ((first < 0) & np.isin(wanted, [4, 5]))))

    assert like_chat(control="plain") < 0.2
    assert like_chat(control="direction", coeff=1.0) > 0.9
    for null in NULLS:
        assert like_chat(control=null, coeff=1.0) < 0.5
