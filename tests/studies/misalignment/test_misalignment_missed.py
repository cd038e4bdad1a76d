"""Tables of a pair whose insecure adapter missed its gate: answers, nothing else."""

import shutil
from pathlib import Path

import pytest
from reference.misalignment_files import questions, write_questions
from reference.misalignment_planted import MADE, STAGES, make_joint, table

from actshift.io.missed import Missed, mark_missed, write_marker
from actshift.studies.misalignment.study import COLUMNS

MISSED = Missed(
    "gemma: insecure adapter", "gate missed, spillover 35 % of 40 %", "All rates.", "spillover"
)
STATUS = "not measured: gate missed, spillover 35 % of 40 %"
LEFT = {"answers.parquet", "guards.json", "missed.json"}


def miss(root: Path, pair: str) -> None:
    """Leave of a pair what its stages leave where the gate is missed."""
    spillover = root / pair / "spillover"
    for path in spillover.iterdir():
        if path.name not in LEFT:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    write_marker(spillover, MISSED)
    for stage in ("steering", "transfer"):
        shutil.rmtree(root / pair / stage)
        mark_missed(root / pair / stage, MISSED)


def tables(root: Path, out: Path, pairs: tuple[str, ...]) -> None:
    folders = {stage: {pair: root / pair / stage for pair in pairs} for stage in STAGES}
    make_joint(root, out, folders)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs, of which `gemma` missed its gate; tables of both, and of `llama` alone."""
    root = tmp_path_factory.mktemp("missed")
    write_questions(root / "questions.jsonl", questions())
    for seed, (pair, one) in enumerate(MADE.items()):
        one.write(root, pair, seed=seed)
    miss(root, "gemma")
    tables(root, root, ("llama", "gemma"))
    tables(root, root / "alone", ("llama",))
    return root


def test_answers_and_doses_are_shown_with_the_missed_gate_beside(root: Path) -> None:
    answers = table(root, "spillover", pair="gemma")
    assert set(answers["adapter"]) >= {"chat", "insecure", "secure"}
    own = answers["adapter"] == "insecure"
    assert set(answers.loc[own, "status"]) == {STATUS}
    assert STATUS not in set(answers.loc[~own, "status"])
    gates = answers.loc[own & (answers["split"] == "select") & (answers["kind"] == "all"), "gate"]
    assert set(gates) == {"missed"}
    assert answers.loc[~own, "gate"].isna().all()
    dose = table(root, "dose", pair="gemma")
    assert set(dose["status"]) == set(dose["why"]) == {STATUS}
    assert dose["shift_norm"].isna().all()
    ladder = table(root, "ladder", pair="gemma")
    assert ladder["taken"].tolist() == [False, True]


def test_a_gate_that_is_met_says_so(root: Path) -> None:
    answers = table(root, "spillover", pair="llama", adapter="insecure")
    looked_at = answers.dropna(subset="gate")
    assert set(looked_at["gate"]) == {"not missed"}
    assert set(looked_at["split"]) == {"select"}
    assert STATUS not in set(answers["status"])


def test_nothing_that_needs_the_adapter_has_a_row_of_the_pair(root: Path) -> None:
    for name in ("separation", "detection", "steering", "transfer", "side_effects", "content"):
        found = table(root, name)
        assert "llama" in set(found["pair"]), name
        assert "gemma" not in set(found["pair"]), name
    assert "gemma" not in set(table(root, "specificity")["receiver"])


def test_rows_of_the_other_pair_are_those_of_a_run_without_this_one(root: Path) -> None:
    for name in COLUMNS:
        both, alone = (
            (at / "tables" / "misalignment" / f"{name}.csv").read_text().splitlines()
            for at in (root, root / "alone")
        )
        if name == "topology":
            continue  # counts the pairs that were tried
        assert both[0] == alone[0]
        of_pairs = both[0].startswith("pair,")
        own = [line for line in both[1:] if not (of_pairs and line.startswith("gemma,"))]
        assert own == alone[1:], name
        assert len(alone) > 1 or name == "ridge_maps", name


def test_the_log_names_the_gate(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables(root, tmp_path, ("gemma",))
    told = capsys.readouterr().out
    assert f"misalignment gemma: without spillover, steering, transfer: {STATUS}" in told
    assert "job failed" not in told
    # A pair alone that missed its gate still has tables.
    assert len(table(tmp_path, "spillover"))
