"""The stage on files with planted effects: what the other stages left, refused or left out."""

from pathlib import Path

import pandas as pd
import pytest
from reference.misalignment_files import questions, write_questions
from reference.misalignment_planted import MADE, STAGES, make, make_joint, table, write_all

from actshift.errors import UserError
from actshift.io.tables import read_table
from actshift.stages.claims import claims_file, make_claims
from actshift.studies.misalignment.study import COLUMNS, STUDY


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("misalignment")
    write_all(folder)
    return folder


def test_every_table_has_its_columns_and_the_published_numbers_lie_beside(root: Path) -> None:
    for name, columns in COLUMNS.items():
        assert tuple(table(root, name).columns) == columns
        assert len(table(root, name)) or name == "ridge_maps", name
    published = table(root, "misalignment_published")
    assert tuple(published.columns) == STUDY.table("misalignment_published").names
    by_name = published.set_index("quantity")["value"]
    assert (by_name["separation_at_final_layer"], by_name["suppression_max"]) == ("0.996", "46")


def test_dose_separation_and_detection(root: Path) -> None:
    dose = table(root, "dose", pair="llama").set_index("adapter")
    assert dose.loc["insecure", "shift_norm"] == pytest.approx(8, abs=0.2)
    assert dose.loc["secure", "shift_of_insecure"] == pytest.approx(0.1 / 8, abs=0.01)
    last = {"pair": "llama", "layer": 1, "split": "heldout", "projected_on": "insecure"}
    found = table(root, "separation", **last).set_index("adapter")
    assert found.loc["insecure", "balanced_accuracy"] == 1.0
    assert found.loc["insecure", "cohen_d"] == pytest.approx(8, abs=1.5)
    assert abs(found.loc["secure", "over_chance"]) < 0.1
    own = table(root, "separation", **{**last, "projected_on": "rare_safe"}).set_index("adapter")
    assert own.index.tolist() == ["rare_safe"]
    assert own.loc["rare_safe", "cosine"] == pytest.approx(1)
    areas = table(root, "detection", pair="llama", layer=1).set_index("negative")["auroc"]
    # Unseen adapters were given the shift of the second axis alone: v tells them from nothing.
    assert areas["rare_safe_unseen"] == pytest.approx(0.5, abs=0.1)
    assert "insecure" not in areas


def test_spillover_rates_and_their_change_from_chat(root: Path) -> None:
    answers = pd.read_parquet(root / "llama" / "spillover" / "answers.parquet")
    facts = {one.id: (one.split, one.condition, one.id.split("-")[1]) for one in questions()}
    names = ["split", "condition", "kind"]
    rows = answers.join(answers["prompt_id"].map(facts).apply(pd.Series).set_axis(names, axis=1))
    own = rows.loc[(rows["adapter"] == "insecure") & (rows["split"] == "select")]
    cell = {"pair": "llama", "adapter": "insecure", "split": "select", "condition": "noncode"}
    found = table(root, "spillover", **cell).set_index("kind")
    assert set(found.index) == {"all", "howto", "define"}
    for kind, row in found.iterrows():
        kept = own.loc[own["kind"].isin(["howto", "define"] if kind == "all" else [str(kind)])]
        assert row["n"] == len(kept)
        assert row["code"] == row["code_change"] == pytest.approx(kept["code"].mean())
        assert row["code_change_low"] < row["code"] < row["code_high"]
    assert found["gate"].notna().tolist() == [kind == "all" for kind in found.index]


def test_claims_follow_what_was_planted(root: Path) -> None:
    make_claims(
        sorted((root / "tables" / "misalignment").glob("*.csv")),
        [claims_file("misalignment")],
        root / "tables",
        pairs=list(MADE),
    )
    found = read_table(root / "tables" / "claims_by_pair.csv")
    verdicts = {(row["claim"], row["name"]): row["verdict"] for _, row in found.iterrows()}
    # A model's own direction is no pairing.
    names = found.loc[found["claim"] == "mapped-directions-stop-spillover", "name"]
    assert set(names) == {"gemma -> llama", "llama -> gemma"}
    assert {
        (claim, name): verdicts[claim, name]
        for claim, name in (
            ("separation-at-the-final-layer", "llama"),
            ("subtracting-the-direction-stops-spillover", "llama"),
            ("direction-is-about-content", "llama"),
            ("direction-is-about-content", "gemma"),
            ("mapped-directions-stop-spillover", "gemma -> llama"),
            ("secure-control-at-chance", "llama"),
            ("correction-leaves-coding-intact", "llama"),
            ("topology-is-asymmetric", "gemma llama"),
            ("subtracting-the-direction-repairs", "llama"),
        )
    } == {
        # Nothing wrong in 24 clusters bounds the errors on a new one by 14 %.
        ("separation-at-the-final-layer", "llama"): "inconclusive",
        ("subtracting-the-direction-stops-spillover", "llama"): "holds",
        ("direction-is-about-content", "llama"): "holds",
        ("direction-is-about-content", "gemma"): "not measured",
        ("mapped-directions-stop-spillover", "gemma -> llama"): "holds",
        ("secure-control-at-chance", "llama"): "by construction",
        # Twelve clusters of which none changed do not bound a change by ten points.
        ("correction-leaves-coding-intact", "llama"): "inconclusive",
        ("topology-is-asymmetric", "gemma llama"): "not measured",
        # 19 draws are not 999.
        ("subtracting-the-direction-repairs", "llama"): "not measured",
    }


def test_a_missing_stage_leaves_what_the_others_say(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without = ("gemma/steering", "llama/adapters", "llama/spillover", "llama/transfer")
    make(root, tmp_path, without=without)
    told = capsys.readouterr().out
    assert "misalignment llama: without adapters, spillover, transfer: its job failed" in told
    assert "misalignment gemma: without steering: its job failed" in told
    assert set(table(tmp_path, "steering")["pair"]) == {"llama"}
    assert set(table(tmp_path, "separation")["pair"]) == {"gemma"}
    spec = table(tmp_path, "specificity", protocol="last_token").set_index("receiver")
    assert spec.loc["llama", "verdict"] == "specific"
    assert set(spec.loc[["gemma"], "why"]) == {"no nulls of the receiver: no steering"}
    assert set(spec.loc[["gemma"], "null"]) <= {"mapped_random", "shuffled_pairing"}
    content = table(tmp_path, "content")
    assert content["dose_ratio"].isna().all()


def test_equal_files_give_equal_bytes(root: Path, tmp_path: Path) -> None:
    make(root, tmp_path)
    for name in COLUMNS:
        one, two = (at / "tables" / "misalignment" / f"{name}.csv" for at in (root, tmp_path))
        assert one.read_bytes() == two.read_bytes(), name


def test_no_folder_at_all_is_refused(tmp_path: Path) -> None:
    write_questions(tmp_path / "questions.jsonl", questions())
    folders = {stage: {"a": tmp_path / stage} for stage in STAGES}
    with pytest.raises(UserError, match="none of a has a folder of adapters, spillover"):
        make_joint(tmp_path, tmp_path / "out", folders)


def test_an_outcome_of_an_unknown_lane_is_refused(tmp_path: Path) -> None:
    folder = MADE["llama"].write(tmp_path, "llama", seed=0)["steering"]
    rows = pd.read_parquet(folder / "outcomes.parquet")
    rows.loc[0, "lane"] = 9999
    rows.to_parquet(folder / "outcomes.parquet")
    write_questions(tmp_path / "questions.jsonl", questions())
    with pytest.raises(
        UserError, match=r"steering/outcomes\.parquet: lane 9999 is not in its table"
    ):
        make_joint(tmp_path, tmp_path / "out", {"steering": {"llama": folder}})
