"""What study B needs of a plan: training data of adapters, and who a zoo model is (no torch)."""

from pathlib import Path
from typing import Any

from actshift.errors import UserError
from actshift.models.sources import ADAPTER_FILES, LocalSource, ZooSource, parse_adapter
from actshift.plan import Plan


def zoo_of(plan: Plan, pair: str) -> dict[str, Any] | None:
    """Family, size and seed of a pair's tuned model; None where it is not of the zoo."""
    source = plan.models[f"{pair}.tuned"].source
    if not isinstance(source, ZooSource):
        return None
    return {"family": source.family, "size": plan.config.zoo.size, "seed": source.seed}


def adapter_files(plan: Plan, pair: str) -> list[Path]:
    """The local files that a pair's adapters are trained on or taken from."""
    found = [
        folder / name for folder in _given_folders(plan, pair).values() for name in ADAPTER_FILES
    ]
    if zoo_of(plan, pair) is not None:
        return found
    data = plan.config.misalignment.data.values()
    return found + [Path(one.path).expanduser() for one in data if one.path is not None]


def given_adapters(plan: Plan, pair: str) -> dict[str, Any]:
    """Sources and revisions of a pair's adapters that exist already."""
    given = plan.models[f"{pair}.tuned"].pair.adapters
    return {name: one.model_dump() for name, one in given.items()}


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
    for pair in plan.config.chosen_pairs:
        for name, folder in _given_folders(plan, pair.name).items():
            missing = [file for file in ADAPTER_FILES if not (folder / file).is_file()]
            if missing:
                raise UserError(
                    f"pairs.{pair.name}.adapters.{name}: no {missing[0]} in '{folder}'; expected "
                    "an adapter folder of peft, relative to the folder snakemake runs in"
                )


def _given_folders(plan: Plan, pair: str) -> dict[str, Path]:
    """Folders of the adapters that lie on this disk, by name.

    Raises:
        UserError: A source is neither a folder nor a hub id.
    """
    found: dict[str, Path] = {}
    for name, one in plan.models[f"{pair}.tuned"].pair.adapters.items():
        try:
            source = parse_adapter(one.source, revision=one.revision)
        except UserError as error:
            raise UserError(f"pairs.{pair}.adapters.{name}: {error}") from None
        if isinstance(source, LocalSource):
            found[name] = source.folder
    return found
