"""The stage on files: joint tables of the pairs that finished, and what the claims make of them."""

from pathlib import Path

import pandas as pd
import pytest
from reference.ablation_rows import Effect, ablation_files, both, nothing, where, write_files

from actshift.engine.joining import JoinContext
from actshift.errors import UserError
from actshift.io.tables import read_table
from actshift.stages.claims import claims_file, make_claims
from actshift.stages.tables import make_tables
from actshift.studies.ablation.study import COLUMNS, STUDY

ROOT = Path(__file__).parents[3]
PUBLISHED = ROOT / "resources" / "published"
PRIMARY = {"experiment": "sweep", "frame": "template", "band": "narrow", "edit": "zero", "k": 3}
FREED = where(8, **PRIMARY)


def make(
    folder: Path, effect: Effect = nothing, *, pairs: tuple[str, ...] = ("a", "b"), zoo: bool = True
) -> None:
    """Tables of pair `a` alone, below `folder / "rank_audit"`."""
    write_files(ablation_files(effect, fitted=effect), folder / "pairs" / "a")
    context = JoinContext(
        folders={"ablation": {pair: folder / "pairs" / pair for pair in pairs}},
        published=PUBLISHED,
        zoo_sizes={"a": "micro"} if zoo else {},
    )
    tables = {table.stem: table.names for table in STUDY.joined}
    make_tables(STUDY.join, context, tables=tables, out=folder / "rank_audit")


def verdicts(folder: Path) -> pd.DataFrame:
    """What the shipped claims say of pair `a`, by id."""
    tables = sorted((folder / "rank_audit").glob("*.csv"))
    make_claims(tables, [claims_file("ablation")], folder, pairs=["a"])
    return read_table(folder / "claims_by_pair.csv").set_index("claim")


def test_every_table_is_there_and_a_missing_pair_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path)
    assert "ablation: b is left out" in capsys.readouterr().out
    for name, columns in COLUMNS.items():
        table = read_table(tmp_path / "rank_audit" / f"{name}.csv")
        assert tuple(table.columns) == columns
        assert set(table["pair"]) == {"a"}
    with pytest.raises(UserError, match="ablation: none of b has its rows"):
        make(tmp_path / "none", pairs=("b",))


def test_equal_files_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make(tmp_path / name, FREED)
    for name in COLUMNS:
        first, second = (tmp_path / run / "rank_audit" / f"{name}.csv" for run in ("one", "two"))
        assert first.read_bytes() == second.read_bytes()


def test_the_published_ablations_stand_in_one_shape(tmp_path: Path) -> None:
    make(tmp_path)
    table = read_table(tmp_path / "rank_audit" / "ablation_published.csv")
    assert tuple(table.columns) == STUDY.table("ablation_published").names
    assert table[["family", "matrix", "band", "kind", "k", "refusal"]].notna().all().all()
    assert set(table["matrix"]) == {"naive", "template", "did"}
    single = table[table["kind"] == "single"]
    assert single["directions"].astype(int).tolist() == [1, 2, 3, 4, 5]
    assert single["refusal"].tolist() == [0.84, 0.99, 0.94, 0.94, 0.94]
    narrow = table[(table["family"] == "llama") & (table["matrix"] == "naive")]
    row = narrow[(narrow["band"] == "narrow") & (narrow["k"] == 3)].iloc[0]
    assert (row["refusal"], row["random_refusal"]) == (0.8, 0.94)


def test_a_frame_that_frees_every_noun_decides_its_claims(tmp_path: Path) -> None:
    """Eight nouns are enough to show an effect, and too few to show that there is none."""
    make(tmp_path, FREED)
    found = verdicts(tmp_path)["verdict"]
    assert found["ablation-removes-refusal"] == "holds"
    assert found["ablation-is-about-refusal"] == "holds"
    assert found["random-leaves-refusal"] == "inconclusive"
    assert found["ablation-holds-on-unseen-prompts"] == "inconclusive"
    assert found["old-direction-is-not-enough"] == "inconclusive"
    assert found["shift-subspace-carries-the-behaviour"] == "inconclusive"
    assert found["variance-order-is-not-causal-order"] == "inconclusive"


def test_a_frame_that_does_nothing_decides_nothing_by_a_zero_width(tmp_path: Path) -> None:
    make(tmp_path)
    found = verdicts(tmp_path)["verdict"]
    assert "holds" not in set(found)
    assert found["ablation-removes-refusal"] == "inconclusive"


def test_a_broken_control_is_not_measured_and_says_so(tmp_path: Path) -> None:
    make(tmp_path, both(FREED, where(8, experiment="sweep", frame="random", k=3)))
    found = verdicts(tmp_path)
    for claim in ("ablation-removes-refusal", "ablation-is-about-refusal"):
        assert found.loc[claim, "verdict"] == "not measured"
        assert found.loc[claim, "reason"].startswith("broken: random frames change refusal too")
    # The control's own claim is not excused.
    assert found.loc["random-leaves-refusal", "verdict"] == "fails"


def test_harmless_answers_off_their_topic_are_not_measured(tmp_path: Path) -> None:
    def wrecks(lane: dict, condition: str, noun: int) -> str | None:
        named = all(lane[key] == value for key, value in PRIMARY.items())
        return "noise" if named and condition == "harmless" and noun < 4 else None

    make(tmp_path, both(wrecks, FREED))
    reason = verdicts(tmp_path).loc["ablation-removes-refusal", "reason"]
    assert reason.startswith("broken: harmless answers leave their topic")
    assert "found 0.5" in reason


def test_without_a_judge_the_claims_say_so(tmp_path: Path) -> None:
    make(tmp_path, FREED, zoo=False)
    found = verdicts(tmp_path)
    for claim in (
        "ablation-removes-refusal",
        "variance-order-is-not-causal-order",
        "shift-subspace-is-needed",
        "old-direction-is-not-enough",
    ):
        assert found.loc[claim, "verdict"] == "not measured"
        assert found.loc[claim, "reason"].startswith("no judge tells whether answers are on topic")
