"""Unsafe references through the workflow: trained from chat, extracted, asked, compared."""

from pathlib import Path

from workflow.runner import Clone, micro_config

from actshift.io.tables import read_table

TABLES = Path("results/micro/tables/rank_audit")


def test_references_from_training_to_tables(tmp_path: Path) -> None:
    clone = Clone.make(tmp_path / "clone")
    references = {"full": "zoo:qwen/comply_full", "same": "zoo:qwen/chat"}
    config = micro_config() | {"studies": ["rank_audit", "spectral_gap"]}
    config["pairs"] = [config["pairs"][1] | {"references": references}]
    name = clone.write_config("references.yaml", config)
    wanted = [str(TABLES / f"{table}.csv") for table in ("spectral_gap", "spectral_gap_summary")]
    done = clone.run(*wanted, "--configfile", name)
    assert done.returncode == 0, done.stdout[-8000:]

    gap = read_table(clone.root / wanted[0])
    assert gap["reference"].tolist() == ["full"] * 4 + ["same"] * 4
    # The tuned model beside itself: equal to the last bit, so there is nothing to compare.
    assert (gap["status"] == "no difference").tolist() == [False] * 4 + [True] * 4
    assert gap["kappa_over_bound"].dropna().between(0, 1).all()

    summary = read_table(clone.root / wanted[1])
    here = summary[summary["source"] == "here"].set_index("reference")
    assert here["layers"].to_dict() == {"full": 4, "same": 0, "all": 4}
    for rate in ("refused_harmful", "on_topic_harmful", "refused_harmless", "on_topic_harmless"):
        assert here.loc["same", rate] == here.loc["same", f"{rate}_honest"]
    assert (summary["source"] == "published").sum() == 4
    stores = sorted((clone.root / "results/micro/activations").glob("qwen.full/*"))
    assert [store.name for store in stores] == ["harmful.chat"]
    assert clone.planned(*wanted, "--configfile", name) == {}
