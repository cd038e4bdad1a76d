"""The localization stage on random models: files, exact controls, resume after a kill, the gate."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from reference.processes import kill_between_parts
from reference.tiny_models import WORDS

from actshift.engine.context import JobContext
from actshift.errors import GateError, UserError
from actshift.io.missed import MISSED, missed_in
from actshift.io.tables import read_table
from actshift.prompts.preferences import Preference, to_jsonl
from actshift.studies.localization.stage import localization
from actshift.studies.localization.study import Localization
from actshift.vocab import ROLES

SETTINGS = Localization(
    random_draws=2, noise_draws=2, ranks=(1, 4, 40), alphas=(0.0, 0.5, 1.0), folds=2
)
LAYERS, SCORES = 3, ["logp_chosen", "logp_rejected"]
FILES = {f"{one}.csv{end}" for one in ("pairs", "bases") for end in ("", ".sha256")}
FILES |= {f"{one}.parquet" for one in ("plain", "patches", "swaps", "distances")}


def preferences(conditions: tuple[str, ...] = ("harmful", "harmless")) -> list[Preference]:
    rng = np.random.default_rng(5)

    def words(most: int) -> str:
        return " ".join(rng.choice(WORDS, size=int(rng.integers(2, most))))

    return [
        Preference(
            id=f"{condition}-{number}",
            prompt=words(8),
            chosen=words(4),
            rejected=words(7),
            condition=condition,
            category="a",
            cluster=f"{condition}{number // 2}",
            split="heldout",
            source="test",
        )
        for condition in conditions
        for number in range(6)
    ]


def make_inputs(checkpoints: list[Path], root: Path, rows: list[Preference]) -> dict[str, Path]:
    root.mkdir(parents=True, exist_ok=True)
    path = root / "preferences.jsonl"
    path.write_text(to_jsonl(rows))
    return {**dict(zip(ROLES, checkpoints, strict=True)), "preferences": path}


def run(
    inputs: dict[str, Path],
    root: Path,
    *,
    gated: bool = False,
    strict: bool = False,
    **changes: Any,
) -> Path:
    localization(
        inputs,
        settings=SETTINGS.model_copy(update=changes),
        context=JobContext("run", "pair", "float32", "cpu", 0, "c", root / "staging"),
        out=root / "localization",
        rows=str(root / "margins.csv"),
        gated=gated,
        strict=strict,
    )
    return root / "localization"


@pytest.fixture(scope="module")
def checkpoints(tiny_checkpoint) -> list[Path]:
    return [tiny_checkpoint("llama", seed=seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def inputs(checkpoints, tmp_path_factory) -> dict[str, Path]:
    return make_inputs(checkpoints, tmp_path_factory.mktemp("inputs"), preferences())


@pytest.fixture(scope="module")
def folder(inputs, tmp_path_factory) -> Path:
    return run(inputs, tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def patches(folder) -> pd.DataFrame:
    """Rows with the scores of the plain receiver (r) and donor (d) beside."""
    rows = pd.read_parquet(folder / "patches.parquet")
    plain = pd.read_parquet(folder / "plain.parquet").set_index(["length", "pair_id", "model"])
    sides = {"r": {"forward": "base", "reverse": "tuned"}}
    sides["d"] = {"forward": "tuned", "reverse": "base"}
    for name, models in sides.items():
        keys = pd.MultiIndex.from_arrays(
            [rows["length"], rows["pair_id"], rows["direction"].map(models)]
        )
        for score in SCORES:
            rows[f"{name}_{score}"] = plain.loc[keys, score].to_numpy()
    return rows


def change(rows: pd.DataFrame, side: str = "r") -> np.ndarray:
    return rows[SCORES].to_numpy() - rows[[f"{side}_{score}" for score in SCORES]].to_numpy()


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_every_lane_meets_every_pair_once(folder, patches):
    assert {path.name for path in folder.iterdir()} == FILES
    pairs = read_table(folder / "pairs.csv")
    assert (pairs.groupby("length").size() == 12).all()
    keys = ["length", "direction", "lane", "pair_id"]
    assert not patches.duplicated(keys).any()
    assert (patches.groupby(keys[:3]).size() == 12).all()
    per = patches[patches["direction"] == "forward"].groupby(["length", "experiment"])["lane"]
    assert per.nunique().to_dict() == {
        ("natural", "patch"): 4 * LAYERS,
        ("natural", "identity"): 4 * LAYERS,
        ("natural", "interpolation"): 3 * LAYERS,
        ("natural", "low_rank"): 5 * 2 * LAYERS,  # rank 40 does not fit into the width
        ("natural", "noise"): 2 * 2 * LAYERS,
        ("natural", "random"): 2 * 2 * LAYERS,
        ("natural", "shuffled"): 2 * LAYERS,
        ("natural", "other_condition"): 2 * LAYERS,
        ("natural", "whole_head"): 1,
        ("matched", "patch"): 4 * LAYERS,
        ("matched", "source"): 4 * LAYERS,
    }
    assert np.isfinite(patches[SCORES].to_numpy()).all()


def test_the_identity_changes_nothing_at_all(patches):
    nothing = (patches["experiment"] == "interpolation") & (patches["alpha"] == 0)
    assert (change(patches[nothing | (patches["experiment"] == "identity")]) == 0).all()


def test_the_contrast_is_nothing_at_prompt_tokens_and_something_at_completions(patches):
    rows = patches[patches["source"] == "contrast"]
    assert (change(rows[rows["positions"] == "prompt"]) == 0).all()
    assert np.abs(change(rows[rows["positions"] == "completion"])).max() > 0.01


def test_the_top_with_the_donors_head_is_the_donor(patches):
    rows = patches[patches["experiment"] == "whole_head"]
    assert set(rows["layer"]) == {LAYERS - 1}
    np.testing.assert_allclose(change(rows, "d"), 0, atol=1e-3)
    assert np.abs(change(rows)).min() > 0.01


def test_a_full_interpolation_is_the_patch(patches):
    keys = ["direction", "layer", "pair_id"]
    everywhere = patches[(patches["length"] == "natural") & (patches["positions"] == "all")]
    full = everywhere[(everywhere["experiment"] == "interpolation") & (everywhere["alpha"] == 1)]
    patch = everywhere[everywhere["experiment"] == "patch"]
    both = full.merge(patch, on=keys)
    assert len(both) == len(patch)
    np.testing.assert_allclose(both["logp_chosen_x"], both["logp_chosen_y"], rtol=1e-5)


def test_draws_of_a_control_differ(patches):
    for experiment in ("random", "noise"):
        rows = patches[patches["experiment"] == experiment]
        keys = ["direction", "positions", "layer", "pair_id"]
        spread = rows.groupby(keys)["logp_chosen"].nunique()
        assert (spread == 2).all()


def test_matched_answers_have_one_length(folder):
    pairs = read_table(folder / "pairs.csv").set_index(["length", "pair_id"])
    matched, natural = pairs.loc["matched"], pairs.loc["natural"]
    assert (matched["n_chosen"] == matched["n_rejected"]).all()
    shorter = natural[["n_chosen", "n_rejected"]].min(axis=1)
    assert (matched["n_chosen"] == shorter.loc[matched.index]).all()
    assert (matched["fold"] == natural.loc[matched.index, "fold"]).all()


def test_a_removed_unit_and_an_inserted_one_are_swaps_of_all_parts(folder):
    rows = pd.read_parquet(folder / "swaps.parquet")
    counts = rows[rows["length"] == "natural"].groupby(["operation", "part"]).size().unstack()
    assert counts.loc["insert"].to_dict() == counts.loc["remove"].to_dict()
    assert counts.loc["insert"].to_dict() == {
        **dict.fromkeys(("attention", "block", "mlp"), 12 * LAYERS),
        **dict.fromkeys(("embeddings", "head"), 12),
    }


def test_equal_runs_give_equal_bytes_and_leave_no_parts(folder, inputs, tmp_path):
    again = run(inputs, tmp_path)
    assert content(again) == content(folder)
    assert not list((tmp_path / "staging").rglob("*.parquet"))


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(folder, inputs, tmp_path):
    root = tmp_path / "killed"
    kill_between_parts(
        lambda: len(list(root.glob("staging/*/patches/*.parquet"))) >= 3,
        "studies.localization.test_localization_stage",
        inputs,
        root,
    )
    assert list(root.glob("staging/*/patches/*.parquet"))
    assert not (root / "localization").exists()
    assert content(run(inputs, root)) == content(folder)


def test_parts_that_are_there_are_not_made_again_unless_damaged(
    folder, inputs, tmp_path, monkeypatch
):
    import actshift.studies.localization.stage as stage

    def stop(*_args: Any, **_options: Any) -> None:
        raise KeyError("stop")

    with monkeypatch.context() as patch:
        patch.setattr(stage, "join_parts", stop)
        with pytest.raises(KeyError):
            run(inputs, tmp_path)
    parts = sorted(tmp_path.glob("staging/*/*/*.parquet"))
    parts[1].write_bytes(parts[1].read_bytes()[:-100])
    before = {part: part.stat().st_mtime_ns for part in parts}
    with monkeypatch.context() as patch:
        patch.setattr(stage, "join_parts", stop)
        with pytest.raises(KeyError):
            run(inputs, tmp_path)
    assert [p for p in parts if p.stat().st_mtime_ns != before[p]] == [parts[1]]
    assert content(run(inputs, tmp_path)) == content(folder)


def test_two_equal_models_miss_the_gate_with_numbers_and_rows(checkpoints, tmp_path):
    same = make_inputs([checkpoints[0]] * 2, tmp_path, preferences())
    told = r"6 harmful pairs \(3 clusters\).*by 0.00 nats, .* are in {}.*margins\.csv$"
    with pytest.raises(GateError, match=told.format("status/")):
        run(same, tmp_path, gated=True, strict=True)
    assert not (tmp_path / "localization").exists()
    rows = read_table(tmp_path / "margins.csv")
    assert len(rows) == 12
    assert (rows["gap"] == 0).all()
    (tmp_path / "margins.csv").unlink()
    folder = run(same, tmp_path, gated=True)
    assert [file.name for file in folder.iterdir()] == [MISSED]
    missed = missed_in(folder)
    assert missed is not None
    assert re.search(told.format(tmp_path.parent.name), missed.detail)
    assert (missed.subject, missed.stage) == ("pair: preference gap", "localization")
    assert missed.reason == ("gate missed, gap of 0.00 nats, interval 0.00 to 0.00 not above 0")
    pd.testing.assert_frame_equal(read_table(tmp_path / "margins.csv"), rows)


def test_without_a_gate_two_equal_models_are_measured(checkpoints, tmp_path):
    same = make_inputs([checkpoints[0]] * 2, tmp_path, preferences())
    folder = run(same, tmp_path, strict=True)
    assert missed_in(folder) is None
    assert {file.name for file in folder.iterdir()} == FILES


def test_with_one_condition_there_is_no_null_of_the_other(checkpoints, tmp_path):
    inputs = make_inputs(checkpoints, tmp_path, preferences(("helpful",)))
    found = set(pd.read_parquet(run(inputs, tmp_path) / "patches.parquet")["experiment"])
    assert "shuffled" in found
    assert "other_condition" not in found


def test_pairs_that_are_all_too_long_are_refused(inputs, tmp_path):
    with pytest.raises(UserError, match=r"raise localization\.max_tokens"):
        run(inputs, tmp_path, max_tokens=3)


def test_other_checkpoints_take_up_no_parts_of_these(checkpoints, inputs, tmp_path, monkeypatch):
    import actshift.studies.localization.stage as stage

    seen: list[Path] = []

    def stop(_parts: Any, folder: Path, **_options: Any) -> None:
        seen.append(folder)
        raise KeyError("stop")

    monkeypatch.setattr(stage, "fill_parts", stop)
    turned = dict(zip(ROLES, checkpoints[::-1], strict=True))
    for one in (inputs, inputs, {**inputs, **turned}):
        with pytest.raises(KeyError):
            run(one, tmp_path)
    assert seen[0] == seen[1]
    assert seen[0] != seen[2]
