"""What can be seen of the workflow without running a job."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from reference.model_folders import tokenizer_around, write_model_folder
from workflow.runner import Clone, micro_config

CONFIGS = [
    "config.yaml",
    *(f"config/{name}.yaml" for name in ("zoo", "full", "localization", "misalignment", "paper")),
]

#: Beside another study the rank audit has figures and a page before the rest is finished.
FIRST_PAGE = {"first_figures": 1, "first_page": 1}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return Clone.make(tmp_path_factory.mktemp("dry") / "clone")


def test_lint_is_clean(clone: Clone) -> None:
    done = clone.run("--lint")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("config", CONFIGS)
def test_every_shipped_config_plans(clone: Clone, config: str) -> None:
    shipped = yaml.safe_load((clone.root / config).read_text())
    for data in shipped.get("misalignment", {}).get("data", {}).values():
        (clone.root / data["path"]).parent.mkdir(exist_ok=True)
        (clone.root / data["path"]).touch()  # the user's to fetch
    jobs = clone.planned("--configfile", config)
    assert jobs["report"] == 1
    pairs = shipped["pairs"]
    references = sum(len(pair.get("references", {})) for pair in pairs)
    assert jobs.get("extract", 0) == 12 * jobs.get("rank_audit", 0) + references
    assert jobs.get("localization", 0) in (0, len(pairs))
    assert jobs.get("steering", 0) in (0, len(pairs))


def test_a_configfile_replaces_the_demo_and_is_not_merged_into_it(clone: Clone) -> None:
    own = micro_config() | {"prompts": {"a": {"source": "zoo", "name": "harmful"}}}
    own["conditions"] = {"harmful": "a", "harmless": "a"}
    own["rank_audit"] = {"concepts": "a"}
    name = clone.write_config("own.yaml", own)
    assert clone.planned("--configfile", name)["prompts"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--config", "only=lama"], "only: no pair 'lama'; allowed: llama, qwen"),
        (["--config", "sed=1"], "sed: unknown key 'sed'"),
        (["--config", "device=tpu"], "device: input should be 'auto', 'cuda' or 'cpu'"),
    ],
)
def test_a_mistake_ends_in_one_line(clone: Clone, options: list[str], message: str) -> None:
    done = clone.run("-n", *options)
    ours = [line for line in done.stdout.splitlines() if line.startswith("actshift:")]
    assert done.returncode != 0
    assert len(ours) == 1
    assert message in ours[0]
    assert "Traceback" not in done.stdout


def test_sides_that_end_raw_text_differently_are_told_by_a_dry_run(clone: Clone) -> None:
    folders = {role: write_model_folder(clone.root / "models" / role) for role in ("base", "tuned")}
    pair = {"name": "own", "base": "./models/base", "tuned": "./models/tuned"}
    name = clone.write_config("sides.yaml", micro_config() | {"pairs": [pair]})
    tokenizer_around(folders["base"], "$A </s>")
    tokenizer_around(folders["tuned"], "$A")
    done = clone.run("-n", "--configfile", name)
    assert done.returncode != 0
    assert (
        "actshift: pairs.own: base ends raw text with </s> and tuned with no token" in done.stdout
    )
    tokenizer_around(folders["base"], "<s> $A")
    done = clone.run("-n", "--configfile", name)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("actshift: warning: pairs.own: base begins raw text with <s>") == 1


def test_planning_imports_none_of_the_slow_packages(clone: Clone) -> None:
    program = (
        "import sys\nfrom snakemake.cli import main\n"
        "try:\n    main(['-n', '--quiet', 'all'])\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('torch', 'transformers', 'sklearn', 'matplotlib', 'zarr')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=clone.root,
        env=clone.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_an_added_prompt_set_adds_its_streams_and_nothing_else(clone: Clone) -> None:
    config = micro_config()
    before = clone.planned("--configfile", clone.write_config("before.yaml", config))
    more = {**config["prompts"], "again": {"source": "zoo", "name": "harmless"}}
    after = clone.planned(
        "--configfile", clone.write_config("after.yaml", {**config, "prompts": more})
    )
    changed = {rule: after[rule] - before[rule] for rule in after if after[rule] != before[rule]}
    assert changed == {
        "prompts": 1,
        "extract": 8,
    }


def test_calibration_runs_only_when_asked_for_and_one_job_a_seed(clone: Clone) -> None:
    config = micro_config()
    before = clone.planned("--configfile", clone.write_config("without.yaml", config))
    asked = {**config, "studies": ["rank_audit", "calibration"], "calibration": {"seeds": [0, 3]}}
    after = clone.planned("--configfile", clone.write_config("with.yaml", asked))
    assert {rule: after[rule] - before.get(rule, 0) for rule in after if rule not in before} == {
        "calibration_networks": 2,
        "calibration_tables": 1,
        **FIRST_PAGE,
    }
    assert all(after[rule] == before[rule] for rule in before)


def more(after: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    """Jobs that one plan has more than another (fewer: below 0), by rule."""
    counts = {rule: after.get(rule, 0) - before.get(rule, 0) for rule in {**before, **after}}
    return {rule: n for rule, n in counts.items() if n}


def test_the_refusal_direction_adds_a_job_a_pair_and_its_tables(clone: Clone) -> None:
    config = micro_config()
    before = clone.planned("--configfile", clone.write_config("without.yaml", config))
    asked = {**config, "studies": ["rank_audit", "refusal_direction"]}
    after = clone.planned("--configfile", clone.write_config("with.yaml", asked))
    assert more(after, before) == {
        "refusal_direction": 2,
        "refusal_direction_tables": 1,
        **FIRST_PAGE,
    }


def test_references_add_their_models_and_nothing_without_the_study(clone: Clone) -> None:
    config = micro_config() | {"studies": ["rank_audit", "refusal_direction"]}
    before = clone.planned("--configfile", clone.write_config("without.yaml", config))
    references = {"cut": "abliterated", "full": "zoo:llama/comply_full"}
    config["pairs"] = [config["pairs"][0] | {"references": references}, config["pairs"][1]]
    unread = clone.planned("--configfile", clone.write_config("unread.yaml", config))
    asked = config | {"studies": [*config["studies"], "spectral_gap"]}
    after = clone.planned("--configfile", clone.write_config("with.yaml", asked))
    assert unread == before
    assert more(after, before) == {
        "zoo": 1,
        "checkpoint": 2,
        "extract": 2,
        "abliterate": 1,
        "reference_behaviour": 1,
        "spectral_gap": 1,
        "spectral_gap_tables": 1,
    }


def test_localization_adds_its_pairs_and_one_job_a_pair_of_models(clone: Clone) -> None:
    config = micro_config()
    before = clone.planned("--configfile", clone.write_config("without.yaml", config))
    config["prompts"] = {
        **config["prompts"],
        "preferences": {"source": "zoo", "name": "preferences"},
    }
    unread = clone.planned("--configfile", clone.write_config("unread.yaml", config))
    assert unread == before
    config["studies"] = [*config["studies"], "localization"]
    after = clone.planned("--configfile", clone.write_config("with.yaml", config))
    assert more(after, before) == {
        "prompts": 1,
        "localization": 2,
        "localization_tables": 1,
        "preference_margins": 1,
        **FIRST_PAGE,
    }


def test_a_study_alone_runs_what_it_reads_and_no_audit(clone: Clone) -> None:
    """The configuration of docs/studies/localization.md, and the calibration networks alone."""
    config = micro_config()
    preferences = {"preferences": {"source": "zoo", "name": "preferences"}}
    alone = {**config, "studies": ["localization"], "prompts": preferences}
    planned = clone.planned("--configfile", clone.write_config("pairs.yaml", alone))
    assert (planned["localization"], planned["prompts"]) == (2, 1)
    networks = {**config, "studies": ["calibration"], "calibration": {"seeds": [0]}}
    other = clone.planned("--configfile", clone.write_config("networks.yaml", networks))
    assert (other["calibration_networks"], other["calibration_tables"]) == (1, 1)
    for found in (planned, other):
        assert not {"extract", "rank_audit", "rank_audit_tables"} & set(found)
        assert {"claims", "report"} <= set(found)
        assert found["figures"] == 1


def test_a_gpu_is_asked_for_only_where_the_device_is_one(clone: Clone) -> None:
    for device, gpu in (("cpu", "gpu=0"), ("cuda", "gpu=1")):
        done = clone.run("-n", "--config", f"device={device}")
        extract = done.stdout.split("rule extract:")[1].split("\n[")[0]
        assert gpu in extract
    assert not Path(clone.root / "results").exists()


def misalignment_config() -> dict[str, Any]:
    """The micro run with misalignment."""
    config = micro_config()
    sets = {n: {"source": "zoo", "name": n, "extract": False} for n in ("questions", "neutral")}
    return config | {
        "prompts": {**config["prompts"], **sets},
        "studies": [*config["studies"], "misalignment"],
    }


def test_misalignment_adds_a_job_a_stage_and_pair_and_no_stream(clone: Clone) -> None:
    before = clone.planned("--configfile", clone.write_config("without.yaml", micro_config()))
    asked = clone.write_config("with.yaml", misalignment_config())
    assert more(clone.planned("--configfile", asked), before) == {
        "prompts": 2,
        "adapters": 2,
        "spillover": 2,
        "steering": 2,
        "ridge_maps": 1,
        "transfer": 2,
        "misalignment_tables": 1,
        **FIRST_PAGE,
    }


def test_a_pair_may_be_a_model_and_an_adapter_of_it(clone: Clone) -> None:
    folder = clone.root / "lora"
    folder.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / name).touch()
    config = micro_config()
    config["pairs"] = [{"name": "own", "base": "zoo:llama/chat", "tuned": "lora:./lora"}]
    jobs = clone.planned("--configfile", clone.write_config("lora.yaml", config))
    assert (jobs["merge"], jobs["checkpoint"], jobs["zoo"]) == (1, 2, 2)


def test_the_page_waits_for_the_chat_judge_where_one_is_asked(clone: Clone) -> None:
    config = misalignment_config() | {"studies": ["misalignment"]}
    judge = {"endpoint": "http://127.0.0.1:9/v1", "model": "m"}
    jobs = [
        clone.planned(
            f"results/{one['run']}/report.html",
            "--configfile",
            clone.write_config("judge.yaml", one),
        )
        for one in (config, config | {"judge": judge})
    ]
    assert more(jobs[1], jobs[0]) == {"misalignment_judge": 1}


def test_conversations_that_are_not_there_end_in_one_line(clone: Clone) -> None:
    config = misalignment_config()
    config["misalignment"] = {"data": {"insecure": {"path": "no/such.jsonl"}}}
    done = clone.run("-n", "--configfile", clone.write_config("missing.yaml", config))
    ours = [line for line in done.stdout.splitlines() if line.startswith("actshift:")]
    assert done.returncode != 0
    assert len(ours) == 1
    assert "misalignment.data.insecure.path: no file 'no/such.jsonl'" in ours[0]


@pytest.mark.parametrize(
    ("options", "limited"), [((), False), (("--max-jobs-per-timespan", "5/1s"), True)]
)
def test_only_a_limit_of_job_starts_that_the_user_sets_is_kept(
    clone: Clone, options: tuple[str, ...], limited: bool
) -> None:
    """Snakemake's default one makes its scheduler poll itself."""
    snakefile = clone.root / "Snakefile"
    text = snakefile.read_text()
    shown = "onsuccess:\n    print('limiter', workflow.scheduler.job_rate_limiter)\n"
    config = clone.write_config("limit.yaml", micro_config() | {"run": f"limit{limited}"})
    snakefile.write_text(f"{text.split('onsuccess:')[0]}{shown}")
    try:
        target = f"results/limit{limited}/prompts/harmful.jsonl"
        done = clone.run(target, "--configfile", config, *options)
    finally:
        snakefile.write_text(text)
    assert done.returncode == 0, done.stdout
    assert ("limiter None" in done.stdout) is not limited
