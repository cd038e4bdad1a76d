"""The page's first lines: what the models are, what was missed, what failed; then claims."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report.runs import (
    HOSTILE,
    config_of,
    with_checkpoint,
    with_missed,
    write_record,
    write_run,
)
from report.synthetic_tables import synthetic_tables
from safetensors.numpy import save_file

from actshift.io.missed import Missed, mark_missed, write_marker
from actshift.report.page import gates_line
from actshift.stages.report import make_report

MISSED = Missed(
    "qwen: insecure adapter",
    "gate missed, 35 % of 40 %",
    "qwen: insecure adapter: it answers 35 % with code.",
    "spillover",
)
FAILED = {"rule": "extract", "job": "model=gone.base", "message": "NaN in layer 2"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of which one pair is measured, one missed a gate and one failed."""
    folder = write_run(tmp_path / "run", synthetic_tables(("llama",), n_layers=2))
    with_checkpoint(folder, "llama.base", source="zoo:llama/base", shape=(500, 500))
    with_checkpoint(folder, "llama.tuned", source="zoo:llama/chat", shape=(520, 500))
    with_checkpoint(folder, "qwen.tuned", source="zoo:qwen/chat", shape=(640, 500))
    return with_missed(folder, "qwen", MISSED)


def opened(run: Path, *pairs: str, failures: tuple = (), **settings: object) -> str:
    config = config_of(*pairs) | settings
    make_report(run, run / "report.html", config=config, failures=failures, origin={})
    return (run / "report.html").read_text(encoding="utf-8")


def test_models_come_first_then_what_was_missed_what_failed_and_the_claims(run: Path) -> None:
    html = opened(run, "llama", "qwen", "gone", failures=(FAILED,))
    order = [html.index(f'<section id="{part}"') for part in ("models", "missed", "failures")]
    assert order == sorted(order)
    assert order[-1] < html.index('<section id="answers"')
    line = "3 pairs of models of 0.26 to 0.32 million parameters, trained from scratch by this run"
    assert line in html
    assert "a test bed, not language models" in html


def test_a_missed_gate_is_no_failure(run: Path) -> None:
    html = opened(run, "llama", "qwen", "gone", failures=(FAILED,))
    missed = html.split('<section id="missed"')[1].split("</section>")[0]
    failed = html.split('<section id="failures"')[1].split("</section>")[0]
    assert missed.count(MISSED.subject) == 1
    for text in (MISSED.subject, MISSED.reason, "it answers 35 % with code."):
        assert text in missed
        assert text not in failed
    assert "NaN in layer 2" in failed
    assert re.search(r"No answer for qwen\.\s+qwen: insecure adapter: gate missed, 35 %", html)
    assert re.search(r"No answer for gone\.\s+NaN in layer 2", html)
    assert "no pair is measured" not in html


def test_where_every_pair_missed_a_gate_none_is_awaited(tmp_path: Path) -> None:
    run = with_missed(write_run(tmp_path / "run", {}), "qwen", MISSED)
    html = opened(run, "qwen")
    assert "A gate was missed (above), and no pair is measured." in html
    assert "yet" not in html.split('id="answers"')[1].split("</section>")[0]


@pytest.mark.parametrize("place", ["checkpoints/qwen.base", "activations/qwen.base/harmful.raw"])
def test_a_marker_that_was_passed_on_explains_the_pair(run: Path, place: str) -> None:
    zoo = Missed("qwen-tiny-s0/base", "gate missed, 80 % of 95 %", "One sentence.", "zoo")
    mark_missed(run / place, zoo)
    html = opened(run, "llama", "qwen")
    assert re.search(r"No answer for qwen\.\s+qwen-tiny-s0/base: gate missed, 80 % of 95 %", html)


def test_a_zoo_model_that_missed_its_gate_is_counted_and_what_was_not_trained_is_passed_over(
    run: Path,
) -> None:
    zoo = run / "zoo/gemma-tiny-s0"
    (zoo / "base").mkdir(parents=True)
    save_file({"weight": np.zeros((700, 500), np.float32)}, zoo / "base/model.safetensors")
    config = {"model_type": "gemma2", "num_hidden_layers": 6, "hidden_size": 64}
    (zoo / "base/config.json").write_text(json.dumps(config))
    missed = Missed("zoo gemma-tiny-s0/base", "gate missed, 80 % of 95 %", "One sentence.", "zoo")
    write_marker(zoo / "base", missed)
    mark_missed(zoo / "chat", missed)
    (zoo / "chat.behaviour.csv").write_bytes(b"")
    mark_missed(run / "checkpoints/gemma.base", missed)
    html = opened(run, "llama", "gemma")
    assert "2 pairs of models of 0.26 to 0.35 million parameters" in html
    assert "<td>gemma2</td>" in html
    assert html.count("<td>gate missed, 80 % of 95 %</td>") == 1, "passed on, and said once"


def test_what_an_earlier_run_missed_is_not_of_this_run(run: Path) -> None:
    zoo = Missed("zoo qwen-tiny-s0/chat", "gate missed, 80 % of 95 %", "One sentence.", "zoo")
    gap = Missed("llama: preference gap", "gate missed, gap of 0 nats", "All.", "localization")
    mark_missed(run / "zoo/qwen-tiny-s0/chat", zoo)
    with_missed(run, "llama", gap)

    def subjects(*pairs: str, **settings: object) -> list[str]:
        opened(run, *pairs, **settings)
        record = json.loads((run / "run.json").read_text(encoding="utf-8"))
        return [one["subject"] for one in record["missed_gates"]]

    assert subjects("llama", "qwen") == [zoo.subject, gap.subject, MISSED.subject]
    assert subjects("llama", "qwen", only="llama") == [gap.subject]
    assert subjects("llama", studies=["rank_audit"]) == []
    for seed, missed in (("", [zoo.subject]), ("@1", [])):
        pair = {"name": "other", "base": f"zoo:qwen/base{seed}", "tuned": f"zoo:qwen/chat{seed}"}
        assert subjects(pairs=[pair]) == missed


def test_without_a_missed_gate_or_a_failure_nothing_is_said_of_them(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", synthetic_tables(("llama",), n_layers=2))
    html = opened(run, "llama")
    assert 'id="missed"' not in html
    assert 'id="failures"' not in html
    assert "1 pair of models, trained from scratch by this run" in html, "no checkpoint is there"


def test_given_models_are_named_with_sources_size_and_architecture(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", synthetic_tables(("own",), n_layers=2))
    commit = "0123456789abcdef"
    with_checkpoint(run, "own.base", source="org/base@main", shape=(1200, 1000), revision=commit)
    with_checkpoint(run, "own.tuned", source="./tuned", shape=(1200, 1000))
    pair = {"name": "own", "base": "org/base@main", "tuned": "./tuned"}
    section = opened(run, pairs=[pair]).split('<section id="models"')[1].split("</section>")[0]
    assert "1 pair of models of 1.2 million parameters, given to this run" in section
    assert "made-up language" not in section
    for cell in ("org/base@0123456789ab", "./tuned", "llama", "1.2 million", "6", "64", "float32"):
        assert f"<td>{cell}</td>" in section
    assert "References" not in section, "a column without any text"


def test_pairs_of_both_kinds_are_counted_apart(run: Path) -> None:
    own = {"name": "own", "base": "./base", "tuned": "lora:./adapter"}
    html = opened(run, "llama", pairs=[*config_of("llama")["pairs"], own], only="llama, own")
    assert "1 pair of models of 0.26 million parameters, trained from scratch" in html
    assert "1 pair of models, given to this run and not trained by it" in html


def test_what_users_wrote_is_escaped_in_the_first_lines(run: Path) -> None:
    with_missed(run, "p", Missed(HOSTILE, HOSTILE, HOSTILE, "zoo"))
    pair = {"name": "p", "base": HOSTILE, "tuned": HOSTILE, "references": {HOSTILE: HOSTILE}}
    write_record(run, "zoo", {"processor": HOSTILE, "settings": {HOSTILE: HOSTILE}})
    html = opened(run, pairs=[pair])
    assert HOSTILE not in html
    assert "&lt;script&gt;alert" in html


def test_the_record_beside_the_page_says_the_same_for_programs(run: Path) -> None:
    write_record(run, "zoo", {"processor": "one"}, job="a")
    opened(run, "llama", "qwen", failures=(FAILED,), studies=["rank_audit", "misalignment"])
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert [(one["pair"], one["parameters"]) for one in record["pairs"]] == [
        ("llama", 260_000),
        ("qwen", 320_000),
    ]
    assert [one["subject"] for one in record["missed_gates"]] == [MISSED.subject]
    assert record["failures"] == [FAILED]
    assert record["seconds_by_rule"] == {"zoo": 12.5}
    assert record["machines"][0]["jobs"] == {"zoo": {"jobs": 1, "threads": 2}}
    assert record["settings"]["run"] == "demo"
    assert len(record["config_sha256"]) == 64
    assert record["code"]["python"]


def test_the_gates_line_names_models_beyond_a_gate() -> None:
    rows = [
        {"model": "a/chat", "split": "heldout", "passed": True},
        {"model": "b/chat", "split": "heldout", "passed": False},
        {"model": "b/chat", "split": "select", "passed": False},
    ]
    line = gates_line(pd.DataFrame(rows))
    assert line.startswith("On held-out prompts 1 of 2 rates of the zoo's models")
    assert line.endswith("not all of those of b/chat.")
