"""The stage on files with planted effects: two models, each other's donors."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from reference.misalignment_files import Made, questions, write_questions

from actshift.errors import UserError
from actshift.io.tables import read_table
from actshift.stages.claims import make_claims
from actshift.stages.misalignment_tables import misalignment_tables
from actshift.studies.misalignment.kinds import NULLS
from actshift.studies.misalignment_tables.columns import COLUMNS, PUBLISHED_COLUMNS

ROOT = Path(__file__).parents[2]
HEADLINE = ROOT / "resources" / "published" / "headline.csv"
STAGES = ("adapters", "spillover", "steering", "transfer")
SPILLS, REPAIRED, UNMOVED = (0.9, 0.05, 0.0), (0.05, 0.9, 0.0), (0.85, 0.1, 0.0)


def specific(facts: Mapping[str, object]) -> tuple[float, float, float]:
    """Only v, and the mapped v, repair; and v repairs the insecure adapter alone."""
    if facts["receiver"] in ("chat", "secure", "benign"):
        return (0.0, 1.0, 0.0)
    if facts["control"] == "plain":
        return SPILLS
    own = facts["control"] in ("direction", "mapped") and facts["receiver"] == "insecure"
    return REPAIRED if own else UNMOVED


def general(facts: Mapping[str, object]) -> tuple[float, float, float]:
    """v repairs; so does every null, on every adapter; mapped directions break answers."""
    if facts["control"] == "mapped":
        return (0.0, 0.5, 0.5)
    return SPILLS if facts["control"] == "plain" else (0.2, 0.7, 0.0)


#: Of `llama` v is specific, of `gemma` it is not; the doses of the latter differ.
MADE = {
    "llama": Made(specific, donors=("gemma",), shifts={"insecure": (8.0, 0.0), "secure": (0, 0.1)}),
    "gemma": Made(general, donors=("llama",), losses={"rare_safe": 0.5}),
}


def make(root: Path, out: Path, *, without: tuple[str, ...] = ()) -> list[str]:
    """Tables of the pairs below `root`; `without` names folders left out (`gemma/steering`)."""
    return misalignment_tables(
        folders={
            stage: {
                pair: root / ("gone" if f"{pair}/{stage}" in without else "") / pair / stage
                for pair in MADE
            }
            for stage in STAGES
        },
        maps=root / "ridge_maps",
        questions=root / "questions.jsonl",
        published=HEADLINE,
        seed=0,
        out=out / "tables" / "misalignment",
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("misalignment")
    write_questions(folder / "questions.jsonl", questions())
    for seed, (pair, one) in enumerate(MADE.items()):
        one.write(folder, pair, seed=seed)
    assert make(folder, folder) == []
    return folder


def table(root: Path, name: str, **cell: object) -> pd.DataFrame:
    found = read_table(root / "tables" / "misalignment" / f"{name}.csv")
    for column, value in cell.items():
        found = found.loc[found[column] == value]
    return found


def slow(root: Path, pair: str, stage: str) -> pd.DataFrame:
    """Every outcome with its lane, question and answer: the plain way to any rate."""
    names = ("outcomes", "lanes", "prompts", "answers")
    read = {name: pd.read_parquet(root / pair / stage / f"{name}.parquet") for name in names}
    joined = read["outcomes"].merge(read["lanes"], on="lane")
    joined = joined.merge(read["prompts"].reset_index(names="prompt"), on="prompt")
    return joined.merge(read["answers"].drop(columns="prompt"), on="answer")


def test_every_table_has_its_columns_and_the_published_numbers_lie_beside(root: Path) -> None:
    for name, columns in COLUMNS.items():
        assert tuple(table(root, name).columns) == columns
        assert len(table(root, name)) or name == "ridge_maps", name
    published = table(root, "misalignment_published")
    assert tuple(published.columns) == PUBLISHED_COLUMNS
    by_name = published.set_index("quantity")["value"]
    assert (by_name["separation_at_final_layer"], by_name["suppression_max"]) == ("0.996", "46")


@pytest.mark.parametrize(("pair", "stage"), [("llama", "steering"), ("gemma", "transfer")])
def test_every_rate_is_that_of_the_outcomes(root: Path, pair: str, stage: str) -> None:
    rows = slow(root, pair, stage)
    rows = rows.loc[(rows["condition"] == "noncode") & (rows["status"] == "ok")]
    keys = ["receiver", "donor", "protocol", "control", "orthogonal", "coeff", "norm_rule", "split"]
    keys += ["fit_on"] if stage == "transfer" else []
    plain = rows.loc[rows["control"] == "plain"].groupby(["receiver", "split"])
    told = table(root, stage, pair=pair)
    seen = 0
    for key, own in rows.groupby([*keys, "source"], dropna=False):
        cell = dict(zip([*keys, "source"], key, strict=True))
        found = told.loc[
            np.logical_and.reduce(
                [told[c].isna() if v != v or v is None else told[c] == v for c, v in cell.items()]
            )
        ]
        assert len(found) == 1, cell
        row = found.iloc[0]
        before = plain.get_group((cell["receiver"], cell["split"]))
        seen += 1
        assert (row["n"], row["clusters"]) == (72, 24)
        assert row["code"] == pytest.approx(own["code"].mean())
        assert row["drop"] == pytest.approx(before["code"].mean() - own["code"].mean())
        assert row["gain"] == pytest.approx(own["repaired"].mean() - before["repaired"].mean())
        assert row["degenerate"] == pytest.approx(own["degenerate"].mean())
        assert row["drop_low"] <= row["drop"] <= row["drop_high"]
        assert row["gain_low"] <= row["gain"] <= row["gain_high"]
    assert seen == len(told)


def test_a_null_is_its_draws_and_v_is_held_against_each(root: Path) -> None:
    rows = slow(root, "llama", "steering")
    rows = rows.loc[(rows["condition"] == "noncode") & (rows["split"] == "heldout")]
    plain = rows.loc[(rows["control"] == "plain") & (rows["receiver"] == "insecure")]
    own = rows.loc[(rows["coeff"] == 1) & (rows["norm_rule"] == "norm")]
    own = own.loc[(own["protocol"] == "last_token") & (own["receiver"] == "insecure")]
    v = own.loc[own["control"] == "direction", "repaired"].mean()
    for name in NULLS:
        draws = own.loc[own["control"] == name].groupby("draw")["repaired"].mean()
        gains = draws - plain["repaired"].mean()
        cell = {"control": name, "coeff": 1, "norm_rule": "norm", "split": "heldout"}
        row = table(root, "steering", pair="llama", **cell).iloc[0]
        assert row["draws"] == 19
        assert row["beats_draws"] == (draws < v).sum() == 19
        told = row[["draws_low", "draws_median", "draws_high"]].tolist()
        assert told == pytest.approx(np.percentile(gains, (5, 50, 95)))
        assert np.isnan(row["p"])


def test_equal_kl_that_half_of_the_draws_miss_is_unmatched(root: Path) -> None:
    found = table(root, "steering", pair="llama", norm_rule="kl", split="heldout")
    told = found.set_index("coeff")[["status", "draws", "why"]]
    assert told.loc[0.5, "status"] == "ok"
    assert told.loc[0.5, "draws"] == 4
    assert told.loc[1.0, "status"] == "unmatched"
    assert told.loc[1.0, "why"] == "1 of 4 lanes reach the KL of the direction"


def test_a_logit_bias_lies_beside_the_edit_of_the_same_vector(root: Path) -> None:
    rows = slow(root, "llama", "steering")
    rows = rows.loc[(rows["condition"] == "noncode") & (rows["split"] == "heldout")]
    rows = rows.loc[(rows["coeff"] == 1) & (rows["control"] == "direction")]
    rows = rows.loc[rows["receiver"] == "insecure"].set_index("prompt")
    edit, bias = (rows.loc[rows["protocol"] == name] for name in ("last_token", "logit_bias"))
    cell = {"protocol": "logit_bias", "coeff": 1, "split": "heldout"}
    row = table(root, "steering", pair="llama", **cell).iloc[0]
    same = (edit["first_token"] == bias["first_token"].reindex(edit.index)).mean()
    assert row["same_first_token"] == pytest.approx(same)
    gap = bias["repaired"].mean() - edit["repaired"].mean()
    assert row["against_edit"] == pytest.approx(gap)
    assert row["against_edit_low"] < gap < row["against_edit_high"]
    assert table(root, "steering", protocol="last_token")["same_first_token"].isna().all()


def test_planted_specificity_and_its_loss(root: Path) -> None:
    found = table(root, "specificity", protocol="last_token").set_index(["pairing", "scope"])
    verdicts = {key: set(own["verdict"]) for key, own in found.groupby(level=0)}
    assert verdicts == {
        "llama -> llama": {"specific"},
        "gemma -> llama": {"specific"},
        "gemma -> gemma": {"not specific"},
        "llama -> gemma": {"broken"},
    }
    own = found.loc[("llama -> llama", "within")]
    rows = slow(root, "llama", "steering")
    rows = rows.loc[(rows["condition"] == "noncode") & (rows["split"] == "heldout")]
    rows = rows.loc[(rows["receiver"] == "insecure") & (rows["norm_rule"] == "norm")]
    rates = rows.groupby(["control", "protocol", "coeff", "draw"])["repaired"].mean()
    # Both coefficients repair as much, so the smaller one is taken.
    highs = [np.percentile(rates.loc[name, "last_token", 0.5], 95) for name in NULLS]
    edit = rates.loc["direction", "last_token", 0.5].iloc[0]
    assert own["coeff"] == 0.5
    assert own["margin"] == pytest.approx(edit - max(highs))
    assert own["null"] == NULLS[int(np.argmax(highs))]
    # Two models were edited within: their p are 1 / 20 and larger than .05.
    assert (own["p"], own["p_holm"]) == pytest.approx((1 / 20, 1 / 10))
    across = found.loc[("gemma -> llama", "across")].iloc[0]
    gap = own["margin"] - across["margin"]
    assert across["loss_against_within"] == pytest.approx(gap)
    assert across["loss_low"] <= gap <= across["loss_high"]


def test_content_is_the_difference_at_the_same_coefficient(root: Path) -> None:
    cell = {"receiver": "rare_safe", "split": "heldout", "coeff": 0.5}
    found = table(root, "content", **cell).set_index("pair")
    assert found["chosen"].astype(str).tolist() == ["True", "True"]
    assert found.loc["llama", "difference_low"] > 0.5
    assert found.loc["gemma", "difference_low"] < 0 < found.loc["gemma", "difference_high"]
    for pair in MADE:
        row = found.loc[pair]
        assert row["difference"] == pytest.approx(row["gain_insecure"] - row["gain"])
    assert found["dose_matched"].astype(str).to_dict() == {"llama": "True", "gemma": "False"}
    other = table(root, "content", receiver="insecure", source="rare_safe")
    assert len(other) == 2 * 2 * 2  # pairs, coefficients, splits; not the orthogonal one


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


def test_side_effects_are_told_of_code_and_of_what_chat_does_not_refuse(root: Path) -> None:
    found = table(root, "side_effects", pair="llama", control="direction", receiver="insecure")
    code = found.loc[found["asked"] == "code"]
    assert code["code_change"].tolist() == [0.0] * len(code)
    assert set(code["n"]) == {12}
    harmless = found.loc[(found["asked"] == "harmless") & (found["coeff"] == 1)]
    edit = table(root, "steering", pair="llama", control="direction", receiver="insecure")
    edit = edit.loc[(edit["coeff"] == 1) & (edit["split"] == "heldout")]
    # Chat refuses nothing here: all non-code questions are harmless.
    assert sorted(harmless["code"]) == pytest.approx(sorted(edit["code"]))


def test_one_seed_leaves_the_topology_unmeasured(root: Path) -> None:
    keys = ["donor", "receiver", "fit_on"]
    found = table(root, "topology", scope="across").sort_values(keys)
    assert set(found["status"]) == {"not measured"}
    assert found["asymmetry"].isna().all()
    spec = table(root, "specificity", scope="across", protocol="last_token").sort_values(keys)
    assert found["share"].tolist() == pytest.approx((spec["drop"] / spec["code_plain"]).tolist())
    assert (found["share_low"] <= found["share"]).all()
    assert (found["share_high"] >= found["share"]).all()


def test_claims_follow_what_was_planted(root: Path) -> None:
    make_claims(
        sorted((root / "tables" / "misalignment").glob("*.csv")),
        ROOT / "resources" / "claims.yaml",
        root / "tables",
        pairs=list(MADE),
    )
    found = read_table(root / "tables" / "claims_by_pair.csv")
    verdicts = {(row["claim"], row["name"]): row["verdict"] for _, row in found.iterrows()}
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


def test_a_missing_stage_leaves_what_the_others_say(root: Path, tmp_path: Path) -> None:
    without = ("gemma/steering", "llama/adapters", "llama/spillover", "llama/transfer")
    assert make(root, tmp_path, without=without) == [
        *("llama: adapters", "llama: spillover", "llama: transfer", "gemma: steering"),
    ]
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
    asked = write_questions(tmp_path / "questions.jsonl", questions())
    with pytest.raises(UserError, match="none of the pairs a has a folder of adapters, spillover"):
        misalignment_tables(
            folders={stage: {"a": tmp_path / stage} for stage in STAGES},
            maps=tmp_path,
            questions=asked,
            published=HEADLINE,
            seed=0,
            out=tmp_path / "out",
        )


def test_an_outcome_of_an_unknown_lane_is_refused(tmp_path: Path) -> None:
    folder = MADE["llama"].write(tmp_path, "llama", seed=0)["steering"]
    rows = pd.read_parquet(folder / "outcomes.parquet")
    rows.loc[0, "lane"] = 9999
    rows.to_parquet(folder / "outcomes.parquet")
    with pytest.raises(UserError, match="steering/outcomes.parquet: lane 9999 is not in its table"):
        misalignment_tables(
            folders={"steering": {"llama": folder}},
            maps=tmp_path,
            questions=write_questions(tmp_path / "q.jsonl", questions()),
            published=HEADLINE,
            seed=0,
            out=tmp_path / "out",
        )
