"""The report after a failure, called as the Snakefile calls it, on runs with little or nothing."""

from pathlib import Path

import pandas as pd
import pytest
import yaml
from report.synthetic_causal import causal_tables
from report.synthetic_tables import synthetic_tables

from actshift.config import Config, parse_config
from actshift.io.tables import read_table, write_table
from actshift.partial import _judge, partial_report
from actshift.paths import RunPaths
from actshift.plan import Plan
from actshift.stages.calibration import train_calibration
from actshift.zoo import lexicon

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.chdir(tmp_path)
    return parse_config(yaml.safe_load((ROOT / "config.yaml").read_text()), origin="config.yaml")


def test_without_any_table_every_claim_says_what_is_missing(config: Config) -> None:
    page = partial_report(config, root=ROOT)
    found = read_table(page.parent / "tables" / "claims.csv")
    assert set(found["verdict"]) == {"not measured"}
    assert found["reason"].str.endswith("has not been made").all()
    html = page.read_text(encoding="utf-8")
    assert "table ablation_sweep.csv has not been made" in html
    assert "No pair has finished in this run" in html


def test_tables_that_are_there_are_used(config: Config) -> None:
    pair = config.pairs[0].name
    tables = Path("results") / config.run / "tables"
    write_table(synthetic_tables((pair,), n_layers=2)["cosine"], tables / "rank_audit/cosine.csv")
    partial_report(config, root=ROOT)
    units = read_table(tables / "claims_by_pair.csv")
    own = units.loc[(units["claim"] == "did-recovers-refusal") & (units["name"] == pair)]
    assert own["verdict"].tolist() == ["by construction"]


def test_every_study_with_a_table_gets_its_figures_and_the_others_none(config: Config) -> None:
    pair = config.pairs[0].name
    tables = Path("results") / config.run / "tables"
    made = causal_tables((pair,))
    for name in ("refusal_effect", "refusal_direction"):
        write_table(made[name], tables / f"rank_audit/{name}.csv")
    page = partial_report(config, root=ROOT)
    drawn = {path.parent.name for path in (page.parent / "figures").glob("*/*.svg")}
    assert drawn == {"rank_audit", "refusal_direction"}
    html = page.read_text(encoding="utf-8")
    assert 'id="figures-refusal_direction"' in html
    assert 'id="figures-calibration"' not in html


def test_joint_tables_are_made_of_the_seeds_that_finished(config: Config) -> None:
    done = Plan(config).paths.calibration(1)
    train_calibration(seed=1, epochs={"base": 3, "finetune": 2, "distributed": 2}, out=done)
    page = partial_report(config, root=ROOT)
    table = read_table(page.parent / "tables/calibration/calibration_ablation.csv")
    assert set(table["seed"]) == {1}
    assert 'id="figure-calibration_bias_sign"' in page.read_text(encoding="utf-8")


def test_what_a_failure_leaves_is_older_than_what_it_is_made_of(config: Config) -> None:
    """Else Snakemake would take the partial page for the finished one."""
    done = Plan(config).paths.calibration(1)
    train_calibration(seed=1, epochs={"base": 3, "finetune": 2, "distributed": 2}, out=done)
    tables = Plan(config).paths.tables
    kept = tables / "rank_audit" / "cosine.csv"
    write_table(synthetic_tables((config.pairs[0].name,), n_layers=2)["cosine"], kept)
    date = kept.stat().st_mtime_ns
    for _ in range(2):
        page = partial_report(config, root=ROOT)
        made = [page, tables / "calibration" / "calibration_rank.csv", tables / "claims.csv"]
        made += (page.parent / "figures").glob("*/*.svg")
        assert len(made) > 5
        oldest = min(file.stat().st_mtime_ns for file in done.iterdir())
        assert all(file.stat().st_mtime_ns < oldest for file in made)
        assert kept.stat().st_mtime_ns == date


def test_a_study_whose_folders_are_damaged_leaves_the_rest(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    (Plan(config).paths.calibration(0)).mkdir(parents=True)
    page = partial_report(config, root=ROOT)
    assert page.is_file()
    assert "no joint tables of calibration" in capsys.readouterr().out


def test_a_damaged_claims_file_leaves_the_rest_and_no_old_verdicts(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = partial_report(config, root=ROOT).parent / "tables"
    assert (tables / "claims.csv").is_file()
    broken = tmp_path / "broken" / "resources" / "claims.yaml"
    broken.parent.mkdir(parents=True)
    broken.write_text("- id: x\n")
    page = partial_report(config, root=broken.parents[1])
    assert page.is_file()
    assert not (tables / "claims.csv").exists()
    assert "no claims: resources/claims.yaml: claim 'x'" in capsys.readouterr().out


def test_answers_that_are_there_are_judged_unless_a_chat_judge_is_wanted(config: Config) -> None:
    pair = config.pairs[0].name
    answers = RunPaths(config.run).pair_tables(pair, "ablation")
    answers.mkdir(parents=True)
    row = {"lane": "plain", "condition": "harmful", "prompt_id": "a", "category": "weapon"}
    rows = pd.DataFrame([{**row, "cluster": "c", "text": lexicon.REFUSAL, "refused": True}])
    rows.to_parquet(answers / "heldout.parquet")
    names = ("lane", "experiment", "frame", "band", "edit", "k")
    write_table(pd.DataFrame(columns=list(names)), answers / "lanes.csv")
    chat = config.judge.model_copy(update={"endpoint": "http://127.0.0.1:9/v1", "model": "m"})
    for judge in (chat, config.judge):
        changed = config.model_copy(update={"studies": ("rank_audit", "ablation"), "judge": judge})
        _judge(Plan(changed))
        table = RunPaths(config.run).study_tables("rank_audit") / "judge.csv"
        assert table.is_file() is (judge is config.judge)
    assert read_table(table)["n"].sum() == 1
