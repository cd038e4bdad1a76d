"""The whole DAG at reduced size, run once, then what is recomputed and when."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file
from workflow.runner import ROOT, Clone, micro_config

AFTER_AUDIT = {"rank_audit_tables", "claims", "figures", "report", "all"}


def tree(folder: Path) -> dict[str, str]:
    """Content of every file below a folder, without Snakemake's time stamps."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name != ".snakemake_timestamp"
    }


@pytest.fixture(scope="module")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which the micro run has finished."""
    clone = Clone.make(tmp_path_factory.mktemp("micro") / "clone")
    clone.write_config("micro.yaml", micro_config())
    done = clone.run("--configfile", "micro.yaml")
    assert done.returncode == 0, done.stdout[-8000:]
    (clone.root / "micro.log").write_text(done.stdout)
    return clone


@pytest.fixture
def edited(micro: Clone) -> Iterator[Clone]:
    """The finished clone, whose package is put back afterwards."""
    package = micro.root / "workflow" / "actshift"
    kept = {path: path.read_text() for path in package.rglob("*.py")}
    yield micro
    for path, text in kept.items():
        if path.read_text() != text:
            path.write_text(text)


def planned(clone: Clone, *options: str) -> set[str]:
    """Rules that a dry run of the micro config would run."""
    return set(clone.planned("--configfile", "micro.yaml", *options)) - {"all"}


def check_out_again(clone: Clone) -> None:
    """Make every shipped file newer than the results, as a checkout does."""
    for folder in ("workflow", "resources"):
        for path in clone.root.joinpath(folder).rglob("*"):
            if path.is_file():
                os.utime(path)


def test_the_run_leaves_tables_figures_stores_and_a_page(micro: Clone) -> None:
    results = micro.root / "results/micro"
    page = (results / "report.html").read_text()
    tables = {path.stem for path in (results / "tables/rank_audit").glob("*.csv")}
    assert {"llama", "qwen"} <= set(page.split('"')) or ("llama" in page and "qwen" in page)
    assert {"rank", "heldout_rank", "inflation", "cosine", "summary", "bootstrap"} <= tables
    assert len(list((results / "activations").glob("*/*/acts.zarr"))) == 24
    assert not list((results / "status").glob("*.json"))


def test_the_run_ends_with_a_summary_and_says_what_it_was_made_with(micro: Clone) -> None:
    log = (micro.root / "micro.log").read_text()
    assert "actshift: run micro: 0 missed gates, 0 failed jobs" in log
    summary = " ".join(log.split("actshift: run micro")[1].split())
    assert "measured rank_audit 2 of 2" in summary
    assert "page results/micro/report.html" in summary
    record = json.loads((micro.root / "results/micro/run.json").read_text())
    (machine,) = record["machines"]
    assert set(machine["libraries"]) >= {"numpy", "torch"}
    assert machine["jobs"]["zoo"] == {"jobs": 4, "threads": 1}
    page = (micro.root / "results/micro/report.html").read_text()
    assert "2 pairs of models of 75.6 to 75.8 thousand parameters, trained from scratch" in page
    assert page.index('id="models"') < page.index('id="claims"')


def test_a_finished_run_has_nothing_to_do(micro: Clone) -> None:
    assert planned(micro) == set()
    for options in (["-n"], []):
        done = micro.run("--configfile", "micro.yaml", *options)
        assert "actshift: " not in done.stdout


def test_results_without_snakemakes_notes_keep_models_and_audits(
    micro: Clone, tmp_path: Path
) -> None:
    fresh = Clone.make(tmp_path / "fresh")
    shutil.copytree(micro.root / "results", fresh.root / "results", symlinks=True)
    fresh.write_config("micro.yaml", micro_config())
    check_out_again(fresh)
    # Without the notes Snakemake has no checksum of the published tables and the page's template.
    assert not planned(fresh) & {"prompts", "zoo", "checkpoint", "extract", "rank_audit"}


def test_a_checkout_over_the_results_reruns_nothing(micro: Clone) -> None:
    check_out_again(micro)
    assert planned(micro) == set()


def test_a_moved_folder_reruns_nothing(micro: Clone, tmp_path: Path) -> None:
    moved = Clone(tmp_path / "moved")
    shutil.copytree(micro.root, moved.root, symlinks=True)
    assert planned(moved) == set()


def test_a_deleted_store_leaves_finished_tables_alone(micro: Clone, tmp_path: Path) -> None:
    store = micro.root / "results/micro/activations/qwen.tuned/harmful.chat"
    kept = shutil.move(store, tmp_path / "kept")
    again = planned(micro, "-R", "extract")
    finished = planned(micro)
    shutil.move(kept, store)
    assert finished == set()
    assert {"extract", "rank_audit"} <= again


def test_a_prompt_set_that_no_study_reads_is_extracted_too(micro: Clone) -> None:
    config = micro_config()
    config["prompts"] = {**config["prompts"], "more": {"source": "zoo", "name": "concepts"}}
    jobs = micro.planned("--configfile", micro.write_config("more.yaml", config))
    assert (jobs["prompts"], jobs["extract"]) == (1, 8)
    assert "rank_audit" not in jobs


def test_changing_eps_touches_no_extraction(micro: Clone) -> None:
    config = micro_config()
    config["rank_audit"] = {**config["rank_audit"], "eps": 0.1}
    jobs = micro.planned("--configfile", micro.write_config("eps.yaml", config))
    assert set(jobs) == {"rank_audit", *AFTER_AUDIT}


def test_a_comment_edit_reruns_nothing(edited: Clone) -> None:
    path = edited.root / "workflow/actshift/maths/spectrum.py"
    path.write_text(path.read_text() + "\n# a remark\n")
    assert planned(edited) == set()


def test_a_maths_edit_reruns_the_stages_it_decides(edited: Clone) -> None:
    path = edited.root / "workflow/actshift/maths/spectrum.py"
    path.write_text(path.read_text() + "\n_EDITED = 1\n")
    rules = planned(edited)
    assert "rank_audit" in rules
    assert not rules & {"extract", "zoo", "prompts", "checkpoint"}


@pytest.mark.parametrize(
    ("rule", "untouched"),
    [
        ("report", {"figures", "rank_audit", "extract", "zoo"}),
        ("rank_audit", {"extract", "zoo", "checkpoint", "prompts", "zoo_behaviour"}),
        ("extract", {"zoo", "checkpoint", "prompts", "zoo_behaviour"}),
    ],
)
def test_forcing_a_stage_reruns_it_and_what_depends_on_it(
    micro: Clone, rule: str, untouched: set[str]
) -> None:
    rules = planned(micro, "-R", rule)
    assert {rule, "report"} <= rules
    assert not rules & untouched


def test_an_edited_prompt_set_is_extracted_alone(micro: Clone) -> None:
    config = micro_config()
    source = micro.root / "results/micro/prompts/concepts.jsonl"
    kept = source.read_text().splitlines()
    (micro.root / "concepts.jsonl").write_text("\n".join(kept[:-2]) + "\n")
    config["prompts"] = {
        **config["prompts"],
        "concepts": {
            "source": "file",
            "path": "concepts.jsonl",
            "columns": {"pair": "pair", "category": "category", "condition": "condition"},
        },
    }
    name = micro.write_config("edited.yaml", config)
    jobs = micro.planned("--configfile", name)
    assert (jobs["prompts"], jobs["extract"]) == (1, 8)
    assert not set(jobs) & {"zoo", "checkpoint"}


def test_the_example_opens_stores_and_plots_a_layer(micro: Clone) -> None:
    example = ROOT / "docs/examples/open_a_store.py"
    subprocess.run(
        [sys.executable, "-W", "error", str(example), "results/micro/activations", "2"],
        cwd=micro.root,
        env={**os.environ, "MPLBACKEND": "agg"},
        check=True,
        capture_output=True,
    )
    assert (micro.root / "results/micro/shift_layer_2.png").stat().st_size > 10_000


def test_snakemakes_own_report_holds_every_figure_with_its_caption(micro: Clone) -> None:
    done = micro.run("--report", "own.zip", "--configfile", "micro.yaml")
    assert done.returncode == 0, done.stdout[-4000:]
    with zipfile.ZipFile(micro.root / "own.zip") as report:
        names = " ".join(report.namelist())
        text = " ".join(
            report.read(name).decode(errors="replace")
            for name in report.namelist()
            if name.endswith((".html", ".js"))
        )
    captions = list((ROOT / "workflow/actshift/studies/rank_audit/captions").glob("*.rst"))
    assert len(captions) == 8
    for caption in captions:
        assert f"{caption.stem}.png" in names
        assert caption.stem.replace("_", " ") in text


def local_pair(*, base: str, tuned: str, name: str) -> dict[str, object]:
    folder = "./results/micro/zoo/llama-micro-s0"
    return {"name": name, "base": f"{folder}/{base}", "tuned": f"{folder}/{tuned}"}


def stores_config(clone: Clone, run: str, pair: dict[str, object]) -> str:
    return clone.write_config(f"{run}.yaml", {**micro_config(), "run": run, "pairs": [pair]})


def store_targets(run: str, model: str) -> list[str]:
    sets = ("harmful", "harmless", "concepts")
    return [f"results/{run}/activations/{model}/{s}.{t}" for s in sets for t in ("raw", "chat")]


def test_a_killed_run_resumes_and_ends_byte_identical(micro: Clone) -> None:
    clone = micro
    pair = local_pair(base="base", tuned="chat", name="own")
    config = stores_config(clone, "killed", pair)
    targets = store_targets("killed", "own.tuned")
    cache = clone.root / "results/.cache"
    shutil.move(cache, clone.root / "cache.kept")
    run = subprocess.Popen(
        clone.command(*targets, "--configfile", config),
        cwd=clone.root,
        env=clone.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list(cache.glob("activations/*.partial")) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert not all((clone.root / target).is_dir() for target in targets)
    assert clone.run("--unlock", "--configfile", config).returncode == 0
    again = clone.run(*targets, "--configfile", config)
    assert again.returncode == 0, again.stdout[-4000:]
    twin = stores_config(clone, "twin", pair)
    shutil.rmtree(cache)
    undisturbed = clone.run(*store_targets("twin", "own.tuned"), "--configfile", twin)
    assert undisturbed.returncode == 0, undisturbed.stdout[-4000:]
    shutil.rmtree(cache)
    shutil.move(clone.root / "cache.kept", cache)
    results = clone.root / "results"
    assert tree(results / "killed/activations") == tree(results / "twin/activations")
    assert not list(results.rglob("*.partial"))


def test_one_broken_pair_does_not_cost_the_others(micro: Clone) -> None:
    zoo = micro.root / "results/micro/zoo/llama-micro-s0"
    shutil.copytree(zoo / "chat", zoo / "nan")
    weights = load_file(zoo / "nan/model.safetensors")
    name = next(key for key in sorted(weights) if "layers.2." in key and key.endswith("weight"))
    weights[name][:] = float("nan")
    save_file(weights, zoo / "nan/model.safetensors", metadata={"format": "pt"})
    pairs = [
        local_pair(base="base", tuned="chat", name="good"),
        local_pair(base="base", tuned="nan", name="broken"),
    ]
    config = micro.write_config("broken.yaml", {**micro_config(), "run": "broken", "pairs": pairs})
    done = micro.run("--configfile", config)
    page = (micro.root / "results/broken/report.html").read_text()
    failures = [
        json.loads(path.read_text())
        for path in (micro.root / "results/broken/status").glob("*.json")
    ]
    assert done.returncode != 0
    end = " ".join(done.stdout.split("actshift: run broken: 0 missed gates, ")[1].split())
    assert "failed extract model=broken.tuned" in end
    assert "rank_audit 1 of 2 (not broken)" in end
    assert (micro.root / "results/broken/pairs/good/rank_audit/rank.csv").is_file()
    assert failures
    assert all("broken.tuned" in f["message"] and "layer 2" in f["message"] for f in failures)
    assert "broken" in page
    assert "good" in page
    assert failures[0]["message"][:60] in page.replace("&#39;", "'")
