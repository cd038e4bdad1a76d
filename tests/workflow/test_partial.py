"""The report after a failure, called as the Snakefile calls it, on runs with little or nothing."""

from pathlib import Path

import pandas as pd
import pytest
import yaml
from report.synthetic_causal import causal_tables
from report.synthetic_localization import localization_tables
from report.synthetic_tables import synthetic_tables

from actshift import partial
from actshift.config.schema import Config, parse_config
from actshift.io.tables import read_table, write_table
from actshift.partial import _judge, partial_report
from actshift.paths import RunPaths
from actshift.plan.plan import Plan
from actshift.studies.calibration.stage import train_calibration
from actshift.studies.calibration.study import CalibrationEpochs
from actshift.zoo import lexicon

ROOT = Path(__file__).parents[2]
EPOCHS = CalibrationEpochs(base=3, finetune=2, distributed=2)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.chdir(tmp_path)
    return parse_config(yaml.safe_load((ROOT / "config/zoo.yaml").read_text()), origin="zoo.yaml")


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


def test_what_a_study_left_that_is_switched_off_is_no_part_of_the_run(config: Config) -> None:
    tables = Path("results") / config.run / "tables"
    made = causal_tables((config.pairs[0].name,))
    for name in ("refusal_effect", "refusal_direction"):
        write_table(made[name], tables / f"rank_audit/{name}.csv")
    reasons, pages = [], []
    for studies in (("rank_audit", "refusal_direction"), ("rank_audit",)):
        page = partial_report(config.model_copy(update={"studies": studies}), root=ROOT)
        claims = read_table(tables / "claims.csv").set_index("claim")
        reasons.append(str(claims.loc["one-direction-carries-refusal", "reason"]))
        pages.append(page.read_text(encoding="utf-8"))
    left = "table refusal_effect.csv has not been made"
    assert [left in reason for reason in reasons] == [False, True]
    assert ['id="figures-refusal_direction"' in html for html in pages] == [True, False]


def test_joint_tables_are_made_of_the_seeds_that_finished(config: Config) -> None:
    done = Plan(config).paths.calibration(1)
    train_calibration(seed=1, epochs=EPOCHS, out=done)
    page = partial_report(config, root=ROOT)
    table = read_table(page.parent / "tables/calibration/calibration_ablation.csv")
    assert set(table["seed"]) == {1}
    assert 'id="figure-calibration_bias_sign"' in page.read_text(encoding="utf-8")


def test_what_a_failure_leaves_is_older_than_what_it_is_made_of(config: Config) -> None:
    """Else Snakemake would take the partial page for the finished one."""
    done = Plan(config).paths.calibration(1)
    train_calibration(seed=1, epochs=EPOCHS, out=done)
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
    config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tables = partial_report(config, root=ROOT).parent / "tables"
    assert (tables / "claims.csv").is_file()
    broken = tmp_path / "claims.yaml"
    broken.write_text("- id: x\n")
    monkeypatch.setattr(partial, "claims_file", lambda _: broken)
    page = partial_report(config, root=ROOT)
    assert page.is_file()
    assert not (tables / "claims.csv").exists()
    assert "/claims.yaml: claim 'x'" in capsys.readouterr().out


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


def margins_of(gap: float) -> pd.DataFrame:
    """Preference margins of eight harmful pairs, each a cluster of its own."""
    rows = [
        {"pair_id": f"p{place}", "condition": "harmful", "cluster": f"c{place}",
         "margin_base": 1.0, "margin_tuned": 1.0 + gap + 0.1 * place, "gap": gap + 0.1 * place}
        for place in range(8)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_margins_of_a_pair_that_missed_the_gate_are_on_the_page(config: Config) -> None:
    met, missed = (pair.name for pair in config.pairs[:2])
    paths = Plan(config).paths
    paths.margins(met).parent.mkdir(parents=True)
    write_table(margins_of(20.0), paths.margins(met))
    kept = paths.status / f"{missed}.localization.margins.csv"
    kept.parent.mkdir(parents=True)
    write_table(margins_of(-0.35), kept)
    page = partial_report(config, root=ROOT)
    table = read_table(page.parent / "tables/localization/preference_margins.csv")
    assert table["pair"].tolist() == [met, missed]
    assert [low > 0 for low in table["gap_low"]] == [True, False]
    assert "preference_margins" in page.read_text(encoding="utf-8")
    off = config.model_copy(update={"studies": ("rank_audit",)})
    assert "preference_margins" not in partial_report(off, root=ROOT).read_text(
        encoding="utf-8"
    ).replace("tables/localization/preference_margins.csv", "")


def test_each_summary_is_a_table_of_its_own_study(config: Config) -> None:
    """Two studies write a summary.csv: switching one off must not take the other's for its own."""
    pair = config.pairs[0].name
    tables = Path("results") / config.run / "tables"
    audit = synthetic_tables((pair,), n_layers=2)["summary"]
    located = localization_tables((pair,), n_layers=2)["localization_summary"]
    write_table(audit, tables / "rank_audit/summary.csv")
    write_table(located, tables / "localization/summary.csv")
    verdicts = []
    for studies in (("rank_audit", "localization"), ("rank_audit",)):
        partial_report(config.model_copy(update={"studies": studies}), root=ROOT)
        claims = read_table(tables / "claims.csv").set_index("claim")
        verdicts.append(str(claims.loc["localised-to-few-units", "reason"]))
    assert "has not been made" not in verdicts[0]
    assert "table summary.csv has not been made" in verdicts[1]
