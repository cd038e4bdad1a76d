"""The stage on files: joint tables of the pairs that finished, and what the claims make of them."""

from pathlib import Path

import pandas as pd
import pytest
from reference.localization_rows import Made, write_files

from actshift.engine.joining import JoinContext
from actshift.errors import UserError
from actshift.io.tables import read_table
from actshift.stages.claims import claims_file, make_claims
from actshift.stages.tables import make_tables
from actshift.studies.localization.lanes import LaneFacts
from actshift.studies.localization.study import COLUMNS, STUDY

PUBLISHED = Path(__file__).parents[3] / "resources" / "published"


def claimed(direction: str, facts: LaneFacts, _pair: int) -> float:
    """As published: a peak inside at the last prompt token, little backwards."""
    carried = {
        "patch": (0.2, 0.9, 0.5, 0.3, 0.1)[facts.layer]
        if facts.positions == "last_prompt"
        else 0.4,
        "interpolation": facts.alpha,
        "low_rank": {"states": 0.48, "shift": 0.49}.get(str(facts.basis), 0.05),
    }.get(facts.experiment, 0.02)
    return carried * (1.0 if direction == "forward" else 0.1)


def one_block(_operation: str, part: str, layer: int | None) -> float:
    return float(part == "block" and layer == 2)


FOUND = Made(claimed, one_block, layers=5, width=64, ranks=(1, 4))


def make(folder: Path, made: Made = FOUND, *, pairs: tuple[str, ...] = ("a", "b")) -> None:
    """Tables of pair `a` alone, below `folder / "localization"`."""
    write_files(made.files(), folder / "pairs" / "a")
    context = JoinContext(
        folders={"localization": {pair: folder / "pairs" / pair for pair in pairs}},
        published=PUBLISHED,
    )
    tables = {table.stem: table.names for table in STUDY.joined}
    make_tables(STUDY.join, context, tables=tables, out=folder / "localization")


def verdicts(folder: Path) -> pd.DataFrame:
    """What the shipped claims say of pair `a`, by id."""
    tables = sorted((folder / "localization").glob("*.csv"))
    make_claims(tables, [claims_file("localization")], folder, pairs=["a"])
    return read_table(folder / "claims_by_pair.csv").set_index("claim")


def test_every_table_is_there_and_a_missing_pair_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path)
    assert "localization: b is left out" in capsys.readouterr().out
    for name, columns in COLUMNS.items():
        table = read_table(tmp_path / "localization" / f"{name}.csv")
        assert tuple(table.columns) == columns
        assert set(table["pair"]) <= {"a"}
    published = read_table(tmp_path / "localization" / "localization_published.csv")
    assert tuple(published.columns) == STUDY.table("localization_published").names
    by_name = published.set_index("quantity")["value"]
    assert by_name["coefficient_layer_8"] == -0.18
    assert by_name["mean_delta_logp_rank_4_layer_9"] == 161.6
    assert by_name["mean_delta_logp_full_layer_9"] == 160.3
    with pytest.raises(UserError, match="localization: none of b has its rows"):
        make(tmp_path / "none", pairs=("b",))


def test_equal_files_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make(tmp_path / name)
    for name in COLUMNS:
        one, two = (tmp_path / run / "localization" / f"{name}.csv" for run in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_the_papers_truth_holds_and_its_opposite_fails(tmp_path: Path) -> None:
    """Planted as published; then diffuse, as strong backwards, and falling with the dose."""

    def diffuse(_direction: str, facts: LaneFacts, _pair: int) -> float:
        if facts.experiment == "low_rank":
            return {"states": 0.05}.get(str(facts.basis), 0.07)
        return 0.1 if facts.experiment == "patch" else 0.3 * (1 - facts.alpha)

    make(tmp_path / "found")
    make(tmp_path / "not", Made(diffuse, lambda *_: 0.2, width=64, ranks=(1, 4)))
    found, refuted = (verdicts(tmp_path / run)["verdict"] for run in ("found", "not"))
    decided = ("localised-to-few-units", "last-prompt-token-peak", "one-directional")
    more = ("dose-response", "low-rank", "low-rank-beyond-controls")
    for claim in (*decided, "one-directional-everywhere", *more):
        assert (found[claim], refuted[claim]) == ("holds", "fails"), claim
    # Equal parts everywhere have their centre in the middle, whatever tuning did.
    assert (found["localised-mid"], refuted["localised-mid"]) == ("holds", "by construction")


def test_four_of_few_dimensions_or_no_gap_decide_nothing(tmp_path: Path) -> None:
    """The made-up width is 16, so that 4 directions are a quarter of it."""
    make(tmp_path / "narrow", Made(claimed, one_block, layers=5))
    make(
        tmp_path / "none",
        Made(claimed, one_block, layers=5, gaps={"harmful": 0.0, "harmless": 5.0}, spread=3),
    )
    for run, why in (("narrow", "k is too large a share of the width"), ("none", "no gap between")):
        found = verdicts(tmp_path / run)
        for claim in ("low-rank", "low-rank-beyond-controls"):
            assert found.loc[claim, "verdict"] == "not measured"
            assert why in found.loc[claim, "reason"]
    assert set(found.loc[["localised-to-few-units", "one-directional"], "verdict"]) == {
        "not measured"
    }
