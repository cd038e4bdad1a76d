"""Runs in which gates are missed: they end well, say so, and measure all that can be measured."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from workflow.runner import Clone, jobs_in, micro_config

from actshift.io.missed import missed_in
from actshift.io.tables import read_table

ZOO = {"name": "llama", "base": "zoo:llama/base", "tuned": "zoo:llama/chat"}
STUDIES = ["rank_audit", "refusal_direction", "ablation", "localization", "misalignment"]
SETS = {
    "preferences": {"source": "zoo", "name": "preferences"},
    "questions": {"source": "zoo", "name": "questions", "extract": False},
    "neutral": {"source": "zoo", "name": "neutral", "extract": False},
}
REASON = r"gate missed, [\d.]+ % of 95 %: on_topic harmless/all \(chat\)"


def config(run: str, **changes: object) -> dict[str, object]:
    """The micro config with gates, under another name."""
    made = micro_config()
    made["prompts"] = {**made["prompts"], **SETS}
    return {**made, "run": run, "zoo": {"size": "micro", "gated": True}, **changes}


@pytest.fixture(scope="module")
def clone(tiny_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone with two models of its own, which are random."""
    clone = Clone.make(tmp_path_factory.mktemp("gates") / "clone")
    for seed, name in enumerate(("base", "tuned")):
        shutil.copytree(tiny_checkpoint("llama", seed=seed), clone.root / "own" / name)
    return clone


@pytest.fixture(scope="module")
def one_missed(clone: Clone) -> tuple[Clone, str]:
    """A finished run of two pairs: micro chat models learn too little, the others are not asked."""
    own = {"name": "own", "base": "./own/base", "tuned": "./own/tuned"}
    name = clone.write_config("one.yaml", config("one", pairs=[ZOO, own]))
    done = clone.run("--configfile", name)
    assert done.returncode == 0, done.stdout[-8000:]
    return clone, name


def test_the_pair_that_missed_its_gate_is_not_measured_and_the_other_is(
    one_missed: tuple[Clone, str],
) -> None:
    results = one_missed[0].root / "results" / "one"
    missed = missed_in(results / "zoo" / "llama-micro-s0" / "base")
    assert missed is not None
    assert re.fullmatch(REASON, missed.reason)
    # One marker, whatever the stage: chat was not trained, nothing was extracted or audited.
    for folder in (
        *("zoo/llama-micro-s0/chat", "checkpoints/llama.base", "checkpoints/llama.tuned"),
        *("activations/llama.tuned/harmful.chat", "pairs/llama/rank_audit"),
    ):
        assert missed_in(results / folder) == missed, folder
    assert not (results / "zoo/llama-micro-s0/chat" / "model.safetensors").exists()
    status = read_table(results / "tables" / "rank_audit" / "pairs.csv").set_index("pair")["status"]
    assert status.to_dict() == {"llama": missed.status, "own": "present"}
    for table in ("rank", "inflation", "cosine", "heldout_rank"):
        assert set(read_table(results / f"tables/rank_audit/{table}.csv")["pair"]) == {"own"}
    tried = read_table(results / "tables" / "zoo_attempts.csv")
    assert tried["model"].tolist() == ["llama-micro-s0/base"] * 3
    assert tried["taken"].sum() == 1
    assert not list((results / "status").glob("*"))


def test_claims_name_the_gate_of_one_pair_and_decide_the_other(
    one_missed: tuple[Clone, str],
) -> None:
    tables = one_missed[0].root / "results" / "one" / "tables"
    units = read_table(tables / "claims_by_pair.csv")
    # Claims of studies that are off lack their table, whatever the gate.
    made = ~units["reason"].astype(str).str.endswith("has not been made")
    audit = units[made & (units["study"] == "rank_audit") & (units["unit"] == "pair")]
    assert len(audit)
    missed, own = (audit[audit["name"] == name] for name in ("llama", "own"))
    assert set(missed["verdict"]) == {"not measured"}
    assert missed["reason"].str.fullmatch(REASON).all()
    assert not own["reason"].astype(str).str.fullmatch(REASON).any()
    # Of a narrow random model little can be told, but something is.
    assert set(own["verdict"]) > {"not measured"}
    page = (tables.parent / "report.html").read_text(encoding="utf-8")
    assert "No answer for llama." in page
    assert re.search(REASON, page)
    assert "No answer for own." not in page


def test_a_finished_run_with_a_missed_gate_has_nothing_to_do(
    one_missed: tuple[Clone, str],
) -> None:
    clone, name = one_missed
    assert clone.planned("--configfile", name) == {}


def test_a_run_in_which_every_pair_missed_its_gate_ends_with_a_page(
    one_missed: tuple[Clone, str],
) -> None:
    """Every study, of two pairs of one checkpoint; it was trained before."""
    clone, _ = one_missed
    made = clone.root / "results"
    shutil.copytree(made / "one" / "zoo", made / "every" / "zoo")
    pairs = [ZOO | {"references": {"full": "zoo:llama/comply_full"}}, ZOO | {"name": "twin"}]
    asked = config("every", pairs=pairs, studies=[*STUDIES, "spectral_gap"])
    name = clone.write_config("every.yaml", asked)
    done = clone.run("--configfile", name)
    assert done.returncode == 0, done.stdout[-8000:]
    assert jobs_in(done.stdout)["report"] == 1
    tables = made / "every" / "tables"
    status = read_table(tables / "rank_audit" / "pairs.csv")["status"]
    assert status.str.fullmatch(f"not measured: {REASON}").all()
    for table in (
        *("rank_audit/rank", "rank_audit/refusal_effect", "rank_audit/ablation_sweep"),
        *("localization/patching", "localization/preference_margins"),
        *("misalignment/spillover", "misalignment/ladder"),
    ):
        assert read_table(tables / f"{table}.csv").empty, table
    units = read_table(tables / "claims_by_pair.csv")
    own = units[(units["unit"] == "pair") & units["study"].isin(STUDIES)]
    assert set(own["verdict"]) == {"not measured"}
    other = own[~own["reason"].str.fullmatch(REASON)]
    # A pair without references has no gap, gate or not.
    assert set(zip(other["name"], other["reason"], strict=True)) == {
        ("twin", "table spectral_gap.csv has no row with informative True"),
    }
    page = (tables.parent / "report.html").read_text(encoding="utf-8")
    for pair in ("llama", "twin"):
        assert f"No answer for {pair}." in page
    assert 'id="failures"' not in page
    assert clone.planned("--configfile", name) == {}


def test_a_strict_gate_fails_its_job_and_keeps_what_was_measured(clone: Clone) -> None:
    """Two equal models have no preference between them to localise."""
    rows = [
        {
            "chosen": f"\n\nHuman: how do i {verb} a {noun}\n\nAssistant: now please",
            "rejected": f"\n\nHuman: how do i {verb} a {noun}\n\nAssistant: the garden",
        }
        for verb in ("bake", "mend", "steal")
        for noun in ("loaf", "wheel", "car", "garden")
    ]
    (clone.root / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = {"source": "file", "path": "own.jsonl", "kind": "preferences", "layout": "hh_rlhf"}
    same = {"name": "same", "base": "./own/base", "tuned": "./own/base"}
    changes = {"pairs": [same], "studies": ["localization"], "prompts": {"preferences": own}}
    target = "results/{}/pairs/same/localization"
    for run, strict in (("lenient", False), ("strict", True)):
        asked = config(run, strict_gates=strict, **changes)
        name = clone.write_config(f"{run}.yaml", asked)
        done = clone.run(target.format(run), "--configfile", name)
        assert (done.returncode != 0) is strict, done.stdout[-4000:]
    missed = missed_in(clone.root / target.format("lenient"))
    assert missed is not None
    assert missed.reason.startswith("gate missed, gap of 0.00 nats")
    assert not (clone.root / target.format("strict")).exists()
    status = clone.root / "results" / "strict" / "status"
    (failure,) = (json.loads(path.read_text()) for path in status.glob("*.json"))
    assert failure["rule"] == "localization"
    assert failure["message"].endswith("in status/same.localization.margins.csv")
    assert len(read_table(status / "same.localization.margins.csv"))
