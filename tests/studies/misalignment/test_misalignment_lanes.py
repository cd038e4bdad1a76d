"""Tables of lanes on files with planted effects, against rates worked out row by row."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from reference.misalignment_planted import MADE, table, write_all

from actshift.studies.misalignment.kinds import NULLS


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("misalignment")
    write_all(folder)
    return folder


def slow(root: Path, pair: str, stage: str) -> pd.DataFrame:
    """Every outcome with its lane, question and answer: the plain way to any rate."""
    names = ("outcomes", "lanes", "prompts", "answers")
    read = {name: pd.read_parquet(root / pair / stage / f"{name}.parquet") for name in names}
    joined = read["outcomes"].merge(read["lanes"], on="lane")
    joined = joined.merge(read["prompts"].reset_index(names="prompt"), on="prompt")
    return joined.merge(read["answers"].drop(columns="prompt"), on="answer")


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
    found = table(root, "specificity", protocol="last_token")
    pairing = found["donor"] + " -> " + found["receiver"]
    found = found.assign(pairing=pairing).set_index(["pairing", "scope"])
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
    assert across["margin_within"] == own["margin"]
    assert own["null_cosine"] == 0.5
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
