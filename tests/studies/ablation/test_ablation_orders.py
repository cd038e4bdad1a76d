"""Single directions, their order, exchanged components and side effects, all planted."""

import pandas as pd
import pytest
from reference.ablation_rows import LANG, Effect, ablation_files, both, where

from actshift.studies.ablation.join import PairFiles, pair_tables
from actshift.studies.ablation.study import COLUMNS


def tables(files: PairFiles) -> dict[str, pd.DataFrame]:
    found = pair_tables(files, pair="p", lang=LANG, seed=0)
    return {name: pd.DataFrame(rows, columns=list(COLUMNS[name])) for name, rows in found.items()}


def cell(table: pd.DataFrame, **facts: object) -> pd.Series:
    for column, value in facts.items():
        table = table[table[column] == value]
    assert len(table) == 1, f"{len(table)} rows of {facts}"
    return table.iloc[0]


def direction(number: str, frees: int) -> Effect:
    return where(frees, experiment="direction", frame="template", directions=number)


def leading(k: int, frees: int) -> Effect:
    return where(frees, experiment="sweep", frame="template", band="narrow", edit="zero", k=k)


@pytest.fixture(scope="module")
def inverted() -> dict[str, pd.DataFrame]:
    """u2 alone frees every noun, u1 none; u3 and u4 only together; u4 and on are not definite."""
    effect = both(direction("2", 8), direction("3+4", 8), direction("7", 8), leading(5, 8))
    return tables(ablation_files(effect, self_cosine=lambda i: 0.99 if i < 4 else 0.5))


def test_every_set_of_directions_has_its_row(inverted: dict[str, pd.DataFrame]) -> None:
    table = inverted["direction_ablation"]
    own = table[table["frame"] == "template"]
    counts = own["kind"].value_counts().to_dict()
    assert counts == {"single": 10, "pair": 10, "leave_one_out": 5, "all_five": 1}
    assert cell(own, kind="all_five")["directions"] == "1+2+3+4+5"
    assert cell(own, directions="2")["refusal_change"] == -1.0
    assert pd.isna(cell(own, directions="2")["interaction"])
    assert cell(own, directions="7")["self_cosine_min"] == 0.5
    assert cell(own, directions="1+2")["energy_removed"] == 2 / 64


def test_interaction_is_what_a_set_does_beyond_its_members(
    inverted: dict[str, pd.DataFrame],
) -> None:
    own = inverted["direction_ablation"].query("frame == 'template'")
    # Neither does anything alone; u2 does all alone and nothing beside u1.
    assert cell(own, directions="3+4")["interaction"] == -1.0
    assert cell(own, directions="1+2")["interaction"] == 1.0
    assert cell(own, directions="1+3")["interaction"] == 0.0
    # All five: everything is freed, as by u2 alone.
    assert cell(own, kind="all_five")["interaction"] == 0.0


def test_an_inverted_order_is_found(inverted: dict[str, pd.DataFrame]) -> None:
    own = inverted["ordering"].query("test == 'inversion' and frame == 'template'")
    assert len(own) == 45
    found = cell(own, earlier=1, later=2)
    assert (found["earlier_value"], found["later_value"], found["difference"]) == (0.0, 1.0, 1.0)
    assert found["exceeds"]
    # Three pairs of three definite directions; all eight nouns change one way.
    assert found["pairs_tested"] == 3
    assert (found["p"], found["p_holm"]) == (pytest.approx(1 / 2**8), pytest.approx(3 / 2**8))
    assert found["low"] > 0
    assert not cell(own, earlier=2, later=3)["exceeds"]
    assert own["exceeds"].sum() == 1


def test_directions_that_are_not_definite_are_not_tested(
    inverted: dict[str, pd.DataFrame],
) -> None:
    row = cell(inverted["ordering"], test="inversion", frame="template", earlier=1, later=7)
    assert not row["stable"]
    assert row[["difference", "low", "high", "p", "p_holm"]].isna().all()
    assert (row["later_value"], row["exceeds"], row["status"]) == (1.0, False, "unstable")
    assert row["why"] == "7: |cos| with itself below 0.9 in some layer"


def test_equal_directions_are_not_told_apart_and_stay_open() -> None:
    found = tables(ablation_files())["ordering"].query("test == 'inversion'")
    assert not found["exceeds"].any()
    # No noun of eight changed: that does not bound a difference at 5 points.
    assert (found["high"] > 0.05).all()
    assert found["kendall_tau"].isna().all()


def test_a_curve_that_rises_again_is_found() -> None:
    """k = 1 frees all nouns, k = 3 none, k = 5 half; k = 10 is too wide to count."""
    effect = both(leading(1, 8), leading(5, 4), leading(10, 8))
    table = tables(ablation_files(effect))["ordering"].query("test == 'monotonicity'")
    own = table.query("frame == 'template' and band == 'narrow' and edit == 'zero'")
    rise = cell(own, earlier=1, later=3)
    assert (rise["difference"], rise["exceeds"], rise["pairs_tested"]) == (1.0, True, 3)
    assert rise["p_holm"] == pytest.approx(3 / 2**8)
    assert not cell(own, earlier=3, later=5)["exceeds"]
    wide = cell(own, earlier=5, later=10)
    assert (wide["status"], pd.isna(wide["difference"])) == ("wide", True)
    assert not table.query("frame == 'naive'")["exceeds"].any()


def test_a_curve_that_falls_is_in_order() -> None:
    effect = both(leading(1, 3), leading(3, 5), leading(5, 8))
    table = tables(ablation_files(effect, ks=(1, 3, 5)))["ordering"].query("test == 'monotonicity'")
    own = table.query("frame == 'template' and band == 'narrow' and edit == 'zero'")
    assert not own["exceeds"].any()
    assert own["kendall_tau"].tolist() == pytest.approx([1.0] * 3)


def test_a_direction_that_wrecks_harmless_answers_is_not_tested() -> None:
    def wrecks(lane: dict, condition: str, _noun: int) -> str | None:
        return "noise" if lane["directions"] == "2" and condition == "harmless" else None

    table = tables(ablation_files(both(wrecks, direction("2", 8))))["ordering"]
    row = cell(table, test="inversion", frame="template", earlier=1, later=2)
    assert (row["stable"], row["exceeds"], row["status"]) == (True, False, "broken")
    assert row["why"] == "2: 0% of harmless answers on topic, less than 80%"


def test_exchanged_components_and_their_share_of_the_gap() -> None:
    cell_of = {"frame": "template", "band": "narrow", "k": 3}

    def brings(lane: dict, condition: str, noun: int) -> str | None:
        toggled = lane["experiment"] == "mode_toggle" and condition == "harmful"
        named = all(lane[key] == value for key, value in cell_of.items())
        return "refuse" if toggled and named and noun < 2 else None

    effect = both(brings, where(4, experiment="substitution", **cell_of))
    table = tables(ablation_files(effect))["substitution"]
    row = cell(table, lane="substitution", **cell_of)
    assert (row["receiver"], row["donor"]) == ("tuned", "base")
    assert (row["refusal"], row["plain_refusal"], row["donor_refusal"]) == (0.5, 1.0, 0.0)
    assert (row["share_of_gap"], row["status"], row["primary"]) == (0.5, "decided", False)
    row = cell(table, lane="mode_toggle", **cell_of)
    assert (row["plain_refusal"], row["donor_refusal"], row["refusal_change"]) == (0.0, 1.0, 0.25)
    assert (row["share_of_gap"], row["primary"], row["shift_share"]) == (0.25, True, 0.5)
    assert cell(table, lane="mode_toggle", **{**cell_of, "frame": "random"})["draws"] == 4
    alike = tables(ablation_files(effect, base_refuses=True))["substitution"]
    row = cell(alike, lane="substitution", **cell_of)
    assert (row["status"], row["why"]) == ("no gap", "donor and receiver refuse alike")
    assert pd.isna(row["share_of_gap"])


def test_a_random_frame_that_brings_refusal_breaks_the_control() -> None:
    def brings(lane: dict, condition: str, _noun: int) -> str | None:
        named = lane["experiment"] == "mode_toggle" and lane["frame"] == "random" and lane["k"] == 3
        return "refuse" if named and condition == "harmful" else None

    table = tables(ablation_files(brings))["substitution"]
    row = cell(table, lane="mode_toggle", frame="template", band="narrow", k=3)
    assert (row["status"], row["refusal_change"]) == ("broken", 0.0)
    assert row["why"] == "random frames of k = 3 add 100 points of refusal"


def test_the_old_direction_beside_the_new_one() -> None:
    effect = where(8, experiment="old_or_new", directions="new", band="narrow")
    table = tables(ablation_files(effect))["old_or_new"]
    assert len(table) == 12
    new = cell(table, direction="new", band="narrow", edit="zero")
    assert (new["refusal"], new["complied"], new["random_refusal_median"]) == (0.0, 1.0, 1.0)
    assert (new["cos_with_tuned"], new["status"]) == (0.5, "decided")
    assert cell(table, direction="base", band="narrow", edit="zero")["refusal_change"] == 0


def test_side_effects_on_harmless_prompts_and_plain_text() -> None:
    def refuses(lane: dict, condition: str, noun: int) -> str | None:
        named = lane["frame"] == "naive" and lane["k"] == 3 and condition == "harmless"
        return "refuse" if named and noun < 2 else None

    table = tables(ablation_files(refuses))["side_effects"]
    where_ = {"experiment": "sweep", "band": "narrow", "edit": "zero"}
    row = cell(table, frame="naive", k=3, **where_)
    assert (row["over_refusal"], row["over_refusal_change"]) == (0.25, 0.25)
    assert (row["on_topic"], row["on_topic_change"], row["kl_first"]) == (0.75, -0.25, 0.125)
    assert (row["loss"], row["loss_change"]) == (pytest.approx(2.3), pytest.approx(0.3))
    quiet = cell(table, frame="random", k=5, **where_)
    assert (quiet["over_refusal"], quiet["draws"], quiet["ended"]) == (0.0, 4, 1.0)
    # Losses are read of the tuned model alone; exchanged components have none.
    patched = table[table["experiment"] == "mode_toggle"]
    assert patched["loss"].isna().all()
    assert set(table["experiment"]) == {
        "sweep", "direction", "old_or_new", "substitution", "mode_toggle"
    }  # fmt: skip
