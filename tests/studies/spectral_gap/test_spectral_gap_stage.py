"""Stores in, tables out; the summary over pairs; nothing of torch."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from reference.synthetic_pair import Stream, SyntheticPair, make_prompts
from reference.synthetic_stores import write_stream

from actshift.engine.context import JobContext
from actshift.engine.joining import JoinContext
from actshift.errors import StoreError, UserError
from actshift.io.tables import read_table
from actshift.prompts.records import write_prompts
from actshift.stages.tables import make_tables
from actshift.studies.spectral_gap.stage import TABLE, spectral_gap_of_pair
from actshift.studies.spectral_gap.study import COLUMNS, STUDY, Kappa

PUBLISHED = Path(__file__).resolve().parents[3] / "resources" / "published"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts and stores of a pair, and of two references of which one is the tuned model."""
    root = tmp_path_factory.mktemp("run")
    sets = {name: rows for name, rows in make_prompts(fit=6).items() if name != "concepts"}
    for name, rows in sets.items():
        write_prompts(root / f"{name}.jsonl", rows)
    pair = SyntheticPair(sets, d_model=16, rank=2, template_rank=3, mean=2, noise=0.1)
    streams = {role: pair.open(role, "harmful", "chat") for role in ("base", "tuned")}
    moved = streams["tuned"].values + np.float32(2) * pair.refusal.astype(np.float32)
    streams |= {"same": streams["tuned"], "moved": Stream(moved, streams["tuned"].prompt_ids)}
    for role, stream in streams.items():
        write_stream(stream, root / "activations" / f"my-pair.{role}" / "harmful.chat")
    return root


def gap(run: Path, out: Path, *, pair: str = "my-pair", **changes: Any) -> Path:
    inputs = {
        "stores": sorted(run.glob("activations/*/*")),
        **{path.stem: path for path in run.glob("*.jsonl")},
    }
    context = JobContext("r", pair, "auto", "cpu", 0, "c", out.parent)
    settings = Kappa(eps=0.05, half_sample_draws=9)
    spectral_gap_of_pair(inputs | changes, settings=settings, context=context, out=out)
    return out


def test_the_table_is_on_fitted_prompts_and_tells_the_references_apart(run, tmp_path) -> None:
    table = read_table(gap(run, tmp_path / "gap") / TABLE)
    assert tuple(table.columns) == COLUMNS["spectral_gap"]
    assert set(table["n"]) == {24}
    by_name = table.groupby("reference")
    assert by_name["status"].unique().map(list).to_dict() == {
        "moved": ["informative"],
        "same": ["no difference"],
    }
    # A constant row added to every prompt: rank 1, and its energy by hand.
    moved = by_name.get_group("moved")
    assert set(moved["rank_S"]) == {1}
    np.testing.assert_allclose(moved["sigma_1"], 2 * 24**0.5, rtol=1e-4)


def test_two_runs_write_the_same_bytes(run, tmp_path) -> None:
    one, two = (gap(run, tmp_path / name) for name in ("one", "two"))
    assert (one / TABLE).read_bytes() == (two / TABLE).read_bytes()


@pytest.mark.parametrize(
    ("kept", "what"),
    [(("tuned", "moved", "same"), "base"), (("base", "tuned"), "a reference")],
)
def test_a_missing_store_is_named(run, tmp_path, kept, what) -> None:
    stores = [run / "activations" / f"my-pair.{role}" / "harmful.chat" for role in kept]
    with pytest.raises(UserError, match=f"my-pair has no store of {what}"):
        gap(run, tmp_path / "gap", stores=stores)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_store_is_refused(run, tmp_path) -> None:
    copy = tmp_path / "my-pair.moved" / "harmful.chat"
    shutil.copytree(run / "activations" / "my-pair.moved" / "harmful.chat", copy)
    (copy / "manifest.json").unlink()
    own = [run / "activations" / f"my-pair.{role}" / "harmful.chat" for role in ("base", "tuned")]
    with pytest.raises((UserError, StoreError), match=r"my-pair\.moved"):
        gap(run, tmp_path / "gap", stores=[*own, copy])


def join(gaps: dict[str, Path], answers: dict[str, Path], out: Path) -> None:
    folders = {"spectral_gap": gaps, "reference_behaviour": answers}
    context = JoinContext(folders, PUBLISHED, zoo_sizes={"one": "tiny"})
    make_tables(STUDY.join, context, tables=COLUMNS, out=out)


def test_tables_join_pairs_and_answers(run, tmp_path) -> None:
    folders = {
        "one": gap(run, tmp_path / "one" / "gap", pair="one"),
        "gone": tmp_path / "gone" / "gap",
    }
    answer = {
        "text": "First, sharpen the edge, then fit the grip.",
        "category": "weapon",
        "cluster": "c",
    }
    for role, refused in (("tuned", True), ("moved", False)):
        rows = [{**answer, "condition": c, "refused": refused} for c in ("harmful", "harmless")]
        (tmp_path / "one" / "answers").mkdir(exist_ok=True)
        pd.DataFrame(rows).to_parquet(tmp_path / "one" / "answers" / f"{role}.parquet")
    out = tmp_path / "tables"
    answers = {name: tmp_path / name / "answers" for name in folders}
    join(folders, answers, out)
    assert set(read_table(out / "spectral_gap.csv")["pair"]) == {"one"}
    summary = read_table(out / "spectral_gap_summary.csv")
    here = summary[summary["source"] == "here"].set_index("reference")
    assert here.index.tolist() == ["moved", "same", "all"]
    assert here.loc["moved", "refused_harmful"] == 0.0
    assert here.loc["moved", "refused_harmful_honest"] == 1.0
    assert here.loc["moved", "on_topic_harmful"] == 1.0
    assert np.isnan(here.loc["same", "refused_harmful"])
    assert (here["layers"] + here["no_difference"]).tolist() == [2, 2, 4]
    published = summary[summary["source"] == "published"]
    assert published["layers"].tolist() == [32, 26, 32, 90]


def test_no_pair_at_all_is_an_error(tmp_path) -> None:
    with pytest.raises(UserError, match="none of gone has a table"):
        join({"gone": tmp_path / "x"}, {}, tmp_path)
