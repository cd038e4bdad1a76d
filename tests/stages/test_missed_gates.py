"""Joint stages where a pair missed its gate: it is left out, with its reason; so may all be."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from report.synthetic_tables import synthetic_tables

from actshift.engine.chat_judge import JudgeSettings
from actshift.engine.context import JobContext
from actshift.engine.joining import JoinContext
from actshift.errors import UserError
from actshift.io.missed import Missed, mark_missed, missed_in
from actshift.io.tables import read_table, write_table
from actshift.prompts.records import write_prompts
from actshift.stages.claims import claims_file, make_claims
from actshift.stages.tables import collect_attempts, collect_behaviour, make_tables
from actshift.studies.ablation.judge import judge_answers
from actshift.studies.localization.gate import collect_margins
from actshift.studies.misalignment.judge import judge_misalignment
from actshift.studies.misalignment.stages.ridge_maps import ridge_maps
from actshift.studies.misalignment.study import Misalignment
from actshift.studies.rank_audit.study import COLUMNS as RANK_TABLES
from actshift.studies.registry import STUDIES
from actshift.studies.spectral_gap.stage import spectral_gap_of_pair, unusable
from actshift.studies.spectral_gap.study import Kappa
from actshift.zoo.prompts import zoo_prompts

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "resources" / "published"
REASON = "gate missed, refused harmful/howto (chat) 8 % of 95 %"
MISSED = Missed("zoo llama-micro-s0/chat", REASON, "All rates.", "zoo")
#: Studies that join pairs.
JOINED = [name for name, study in STUDIES.items() if study.stages]


def marked(*folders: Path) -> None:
    for folder in folders:
        mark_missed(folder, MISSED)


def questions(folder: Path, name: str) -> Path:
    write_prompts(folder / name, zoo_prompts(name, size="micro"))
    return folder / name


def join_study(name: str, pairs: dict[str, Path], out: Path) -> None:
    """The joint tables of a study, each stage of a pair in the same folder."""
    study, root = STUDIES[name], out.parent
    context = JoinContext(
        folders=dict.fromkeys(study.stages, pairs),
        published=PUBLISHED,
        files={"maps": root / "maps", "questions": questions(root, "questions")},
        zoo_sizes=dict.fromkeys(pairs, "micro"),
    )
    tables = {table.stem: table.names for table in study.joined}
    make_tables(study.join, context, tables=tables, out=out)


def joint_stages(root: Path, pairs: dict[str, Path]) -> dict[str, Callable[[Path], Any]]:
    """Every stage that joins pairs, on the same folders, by name."""
    nowhere = JudgeSettings(endpoint="http://127.0.0.1:9/v1", model="m")
    maps = Misalignment(map_folds=4, shuffled_maps=2, final_draws=2)
    return {
        **{name: partial(join_study, name, pairs) for name in JOINED},
        "judge": lambda out: judge_answers(
            pairs=pairs,
            zoo_sizes=dict.fromkeys(pairs, "micro"),
            prompts=[],
            settings=nowhere,
            cache=root / "c",
            out=out,
        ),
        "misalignment_judge": lambda out: judge_misalignment(
            pairs=pairs,
            prompts=[questions(root, "questions")],
            settings=nowhere,
            cache=root / "c",
            out=out,
        ),
        "ridge_maps": lambda out: ridge_maps(
            pairs=pairs,
            neutral=questions(root, "neutral"),
            families=dict.fromkeys(pairs, "zoo:llama/chat"),
            settings=maps,
            seed=0,
            out=out,
        ),
    }


JOINT = sorted(joint_stages(Path(), {}))


@pytest.mark.parametrize("stage", JOINT)
def test_where_all_pairs_missed_their_gates_there_are_headers_and_no_error(
    stage: str, tmp_path: Path
) -> None:
    # Published tables have models of other names.
    pairs = {name: tmp_path / "pairs" / name / stage for name in ("own", "other")}
    marked(*pairs.values())
    out = tmp_path / "out"
    joint_stages(tmp_path, pairs)[stage](out)
    tables = {file.stem: read_table(file) for file in out.glob("*.csv")}
    assert tables
    for name, table in tables.items():
        assert len(table.columns)
        for column in ("pair", "donor", "model"):
            told = set(table[column].astype(str)) if column in table else set()
            assert name == "pairs" or not told & set(pairs)
    assert not list(out.rglob("*.partial"))


@pytest.mark.parametrize("stage", [one for one in JOINT if one != "ridge_maps"])
def test_where_all_jobs_failed_that_is_still_an_error(stage: str, tmp_path: Path) -> None:
    pairs = {name: tmp_path / "pairs" / name / stage for name in ("llama", "qwen")}
    with pytest.raises(UserError, match=r"none of llama, qwen has"):
        joint_stages(tmp_path, pairs)[stage](tmp_path / "out")


def test_one_marked_pair_beside_a_failed_one_is_no_error(tmp_path: Path) -> None:
    pairs = {"llama": tmp_path / "llama", "qwen": tmp_path / "gone"}
    marked(pairs["llama"])
    join_study("rank_audit", pairs, tmp_path / "out")
    found = read_table(tmp_path / "out" / "pairs.csv").set_index("pair")["status"]
    assert found.to_dict() == {"llama": f"not measured: {REASON}", "qwen": "missing"}


def test_a_marked_pair_changes_no_row_of_the_others(tmp_path: Path) -> None:
    made = synthetic_tables(("llama",), n_layers=2)
    for name in RANK_TABLES:
        rows = made.get(name, pd.DataFrame(columns=list(RANK_TABLES[name])))
        write_table(rows, tmp_path / "llama" / f"{name}.csv")
    marked(tmp_path / "qwen")
    pairs = {name: tmp_path / name for name in ("llama", "qwen")}
    for out, chosen in (("both", pairs), ("alone", {"llama": pairs["llama"]})):
        join_study("rank_audit", chosen, tmp_path / out)
    # `pairs` says which pairs there are.
    for name in set(RANK_TABLES) - {"pairs"}:
        one, two = (tmp_path / out / f"{name}.csv" for out in ("both", "alone"))
        assert one.read_bytes() == two.read_bytes(), name
    status = read_table(tmp_path / "both" / "pairs.csv").set_index("pair")["status"]
    assert status.to_dict() == {"llama": "present", "qwen": f"not measured: {REASON}"}


def test_the_log_says_why_a_pair_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = {"llama": tmp_path / "llama", "gone": tmp_path / "gone"}
    marked(pairs["llama"])
    join_study("localization", pairs, tmp_path / "out")
    told = capsys.readouterr().out
    assert f"llama is left out: not measured: {REASON}" in told
    assert "gone is left out: its job failed" in told


def test_a_claim_about_a_marked_pair_says_which_gate_was_missed(tmp_path: Path) -> None:
    # Rows of the pair are there all the same: those of an earlier run, or answers alone.
    pairs = ["llama", "qwen"]
    made = synthetic_tables(("llama", "qwen"), n_layers=3)
    tables = [tmp_path / "rank_audit" / f"{name}.csv" for name in ("rank", "inflation")]
    for file in tables:
        write_table(made[file.stem], file)
    for out, folders in (("plain", None), ("marked", {"rank_audit": {"qwen": tmp_path / "q"}})):
        marked(tmp_path / "q")
        make_claims(
            tables, [*map(claims_file, STUDIES)], tmp_path / out, pairs=pairs, folders=folders
        )
    plain, found = (
        read_table(tmp_path / out / "claims_by_pair.csv").set_index(["claim", "name"])
        for out in ("plain", "marked")
    )
    own = found.loc[("template-inflates-rank", "qwen")]
    assert (own["verdict"], own["reason"]) == ("not measured", REASON)
    assert plain.loc[("template-inflates-rank", "qwen"), "verdict"] != "not measured"
    # The other pair's verdict is its own, and other studies say what they lack.
    pd.testing.assert_series_equal(
        plain.loc[("template-inflates-rank", "llama")],
        found.loc[("template-inflates-rank", "llama")],
    )
    other = found.loc[("ablation-removes-refusal", "qwen")]
    assert other["reason"] == "table ablation_sweep.csv has not been made"
    claims = read_table(tmp_path / "marked" / "claims.csv").set_index("claim")
    assert claims.loc["template-inflates-rank", "holds_in"] == "0 of 2"


def test_files_that_were_passed_on_are_empty_and_left_out(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").touch()
    (tmp_path / "tried.csv").touch()
    (tmp_path / "margins.csv").touch()
    assert collect_behaviour([tmp_path / "rows.csv"]).empty
    assert collect_attempts([tmp_path / "tried.csv"]).empty
    table = collect_margins({"llama": tmp_path / "margins.csv"}, seed=0)
    assert table.empty
    assert "pair" in table


def test_a_gap_needs_both_models_and_one_reference(tmp_path: Path) -> None:
    by_role = {role: tmp_path / f"p.{role}" for role in ("base", "tuned", "one", "two")}
    for folder in by_role.values():
        folder.mkdir()
    assert unusable(by_role) is None
    marked(by_role["one"])
    assert unusable(by_role) is None
    marked(by_role["two"])
    assert unusable(by_role) == MISSED
    assert unusable({role: by_role[role] for role in ("base", "tuned")}) is None
    shutil.rmtree(by_role["two"])
    by_role["two"].mkdir()
    marked(by_role["base"])
    assert unusable(by_role) == MISSED


def test_a_pair_without_a_usable_reference_passes_its_marker_on(tmp_path: Path, capsys) -> None:
    stores = [tmp_path / f"p.{role}" / "harmful.chat" for role in ("base", "tuned", "full")]
    marked(stores[2])
    context = JobContext("r", "p", "auto", "cpu", 0, "c", tmp_path)
    settings = Kappa(eps=0.1, half_sample_draws=1)
    inputs = {"stores": stores}
    spectral_gap_of_pair(inputs, settings=settings, context=context, out=tmp_path / "out")
    assert capsys.readouterr().out == f"p: {MISSED.status}\n"
    assert missed_in(tmp_path / "out") == MISSED
