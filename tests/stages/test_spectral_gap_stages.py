"""Stores in, tables out; the summary over pairs; nothing of torch."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from reference.synthetic_pair import Stream, SyntheticPair, make_prompts
from stages.test_rank_audit import write_store

from actshift.errors import StoreError, UserError
from actshift.io.tables import read_table
from actshift.prompts.records import write_prompts
from actshift.studies.spectral_gap.columns import GAP, SUMMARY
from actshift.studies.spectral_gap.join import spectral_gap_tables
from actshift.studies.spectral_gap.stage import TABLE, spectral_gap_of_pair

PUBLISHED = Path(__file__).resolve().parents[2] / "resources" / "published"
SETTINGS = {"half_sample_draws": 9, "eps_grid": [0.05, 0.2]}


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
        write_store(stream, root / "activations" / f"my-pair.{role}" / "harmful.chat")
    return root


def gap(run: Path, out: Path, **changes: Any) -> Path:
    arguments = {
        "pair": "my-pair",
        "stores": sorted(run.glob("activations/*/*")),
        "prompts": sorted(run.glob("*.jsonl")),
        "settings": SETTINGS,
        "seed": 0,
        "out": out,
    }
    spectral_gap_of_pair(**(arguments | changes))
    return out


def test_the_table_is_on_fitted_prompts_and_tells_the_references_apart(run, tmp_path) -> None:
    table = read_table(gap(run, tmp_path / "gap") / TABLE)
    assert tuple(table.columns) == GAP
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


def test_tables_join_pairs_and_answers(run, tmp_path) -> None:
    folders = {
        "one": gap(run, tmp_path / "one" / "gap", pair="one"),
        "gone": tmp_path / "gone" / "gap",
    }
    said = {
        "text": "First, sharpen the edge, then fit the grip.",
        "category": "weapon",
        "cluster": "c",
    }
    for role, refused in (("tuned", True), ("moved", False)):
        rows = [{**said, "condition": c, "refused": refused} for c in ("harmful", "harmless")]
        (tmp_path / "one" / "said").mkdir(exist_ok=True)
        pd.DataFrame(rows).to_parquet(tmp_path / "one" / "said" / f"{role}.parquet")
    out = tmp_path / "tables"
    missing = spectral_gap_tables(
        gaps=folders,
        behaviours={name: tmp_path / name / "said" for name in folders},
        zoo_sizes={"one": "tiny"},
        published=PUBLISHED,
        out=out,
    )
    assert missing == ["gone"]
    assert tuple(read_table(out / "spectral_gap.csv").columns) == GAP
    summary = read_table(out / "spectral_gap_summary.csv")
    assert tuple(summary.columns) == SUMMARY
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
    with pytest.raises(UserError, match="none of the pairs gone has a table"):
        spectral_gap_tables(
            gaps={"gone": tmp_path / "x"},
            behaviours={},
            zoo_sizes={},
            published=PUBLISHED,
            out=tmp_path,
        )
