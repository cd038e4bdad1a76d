"""Transfer on tiny random models: two pairs' maps, and one receiver under what the other sends."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from reference.misalignment_job import context
from reference.tiny_adapters import ending_checkpoint, random_adapters
from reference.tiny_models import WORDS
from safetensors.numpy import load_file, save_file

from actshift.edits import Lane, Placed, Steer
from actshift.engine.intervene import decoder_of, encode_questions
from actshift.errors import UserError
from actshift.hooks.lanes.generation import generate_lanes
from actshift.io.manifest import check_manifest
from actshift.models.adapters import load_merged
from actshift.prompts.records import Prompt, write_prompts
from actshift.studies.misalignment.choose import TOLERANCE
from actshift.studies.misalignment.kinds import MAPPED_NULLS
from actshift.studies.misalignment.maps import VECTORS, folder_of
from actshift.studies.misalignment.outcomes import ANSWER
from actshift.studies.misalignment.stages.ridge_maps import ridge_maps
from actshift.studies.misalignment.stages.spillover import spillover
from actshift.studies.misalignment.stages.transfer import transfer
from actshift.studies.misalignment.study import Misalignment
from actshift.vocab import Split

#: Family of every pair.
PAIRS = {"one": "llama", "two": "gemma2"}
COEFFS, DRAWS, OTHER_DRAWS, KL_DRAWS = (0.5, 1.0), 7, 4, 3
SETTINGS = Misalignment(
    # Random models spill nothing.
    min_spillover=0.0,
    min_insecure_code=0.0,
    max_new=5,
    token_budget=400,
    coeffs=COEFFS,
    final_draws=DRAWS,
    other_draws=OTHER_DRAWS,
    kl_draws=KL_DRAWS,
    shuffled_maps=5,
    map_folds=3,
)
EXTRACT = {"token_budget": 400, "max_tokens": 64, "storage": "float32"}
FILES = ("lanes", "outcomes", "prompts", "answers")


def prompts_of(conditions: dict[str, int], *, shift: int) -> list[Prompt]:
    """Some prompts of every condition and split, no two alike."""
    splits: tuple[Split, ...] = ("fit", "select", "heldout")
    made = []
    for condition, each in conditions.items():
        for number in range(3 * each):
            rng = np.random.default_rng([shift, len(made)])
            text = " ".join(rng.choice(WORDS, size=4 + number % 3))
            ident = f"{condition}-{number}"
            cluster = f"{condition}-c{number // 2}" if condition == "neutral" else ident
            split = splits[number % 3] if condition != "neutral" else "fit"
            made.append(Prompt(ident, text, condition, "a", cluster, split, "test"))
    return made


@pytest.fixture(scope="module")
def root(tiny_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs up to their maps."""
    root = tmp_path_factory.mktemp("transfer")
    write_prompts(root / "questions.jsonl", prompts_of({"noncode": 5, "code": 2}, shift=0))
    write_prompts(root / "neutral.jsonl", prompts_of({"neutral": 14, "code": 2}, shift=1))
    for pair, family in PAIRS.items():
        folder = root / pair
        folder.mkdir()
        tuned = ending_checkpoint(tiny_checkpoint(family), folder / "tuned")
        random_adapters(tuned, folder / "adapters", ("insecure", "secure", "insecure_unseen"))
        paths = {name: root / f"{name}.jsonl" for name in ("questions", "neutral")}
        spillover(
            {"tuned": tuned, "adapters": folder / "adapters", **paths},
            settings=SETTINGS,
            context=context(folder, pair=pair, zoo_size="micro"),
            strict=False,
            extract=EXTRACT,
            rows=folder / "rows.csv",
            out=folder / "spillover",
        )
    maps(root, root / "maps")
    go(root, "one", root / "out")
    return root


def maps(root: Path, out: Path) -> None:
    ridge_maps(
        pairs={pair: root / pair / "spillover" for pair in PAIRS},
        neutral=root / "neutral.jsonl",
        families={pair: str(root / pair / "tuned") for pair in PAIRS},
        settings=SETTINGS,
        seed=0,
        out=out,
    )


def inputs_of(root: Path, pair: str) -> dict[str, Path]:
    own = {name: root / pair / name for name in ("tuned", "adapters", "spillover")}
    return {**own, "maps": root / "maps", "questions": root / "questions.jsonl"}


def go(root: Path, pair: str, out: Path, **changes: Any) -> None:
    transfer(
        {**inputs_of(root, pair), **changes},
        settings=SETTINGS,
        context=context(root, pair=pair),
        out=out,
    )


def table(root: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(root / "out" / f"{name}.parquet")


def test_every_lane_of_the_contract_is_there_once(root: Path) -> None:
    lanes = table(root, "lanes")
    assert lanes["lane"].tolist() == list(range(len(lanes)))
    assert set(lanes["protocol"]) == {"last_token"}
    assert set(lanes["receiver"]) == {"insecure"}
    assert set(lanes["layer"]) == {2}
    counts = lanes.groupby(["donor", "control", "norm_rule", "orthogonal"]).size().to_dict()
    coeffs = len(COEFFS)
    assert counts.pop(("one", "plain", "norm", False)) == 1
    assert counts.pop(("two", "mapped", "norm", False)) == 2 * coeffs
    for orthogonal in (False, True):
        assert counts.pop(("two", "wrong_layer", "norm", orthogonal)) == 2 * coeffs
        assert counts.pop(("two", "wrong_source", "norm", orthogonal)) == coeffs
    for name in MAPPED_NULLS:
        assert counts.pop(("two", name, "norm", False)) == DRAWS + OTHER_DRAWS * (coeffs - 1)
        assert counts.pop(("two", name, "kl", False)) == KL_DRAWS * coeffs
    assert counts == {}
    assert not lanes.duplicated([*lanes.columns.drop(["lane", "kl_select", "cosine"])]).any()
    assert set(lanes.loc[lanes["control"] == "wrong_layer", "source"]) == {"layer 0", "layer 1"}
    fitted = lanes.groupby("control")["fit_on"].agg(set).to_dict()
    assert fitted["mapped"] == {"neutral", "with_code"}
    assert fitted["plain"] == fitted["wrong_source"] == {"none"}
    assert all(fitted[name] == {"neutral"} for name in (*MAPPED_NULLS, "wrong_layer"))


def test_outcomes_are_of_the_right_questions_and_answers(root: Path) -> None:
    lanes, outcomes, prompts, answers = (table(root, name) for name in FILES)
    assert set(prompts["split"]) == {"select", "heldout"}
    assert len(prompts) == 14
    joint = outcomes.merge(lanes, on="lane").join(prompts, on="prompt")
    wanted = np.where(joint["control"].isin(MAPPED_NULLS), 7, 14)
    assert (joint.groupby("lane")["prompt"].transform("nunique") == wanted).all()
    nulls = joint[joint["control"].isin(MAPPED_NULLS)]
    assert set(nulls["split"]) == {"heldout"}
    assert set(lanes["lane"]) - set(outcomes["lane"]) == set(
        lanes.loc[lanes["status"] == "unmatched", "lane"]
    )
    assert answers["answer"].tolist() == list(range(len(answers)))
    assert set(answers.columns) == {"answer", "prompt", "first_token", *ANSWER}
    said = outcomes.merge(answers, on="answer")
    assert (said["prompt_x"] == said["prompt_y"]).all()
    kinds = {"lane": "int32", "prompt": "int16", "answer": "int32", "kl_first": "float32"}
    assert outcomes.dtypes.astype(str).to_dict() == kinds


def vectors_of(root: Path, lanes: pd.DataFrame) -> dict[int, np.ndarray]:
    """What lanes of equal norm subtract, from the files of the maps alone."""
    mapped = load_file(root / "maps" / "mapped.safetensors")
    found = {}
    for row in lanes.itertuples():
        vectors = load_file(folder_of(root / "maps", str(row.donor), "one") / VECTORS)
        if row.control == "mapped":
            vector = mapped[f"{row.donor}--one.{row.fit_on}"][-1]
        elif row.control == "wrong_layer":
            layers = vectors["wrong_layer.layers"].tolist()
            vector = vectors["wrong_layer"][layers.index(int(str(row.source).split()[1]))]
        else:
            vector = vectors[str(row.control)][int(row.draw)]
        found[int(row.lane)] = row.coeff * row.scale * vector
    return found


def test_answers_are_those_of_plain_generation_under_the_edit(root: Path) -> None:
    lanes, outcomes, _, answers = (table(root, name) for name in FILES)
    ok = lanes[(lanes["status"] == "ok") & ~lanes["orthogonal"]]
    some = ok[ok["control"].isin(["mapped", "wrong_layer", *MAPPED_NULLS])].iloc[::5]
    chosen = vectors_of(root, some)
    own = inputs_of(root, "one")
    model = load_merged(own["tuned"], own["adapters"] / "insecure", name="m", dtype="float32")
    questions = prompts_of({"noncode": 5, "code": 2}, shift=0)
    asked = encode_questions(model, [one for one in questions if one.split != "fit"])
    edits = [
        Lane(str(lane), (Placed(Steer(vector, -1.0), 2, positions="last_prompt"),))
        for lane, vector in chosen.items()
    ]
    told = generate_lanes(decoder_of(model), [one.ids for one in asked], edits, max_new=5)
    texts = answers.set_index("answer")["text"]
    rows = outcomes.set_index(["lane", "prompt"])["answer"]
    changed = 0
    plain = {int(p): rows[0, p] for p in range(len(asked))}
    for lane, said in zip(chosen, told.answers, strict=True):
        for prompt, one in enumerate(said):
            if (lane, prompt) in rows.index:
                text = model.tokenizer.decode(list(one.tokens), skip_special_tokens=True)
                assert texts[rows[lane, prompt]] == text.strip()
                changed += rows[lane, prompt] != plain[prompt]
    assert changed > 10


def test_every_vector_has_the_receivers_own_norm(root: Path) -> None:
    lanes = table(root, "lanes")
    own = load_file(root / "one" / "spillover" / "directions.safetensors")["insecure"][-1]
    norm = lanes[(lanes["norm_rule"] == "norm") & ~lanes["orthogonal"]]
    norm = norm[norm["control"].isin(["mapped", "wrong_layer", *MAPPED_NULLS])]
    assert (norm["scale"] == 1).all()
    for row, vector in zip(norm.itertuples(), vectors_of(root, norm).values(), strict=True):
        assert np.linalg.norm(vector) == pytest.approx(row.coeff * np.linalg.norm(own), rel=0.01)
        cosine = vector @ own / np.linalg.norm(vector) / np.linalg.norm(own)
        assert row.cosine == pytest.approx(cosine, abs=1e-4)


def test_equal_kl_is_that_of_the_mapped_direction(root: Path) -> None:
    lanes = table(root, "lanes")
    mapped = lanes[(lanes["control"] == "mapped") & (lanes["fit_on"] == "neutral")]
    target = mapped.set_index(["donor", "coeff"])["kl_select"]
    rows = lanes[lanes["norm_rule"] == "kl"]
    wanted = np.array([target[row.donor, row.coeff] for row in rows.itertuples()])
    ok = (rows["status"] == "ok").to_numpy()
    assert ok.sum() > len(rows) / 2
    apart = np.abs(rows["kl_select"].to_numpy() / wanted - 1)
    assert (apart[ok] <= TOLERANCE + 1e-6).all()
    assert (apart[~ok] > TOLERANCE).all()
    assert (rows["scale"] <= SETTINGS.max_scale).all()


def test_plain_moves_nothing_and_select_kl_is_the_mean_of_its_rows(root: Path) -> None:
    lanes, outcomes, prompts, _ = (table(root, name) for name in FILES)
    assert outcomes.loc[outcomes["lane"] == 0, "kl_first"].max() <= 1e-6
    joint = outcomes.join(prompts, on="prompt")
    chosen = joint[(joint["split"] == "select") & (joint["condition"] == "noncode")]
    means = chosen.groupby("lane")["kl_first"].mean()
    told = lanes.set_index("lane")["kl_select"]
    np.testing.assert_allclose(told[means.index], means, rtol=1e-5)
    nulls = lanes[lanes["control"].isin(MAPPED_NULLS) & (lanes["norm_rule"] == "norm")]
    assert nulls["kl_select"].isna().all()


def test_what_is_orthogonalised_has_no_part_along_the_mapped_direction(root: Path) -> None:
    """Read from its cosine with v: removing another part changes it by a known amount."""
    lanes = table(root, "lanes")
    own = load_file(root / "one" / "spillover" / "directions.safetensors")["insecure"][-1]
    mapped = load_file(root / "maps" / "mapped.safetensors")
    rows = lanes[(lanes["control"] == "wrong_layer") & (lanes["coeff"] == 1.0)]
    raw = vectors_of(root, rows[~rows["orthogonal"]])
    for row in rows[rows["orthogonal"]].itertuples():
        twin = rows[~rows["orthogonal"] & (rows["donor"] == row.donor)]
        vector = raw[int(twin.loc[twin["source"] == row.source, "lane"].iloc[0])]
        unit = mapped[f"{row.donor}--one.neutral"][-1]
        unit = unit / np.linalg.norm(unit)
        left = vector - (vector @ unit) * unit
        cosine = left @ own / np.linalg.norm(left) / np.linalg.norm(own)
        assert row.cosine == pytest.approx(cosine, abs=1e-3)


def test_the_folder_has_its_manifest_and_the_same_bytes_again(root: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    assert check_manifest(root / "out", deep=True) == []
    go(root, "one", tmp_path / "again")
    for name in (*(f"{file}.parquet" for file in FILES), "manifest.json"):
        assert (tmp_path / "again" / name).read_bytes() == (root / "out" / name).read_bytes()


def test_a_receiver_without_donors_has_its_plain_lane(root: Path, tmp_path: Path) -> None:
    pair = {"one": root / "one" / "spillover"}
    families = {"one": "zoo:llama/chat"}
    told: dict[str, Any] = {"neutral": root / "neutral.jsonl", "settings": SETTINGS, "seed": 0}
    ridge_maps(pairs=pair, families=families, out=tmp_path / "maps", **told)
    go(root, "one", tmp_path / "out", maps=tmp_path / "maps")
    lanes = pd.read_parquet(tmp_path / "out" / "lanes.parquet")
    assert lanes["control"].tolist() == ["plain"]


def test_a_direction_of_zero_is_refused(root: Path, tmp_path: Path) -> None:
    v = load_file(root / "one" / "spillover" / "directions.safetensors")
    v["insecure"][-1] = 0
    save_file(v, tmp_path / "directions.safetensors")
    with pytest.raises(UserError, match="'insecure' is zero at the last layer"):
        go(root, "one", tmp_path / "out", spillover=tmp_path)
    assert not (tmp_path / "out").exists()
