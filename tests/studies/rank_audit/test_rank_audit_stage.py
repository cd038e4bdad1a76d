"""The stage on real stores: folders in, CSV files out, and the concatenation over pairs."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from reference.synthetic_pair import SyntheticPair, make_prompts
from reference.synthetic_stores import write_stream

from actshift.engine.context import JobContext
from actshift.engine.joining import JoinContext
from actshift.errors import UserError
from actshift.io.tables import read_table
from actshift.prompts.records import write_prompts
from actshift.stages.tables import make_tables
from actshift.studies.rank_audit.stage import TABLES, audit_pair, rank_audit
from actshift.studies.rank_audit.study import COLUMNS, STUDY, RankAudit

PUBLISHED = Path(__file__).resolve().parents[3] / "resources" / "published"
SETS = {name: name for name in ("harmful", "harmless")}
SETTINGS = RankAudit(
    eps_grid=(0.05, 0.2),
    bootstrap_draws=5,
    half_sample_draws=5,
    n_sweep=(8, 99),
    n_sweep_draws=3,
    null_draws=5,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with prompt files and the twelve stores of a pair."""
    root = tmp_path_factory.mktemp("run")
    prompts = make_prompts(fit=6, select=1, heldout=3, pairs=6)
    for name, rows in prompts.items():
        write_prompts(root / "prompts" / f"{name}.jsonl", rows)
    pair = SyntheticPair(prompts, d_model=20, rank=2, template_rank=4, mean=3, noise=0.1)
    for (role, name, template), stream in pair.streams.items():
        write_stream(stream, root / "activations" / f"my.pair.{role}" / f"{name}.{template}")
    return root


def audit(run: Path, out: Path, *, pair: str = "my.pair", **changes: object) -> None:
    inputs = {
        "stores": sorted((run / "activations").glob("*/*")),
        **{path.stem: path for path in (run / "prompts").glob("*.jsonl")},
    }
    context = JobContext("r", pair, "auto", "cpu", 3, "c", out.parent)
    rank_audit(inputs | changes, settings=SETTINGS, context=context, out=out)


def test_tables_are_those_of_the_study(run: Path, tmp_path: Path, capsys) -> None:
    audit(run, tmp_path / "rank_audit")
    assert len(capsys.readouterr().out.splitlines()) == len(TABLES)
    prompts = make_prompts(fit=6, select=1, heldout=3, pairs=6)
    stores = SyntheticPair(prompts, d_model=20, rank=2, template_rank=4, mean=3, noise=0.1)
    expected = audit_pair(stores, prompts, SETTINGS, pair="my.pair", sets=SETS, seed=3)
    files = {path.name for path in (tmp_path / "rank_audit").iterdir()}
    assert files == {f"{name}.csv{end}" for name in TABLES for end in ("", ".sha256")}
    for name, table in expected.items():
        found = read_table(tmp_path / "rank_audit" / f"{name}.csv")
        assert tuple(found.columns) == COLUMNS[name]
        if "layer" in table:
            # A band row has no layer: <NA> here, an empty cell and so NaN in the file.
            table = table.assign(layer=table["layer"].astype(float))
        pd.testing.assert_frame_equal(found, table, check_dtype=False, rtol=1e-8)


def test_two_runs_write_the_same_bytes(run: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        audit(run, tmp_path / name)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_a_failed_job_leaves_nothing(run: Path, tmp_path: Path) -> None:
    stores = sorted((run / "activations").glob("*/*"))
    with pytest.raises(UserError, match=r"no store of tuned harmless\.raw"):
        audit(run, tmp_path / "out", stores=stores[:-1])
    with pytest.raises(UserError, match="at least 2 are needed"):
        audit(run, tmp_path / "out", harmful=run / "prompts" / "concepts.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_store_is_named(run: Path, tmp_path: Path) -> None:
    stores = sorted((run / "activations").glob("*/*"))
    manifest = stores[0] / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text.replace('"kind"', '"kinds"'))
    try:
        with pytest.raises(UserError, match=stores[0].name):
            audit(run, tmp_path / "out")
    finally:
        manifest.write_text(text)


@pytest.fixture(scope="module")
def pairs(run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tables of two pairs, and a third whose job failed."""
    root = tmp_path_factory.mktemp("pairs")
    folders = {name: root / name / "rank_audit" for name in ("one", "two", "gone")}
    for name in ("one", "two"):
        audit(run, folders[name], pair=name)
    return folders


def join(pairs: dict[str, Path], out: Path) -> None:
    context = JoinContext(folders={"rank_audit": pairs}, published=PUBLISHED)
    make_tables(STUDY.join, context, tables=COLUMNS, out=out)


def test_a_missing_pair_is_reported_and_not_fatal(pairs: dict[str, Path], tmp_path: Path) -> None:
    join(pairs, tmp_path)
    status = read_table(tmp_path / "pairs.csv")
    assert dict(zip(status["pair"], status["status"], strict=True)) == {
        "one": "present",
        "two": "present",
        "gone": "missing",
    }


def test_rows_of_all_pairs_are_kept_and_published_ones_come_last(
    pairs: dict[str, Path], tmp_path: Path
) -> None:
    join(pairs, tmp_path)
    for name in TABLES:
        joined = read_table(tmp_path / f"{name}.csv")
        assert tuple(joined.columns) == COLUMNS[name]
        for pair in ("one", "two"):
            own = read_table(pairs[pair] / f"{name}.csv")
            part = joined[joined["pair"] == pair].reset_index(drop=True)
            pd.testing.assert_frame_equal(part, own, check_dtype=False)
    summary = read_table(tmp_path / "summary.csv")
    assert summary["source"].tolist() == sorted(summary["source"])  # measured, then published
    assert len(summary[summary["source"] == "published"]) == 18


def test_no_pair_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of gone"):
        join({"gone": tmp_path / "x"}, tmp_path)


def test_the_stages_never_load_torch() -> None:
    code = (
        "import sys; from actshift.studies.rank_audit import join, stage; "
        "print({'torch', 'transformers', 'peft'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
