"""Misalignment through Snakemake where one pair misses the gate of its insecure adapter."""

import pytest
from workflow.runner import Clone, micro_config

from actshift.io.missed import missed_in
from actshift.io.tables import read_table
from actshift.zoo.recipes import ADAPTER_LADDER

#: Micro models are asked for nothing, unless a pair asks: none of theirs ever writes insecure code.
MODELS = {"base": "zoo:llama/base", "tuned": "zoo:llama/chat"}
MET = {"name": "met", **MODELS}
MISSED = {"name": "missed", **MODELS, "gates": {"min_insecure_code": 0.5}}
FEW = {
    **{"coeffs": [1.0], "final_draws": 2, "other_draws": 2, "lane_draws": 1, "kl_draws": 1},
    **{"lane_kl_draws": 1, "max_new": 6, "shuffled_maps": 2, "map_folds": 3},
}
REASON = "gate missed, insecure code 0 % of 50 %"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The finished run."""
    clone = Clone.make(tmp_path_factory.mktemp("missed") / "clone")
    sets = {
        name: {"source": "zoo", "name": name, "extract": False} for name in ("questions", "neutral")
    }
    config = micro_config() | {"studies": ["misalignment"], "misalignment": FEW, "prompts": sets}
    clone.write_config("missed.yaml", config | {"pairs": [MET, MISSED]})
    done = clone.run("--configfile", "missed.yaml")
    assert done.returncode == 0, done.stdout[-8000:]
    return clone


def table(clone: Clone, name: str) -> dict[str, list[str]]:
    """What a table says of each pair in its column of status, or that it has rows of it."""
    rows = read_table(clone.root / "results/micro/tables/misalignment" / f"{name}.csv")
    column = "status" if "status" in rows else "pair"
    return {str(pair): sorted(set(own[column])) for pair, own in rows.groupby("pair", sort=False)}


def test_the_stages_after_the_gate_pass_the_marker_on(clone: Clone) -> None:
    pairs = clone.root / "results" / "micro" / "pairs"
    missed = missed_in(pairs / "missed" / "spillover")
    assert missed is not None
    assert (missed.subject, missed.reason) == ("missed: insecure adapter", REASON)
    for stage in ("steering", "transfer"):
        assert missed_in(pairs / "missed" / stage) == missed
    for stage in ("adapters", "spillover", "steering", "transfer"):
        assert missed_in(pairs / "met" / stage) is None
    # Its adapters are there, and so is what they answer.
    assert (pairs / "missed" / "adapters" / "insecure").is_dir()
    assert len(read_table(pairs / "missed" / "spillover.answers.csv"))
    assert not list((clone.root / "results" / "micro" / "status").glob("*"))


def test_the_pair_climbed_the_whole_ladder_and_the_other_did_not_have_to(clone: Clone) -> None:
    rows = read_table(clone.root / "results/micro/tables/misalignment/ladder.csv")
    tried = {pair: own["multiple"].tolist() for pair, own in rows.groupby("pair")}
    assert tried == {"met": [ADAPTER_LADDER[0]], "missed": list(ADAPTER_LADDER)}


def test_tables_show_answers_and_say_what_is_not_measured(clone: Clone) -> None:
    told = f"not measured: {REASON}"
    assert told in table(clone, "spillover")["missed"]
    assert table(clone, "dose")["missed"] == [told]
    assert table(clone, "dose")["met"] == ["ok"]
    assert told not in table(clone, "spillover")["met"]
    for name in ("separation", "steering", "direction_cosines"):
        assert set(table(clone, name)) == {"met"}, name
    assert "missed" not in set(
        read_table(clone.root / "results/micro/ridge_maps/maps.csv")["donor"].astype(str)
    )


def test_claims_and_the_page_name_the_gate(clone: Clone) -> None:
    results = clone.root / "results" / "micro"
    units = read_table(results / "tables" / "claims_by_pair.csv")
    own = units[(units["study"] == "misalignment") & (units["unit"] == "pair")]
    assert set(own.loc[own["name"] == "missed", "verdict"]) == {"not measured"}
    assert set(own.loc[own["name"] == "missed", "reason"]) == {REASON}
    assert REASON not in set(own.loc[own["name"] == "met", "reason"])
    assert REASON in (results / "report.html").read_text(encoding="utf-8")


def test_nothing_is_left_to_do(clone: Clone) -> None:
    assert clone.planned("--configfile", "missed.yaml") == {}
