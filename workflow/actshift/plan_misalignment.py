"""What study B needs of a plan: training data of adapters, and who a zoo model is (no torch)."""

from pathlib import Path
from typing import Any

from actshift.errors import UserError
from actshift.models.sources import ZooSource
from actshift.plan import Plan


def zoo_of(plan: Plan, pair: str) -> dict[str, Any] | None:
    """Family, size and seed of a pair's tuned model; None where it is not of the zoo."""
    source = plan.models[f"{pair}.tuned"].source
    if not isinstance(source, ZooSource):
        return None
    return {"family": source.family, "size": plan.config.zoo.size, "seed": source.seed}


def adapter_files(plan: Plan, pair: str) -> list[Path]:
    """The local files that a pair's adapters are trained on; none for zoo models."""
    if zoo_of(plan, pair) is not None:
        return []
    given = plan.config.misalignment.data.values()
    return [Path(one.path).expanduser() for one in given if one.path is not None]


def check_adapter_files(plan: Plan) -> None:
    """Refuse training data that is not there before the DAG is built.

    Raises:
        UserError: Names the key and the file.
    """
    if "misalignment" not in plan.config.studies:
        return
    for kind, one in plan.config.misalignment.data.items():
        if one.path is not None and not Path(one.path).expanduser().is_file():
            raise UserError(
                f"misalignment.data.{kind}.path: no file '{one.path}'; expected a .jsonl of "
                "conversations, relative to the folder snakemake runs in"
            )
