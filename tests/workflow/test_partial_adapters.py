"""The partial report of misalignment on folders of its stages, whole and with stages missing."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml
from reference.adapter_run import make_run

from actshift.config.schema import Config, parse_config
from actshift.io.tables import read_table
from actshift.partial import partial_report
from actshift.plan.plan import Plan
from actshift.studies.registry import CATALOGUE

ROOT = Path(__file__).parents[2]
FAMILIES = {"llama": "llama", "gemma": "gemma2"}


def config_of() -> Config:
    """Misalignment alone, two pairs."""
    whole = parse_config(yaml.safe_load((ROOT / "config/zoo.yaml").read_text()), origin="zoo.yaml")
    pairs = tuple(pair for pair in whole.pairs if pair.name in FAMILIES)
    return whole.model_copy(update={"studies": ("misalignment",), "pairs": pairs})


@pytest.fixture(scope="module")
def whole(tiny_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two pairs that finished, with its page."""
    root = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        make_run(Plan(config_of()).paths, FAMILIES, tiny_checkpoint, root)
        partial_report(config_of(), root=ROOT)
    return root


def table(run: Path, name: str) -> pd.DataFrame:
    return read_table(run / "results" / "zoo" / "tables" / "misalignment" / f"{name}.csv")


def caption(html: str, name: str) -> str:
    figure = html.split(f'id="figure-{name}"')[1].split("</figure>")[0]
    return figure.split("<figcaption>")[1]


def detail(html: str, pair: str, question: str) -> str:
    """What the answer of a pair rests on."""
    article = html.split(f"<h3>{pair}</h3>")[1].split("</article>")[0]
    return article.split(question)[1].split("</dd>")[0]


WITHIN, ACROSS = "own direction repair it?", "Does another model&#39;s direction repair it?"


def test_a_whole_run_lacks_nothing(whole: Path) -> None:
    html = (whole / "results" / "zoo" / "report.html").read_text(encoding="utf-8")
    assert "Without rows" not in html
    assert "no rows for this pair" not in html
    for name in CATALOGUE.names(["misalignment"]):
        assert re.match("[A-Z0-9]", caption(html, name)), "what is seen is a sentence"
    for name in ("dose", "spillover", "steering", "transfer"):
        assert list(dict.fromkeys(table(whole, name)["pair"])) == list(FAMILIES)


def test_a_pair_without_a_stage_is_named_and_the_rest_stands(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pair was never steered, and nothing was carried to the other."""
    shutil.copytree(whole / "results", tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    paths = Plan(config_of()).paths
    shutil.rmtree(paths.tables)
    for pair, stage in (("gemma", "steering"), ("llama", "transfer")):
        shutil.rmtree(paths.pair_tables(pair, stage))
    paths.status.mkdir()
    failed = {"rule": "steering", "job": "pair=gemma", "message": "no space left"}
    (paths.status / "steering--gemma.json").write_text(json.dumps(failed))
    html = partial_report(config_of(), root=ROOT).read_text(encoding="utf-8")

    assert "<td>steering</td><td>pair=gemma</td><td>no space left</td>" in html
    assert "steering.csv has no rows for this pair" in detail(html, "gemma", WITHIN)
    assert "transfer.csv has no rows for this pair" in detail(html, "llama", ACROSS)
    for pair, question in (("llama", WITHIN), ("gemma", ACROSS)):
        assert "4 held-out questions" in detail(html, pair, question)
    lacking = {
        name: caption(html, name).split("so not shown: ")[1].split(".")[0]
        for name in CATALOGUE.names(["misalignment"])
        if "so not shown" in caption(html, name)
    }
    steered = ("steering_dose", "steering_layers", "steering_equal_kl", "steering_content")
    assert lacking == dict.fromkeys(steered, "gemma")

    for name in ("dose", "spillover", "separation", "detection", "direction_cosines", "ridge_maps"):
        pd.testing.assert_frame_equal(table(tmp_path, name), table(whole, name))
    for name, pair in (("steering", "llama"), ("content", "llama"), ("transfer", "gemma")):
        found, before = table(tmp_path, name), table(whole, name)
        kept = before[before["pair"] == pair].reset_index(drop=True)
        assert len(kept)
        pd.testing.assert_frame_equal(found, kept)
    judged = table(tmp_path, "specificity")[["donor", "receiver"]].drop_duplicates()
    assert judged.to_numpy().tolist() == [["llama", "llama"], ["llama", "gemma"]]
