import json
import os
from pathlib import Path

import pytest
from reference.model_folders import weights, write_model_folder

from actshift.commands.doctor import examine_machine


@pytest.mark.usefixtures("hub_home")
def test_the_machine(actshift, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    result = actshift("doctor")
    assert result.exit_code in (0, 1)
    for word in ("python", "torch", "gpu", "hub token", "disk", "transformers", "offline"):
        assert word in result.stdout
    assert "present" in result.stdout
    assert "hf_secret" not in result.output


def test_a_missing_package_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actshift.commands.doctor.PACKAGES", ("no-such-package",))
    assert not examine_machine()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that snakemake ran in, with an unfinished run `r`."""
    (tmp_path / "results/r").mkdir(parents=True)
    (tmp_path / ".snakemake/log").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fail(root: Path, rule: str, *, message: str, at: int) -> None:
    status = root / "results/r/status"
    status.mkdir(exist_ok=True)
    path = status / f"{rule}.json"
    path.write_text(json.dumps({"rule": rule, "job": "model=p.base", "message": message}))
    os.utime(path, (at, at))


def test_the_first_failure_comes_first(actshift, root: Path) -> None:
    fail(root, "extract", message="later", at=20)
    fail(root, "zoo", message="missed its gate", at=10)
    result = actshift("doctor", "--run", "results/r")
    assert result.exit_code == 1
    first, second = result.stdout.splitlines()
    assert first == "first cause: zoo model=p.base: missed its gate"
    assert "extract" in second


def test_a_message_cut_off_by_a_full_disk(actshift, root: Path) -> None:
    fail(root, "extract", message="x", at=10)
    (root / "results/r/status/extract.json").write_text('{"rule": "ext')
    result = actshift("doctor", "--run", "results/r")
    assert result.exit_code == 1
    assert "first cause: extract: its message" in result.stdout


LOG = """
[Sat Nov 21]
Error in rule extract:
    jobid: 4
    output: results/r/activations/p.base/harmful.raw
    log: results/r/logs/extract/p.log (check log file(s) for error details)
Error in rule zoo:
    log: results/r/logs/zoo/q.log
"""


def test_a_killed_job_is_found_in_the_logs(actshift, root: Path) -> None:
    (root / ".snakemake/log/2026-01-01.snakemake.log").write_text("results/other/x")
    (root / ".snakemake/log/2025-01-01.snakemake.log").write_text(LOG)
    logs = root / "results/r/logs/extract"
    logs.mkdir(parents=True)
    (logs / "p.log").write_text("step 1\nreading window 3\n\n")
    result = actshift("doctor", "--run", root / "results/r")
    assert result.exit_code == 1
    assert "first cause: rule extract: ended without a message" in result.stdout
    assert "reading window 3" in result.stdout
    (logs / "p.log").unlink()
    assert "without a message or a log" in actshift("doctor", "--run", "results/r").stdout


def test_a_held_lock_and_an_unfinished_run(actshift, root: Path) -> None:
    result = actshift("doctor", "--run", "results/r")
    assert result.exit_code == 1
    assert "run the same command" in result.stdout
    (root / ".snakemake/locks").mkdir()
    (root / ".snakemake/locks/0.input.lock").write_text("")
    assert "snakemake --unlock" in actshift("doctor", "--run", "results/r").stdout


def test_a_finished_run(actshift, root: Path) -> None:
    (root / "results/r/report.html").write_text("")
    (root / ".snakemake/log/2026-01-01.snakemake.log").write_text("results/r/x all well")
    result = actshift("doctor", "--run", "results/r")
    assert (result.exit_code, result.stdout.strip()) == (0, "finished: results/r/report.html")


CONFIG = """
run: mine
pairs:
  - {name: good, base: ./base, tuned: ./tuned}
  - {name: bad, base: ./base, tuned: ./quantised}
  - {name: zoo, base: "zoo:llama/base", tuned: "zoo:llama/chat"}
  - {name: hub, base: org/a, tuned: org/b}
prompts:
  harmful: {source: file, path: harmful.jsonl}
  harmless: {source: zoo, name: harmless}
  concepts: {source: zoo, name: concepts}
"""


@pytest.fixture
def folders(tmp_path: Path, hub_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a config of four pairs, one of which cannot be read."""
    assert not hub_home.exists()
    monkeypatch.chdir(tmp_path)
    write_model_folder(tmp_path / "base")
    write_model_folder(tmp_path / "tuned", tensors=weights(rows=7), vocab_size=7)
    write_model_folder(tmp_path / "quantised", quantization_config={"quant_method": "gptq"})
    (tmp_path / "harmful.jsonl").touch()
    (tmp_path / "mine.yaml").write_text(CONFIG)
    return tmp_path


def test_a_config_gets_a_line_a_finding_by_pair(actshift, folders: Path) -> None:
    result = actshift("doctor", "mine.yaml")
    assert (result.exit_code, result.stderr) == (1, "")
    said = result.stdout.splitlines()
    assert [line for line in said if not line.startswith("  ")] == [
        "pair good",
        "pair bad",
        "pair zoo",
        "pair hub",
        "mine.yaml: 1 error, 1 warning",
    ]
    at = {line.split()[1]: line for line in said if line.startswith("  ")}
    assert at["pairs.good.tuned:"] == (
        "  ok       pairs.good.tuned: ./tuned: llama, 2 blocks, 8 wide, 6 tokens"
    )
    assert at["pairs.good:"].startswith("  warning  pairs.good: base has 6 and tuned 7 rows")
    assert at["pairs.bad.tuned:"].startswith("  error    pairs.bad.tuned: the weights are quant")
    assert at["pairs.zoo.base:"].endswith("made by the run")
    assert at["pairs.hub.tuned:"].endswith("not in the hub cache, so not looked at")
    assert not (folders / "results").exists()


def test_a_config_without_an_error_is_well(actshift, folders: Path) -> None:
    text = CONFIG.replace("  - {name: bad, base: ./base, tuned: ./quantised}\n", "")
    (folders / "mine.yaml").write_text(text)
    assert actshift("doctor", "mine.yaml").exit_code == 0


def test_files_of_a_config_that_are_missing_are_all_told(actshift, folders: Path) -> None:
    (folders / "harmful.jsonl").unlink()
    (folders / "tuned/config.json").unlink()
    said = actshift("doctor", "mine.yaml").stdout
    assert "config\n  error    prompts.harmful.path: no file 'harmful.jsonl'" in said
    assert said.count("tuned/config.json is missing") == 1
    assert "mine.yaml: 3 errors" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("none.yaml",), "none.yaml: no such file"),
        (("broken.yaml",), "not valid YAML"),
        (("list.yaml",), "expected a mapping"),
        (("typo.yaml",), "unknown key 'pair'"),
        (("mine.yaml", "--run", "results/r"), "a config or --run, not both"),
    ],
)
def test_a_config_that_is_none(actshift, folders: Path, arguments, said: str) -> None:
    (folders / "broken.yaml").write_text("a: [")
    (folders / "list.yaml").write_text("[]")
    (folders / "typo.yaml").write_text(CONFIG.replace("pairs:", "pair:"))
    result = actshift("doctor", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_no_such_run(actshift, root: Path) -> None:
    result = actshift("doctor", "--run", root / "results/none")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
