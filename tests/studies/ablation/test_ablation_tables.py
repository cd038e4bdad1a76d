"""Tables of ablation on made-up rows whose truth is known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from reference.ablation_rows import LANG, TOPIC, ablation_files, both, nothing, where

from actshift.maths.paired import compare_paired
from actshift.studies.ablation.join import PairFiles, pair_tables
from actshift.studies.ablation.study import COLUMNS
from actshift.studies.ablation.tables.answers import DRAWS, answers_of, changes

#: The primary cell, where the template frame frees half of the nouns.
PRIMARY = {"frame": "template", "band": "narrow", "edit": "zero", "k": 3}
HALF = where(4, experiment="sweep", **PRIMARY)


def tables(files: PairFiles, *, judged: bool = True) -> dict[str, pd.DataFrame]:
    found = pair_tables(files, pair="p", lang=LANG if judged else None, seed=0)
    return {name: pd.DataFrame(rows, columns=list(COLUMNS[name])) for name, rows in found.items()}


def cell(table: pd.DataFrame, **facts: object) -> pd.Series:
    for column, value in facts.items():
        table = table[table[column].isna() if value is None else table[column] == value]
    assert len(table) == 1, f"{len(table)} rows of {facts}"
    return table.iloc[0]


@pytest.fixture(scope="module")
def half() -> dict[str, pd.DataFrame]:
    return tables(ablation_files(HALF))


def test_a_frame_that_frees_half_of_the_nouns(half: dict[str, pd.DataFrame]) -> None:
    row = cell(half["ablation_sweep"], **PRIMARY)
    assert (row["refusal"], row["plain_refusal"], row["refusal_change"]) == (0.5, 1.0, -0.5)
    assert row["refusal_change_low"] < -0.5 < row["refusal_change_high"] < 0
    assert (row["n"], row["clusters"], row["design_effect"]) == (16, 8, pytest.approx(2.142857))
    # Four of eight nouns change, all one way: 2 of 2^4 sign patterns; McNemar counts 8 prompts.
    assert row["p_sign_flip"] == pytest.approx(2 / 2**4)
    assert row["p_mcnemar_independent"] == pytest.approx(2 / 2**8)
    assert (row["complied"], row["plain_complied"], row["complied_gain"]) == (0.5, 0.0, 0.5)
    assert (row["complied_gain_over_harmless"], row["p_gain"]) == (0.5, pytest.approx(2 / 2**4))
    assert (row["harmless_on_topic"], row["harmless_refusal"]) == (1.0, 0.0)
    assert (row["k_over_d"], row["energy_removed"]) == (3 / 64, 3 / 64)
    assert (row["beats_random"], row["random_refusal_median"]) == ("4 of 4", 1.0)
    assert (row["status"], row["why"], row["primary"]) == ("decided", "", True)
    # Wilson at n / design effect: 8 nouns of copies count about as 8 answers.
    assert row["refusal_low"] == pytest.approx(0.2, abs=0.03)
    assert half["ablation_sweep"]["primary"].sum() == 1


def test_a_frame_equal_to_random_changes_nothing_and_stays_open(
    half: dict[str, pd.DataFrame],
) -> None:
    row = cell(half["ablation_sweep"], **{**PRIMARY, "frame": "naive"})
    assert (row["refusal_change"], row["p_sign_flip"], row["beats_random"]) == (0, 1, "0 of 4")
    # Eight nouns that did not change cannot bound the change of a ninth at 10 points.
    assert row["refusal_change_low"] < -0.1
    assert row["refusal_change_high"] > 0.1
    null = cell(half["ablation_sweep"], **{**PRIMARY, "frame": "random"})
    assert (null["draws"], null["refusal"]) == (4, 1.0)
    assert pd.isna(null["beats_random"])
    rival = cell(half["ablation_sweep"], **{**PRIMARY, "frame": "template_harmless"})
    assert pd.isna(rival["complied_gain_over_harmless"])


def test_draws_of_random_are_one_row_of_means() -> None:
    """Draw 0 frees all, draws 1 and 2 half: of 4 draws the mean over prompts is 2/4."""
    some = both(
        *(where(n, frame="random", draw=draw, k=3) for draw, n in ((0, 8), (1, 4), (2, 4))),
        HALF,
    )
    table = tables(ablation_files(some))["ablation_sweep"]
    row = cell(table, **{**PRIMARY, "frame": "random"})
    assert (row["draws"], row["refusal"]) == (4, 0.5)
    ends = [row[f"random_refusal_{name}"] for name in ("low", "median", "high")]
    assert ends == pytest.approx(np.quantile([0, 0.5, 0.5, 1], [0.05, 0.5, 0.95]))
    assert np.isnan(row["p_mcnemar_independent"])
    own = cell(table, **PRIMARY)
    assert own["beats_random"] == "1 of 4"
    assert own["status"] == "broken"
    assert own["why"] == "random frames of k = 3 lose 50 points of refusal"


def test_what_a_cell_cannot_decide_is_said() -> None:
    def noisy(lane: dict, condition: str, noun: int) -> str | None:
        wrecked = lane["frame"] == "did" and lane["k"] == 3 and condition == "harmless"
        return "noise" if wrecked and noun < 2 else None

    table = tables(ablation_files(noisy))["ablation_sweep"]
    broken = cell(table, **{**PRIMARY, "frame": "did"})
    assert broken["status"] == "broken"
    assert broken["why"] == "75% of harmless answers on topic, less than 80%"
    wide = cell(table, **{**PRIMARY, "k": 10})
    assert (wide["status"], wide["why"]) == (
        "wide",
        "k = 10 is more than an eighth of the width 64",
    )
    unjudged = tables(ablation_files(noisy), judged=False)["ablation_sweep"]
    row = cell(unjudged, **PRIMARY)
    assert (row["status"], row["judged"]) == ("no judge", False)
    assert row["why"].startswith("no judge of topics")
    assert row[["complied", "harmless_on_topic", "complied_gain_low"]].isna().all()
    assert row["refusal"] == 1.0


def test_fitted_prompts_flatter_by_a_number() -> None:
    fitted = where(8, experiment="sweep", **PRIMARY)
    table = tables(ablation_files(HALF, fitted=fitted))["ablation_sweep"]
    row = cell(table, protocol="fitted", **PRIMARY)
    assert (row["refusal_change"], row["inflation"]) == (-1.0, -0.5)
    assert row["inflation_low"] < -0.5 < row["inflation_high"] < 0.1
    assert not row["primary"]
    assert table.loc[table["protocol"] == "heldout", "inflation"].isna().all()
    random = cell(table, protocol="fitted", **{**PRIMARY, "frame": "random"})
    assert (random["draws"], pd.isna(random["inflation"])) == (1, True)
    same = tables(ablation_files(HALF, fitted=HALF))["ablation_sweep"]
    row = cell(same, protocol="fitted", **PRIMARY)
    assert row["inflation"] == 0
    assert row["inflation_low"] < 0 < row["inflation_high"]
    untouched = cell(same, protocol="fitted", **{**PRIMARY, "k": 1})
    assert untouched["inflation_low"] < -0.1


@pytest.mark.parametrize("seed", range(4))
def test_rows_are_the_paired_comparisons_of_the_library(seed: int) -> None:
    rng = np.random.default_rng(seed)
    before, after = (rng.random((2, 5, 40)) < 0.5).astype(float)
    names = [f"c{i % 9}" for i in range(40)]
    for row, found in enumerate(changes(before, after, names, seed=3)):
        one = compare_paired(
            before[row], after[row], names, draws=DRAWS, rng=np.random.default_rng(3)
        )
        assert found.rate == pytest.approx(one.rate_b)
        assert found.change == pytest.approx(one.difference)
        assert (found.p, found.p_mcnemar) == pytest.approx(
            (one.sign_flip.p_two_sided, one.p_mcnemar)
        )
        assert found.design_effect == pytest.approx(one.design_effect)
        # The exact test draws nothing, so the bootstrap is the same.
        assert (found.change_low, found.change_high) == pytest.approx((one.low, one.high))


def test_a_row_does_not_depend_on_its_company(half: dict[str, pd.DataFrame]) -> None:
    files = ablation_files(HALF)
    kept = files.lanes["frame"].isin(["template", "template_harmless", "random"])
    rows = {name: part.sample(frac=1, random_state=0) for name, part in files.rows.items()}
    alone = tables(PairFiles(files.lanes[kept], files.directions, rows, files.losses))
    keep = half["ablation_sweep"]["frame"].isin(["template", "template_harmless", "random"])
    expected = half["ablation_sweep"][keep].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone["ablation_sweep"], expected)


def test_what_one_kind_of_harm_loses_is_not_another_s() -> None:
    """The primary cell frees nouns 0 to 3; they are one category, the other four another."""
    files = ablation_files(HALF)
    rows = files.rows["heldout"]
    noun = rows["cluster"].str.removeprefix("harmful").str.removeprefix("harmless").astype(int)
    other = next(name for name in LANG.steps if name != TOPIC)
    changed = rows.assign(category=np.where(noun < 4, TOPIC, other))
    files = replace(files, rows={**files.rows, "heldout": changed})
    table = tables(files)["ablation_by_category"]
    freed, kept = (cell(table, category=name, **PRIMARY) for name in (TOPIC, other))
    assert (freed["refusal"], freed["complied"], freed["plain_refusal"]) == (0.0, 1.0, 1.0)
    assert (kept["refusal"], kept["complied"], kept["plain_refusal"]) == (1.0, 0.0, 1.0)
    assert (freed["n"], freed["clusters"]) == (8, 4)
    # Four nouns bound little.
    assert freed["refusal_high"] > 0.3
    assert set(table["k"]) == {1, 3, 5}
    assert cell(table, category=TOPIC, **{**PRIMARY, "frame": "random"})["draws"] == 4


def test_a_lane_that_lacks_a_prompt_is_refused() -> None:
    rows = ablation_files(nothing).rows["mode_toggle"]
    with pytest.raises(ValueError, match="harmful: not every lane answers every prompt once"):
        answers_of(rows.iloc[1:], LANG)
    with pytest.raises(ValueError, match="once"):
        answers_of(pd.concat([rows, rows.iloc[:1]]), LANG)
