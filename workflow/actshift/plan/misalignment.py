"""What `misalignment` needs of a plan: training data, and who a zoo model is (no torch)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from actshift.errors import UserError
from actshift.models.findings import Finding, error
from actshift.models.model_files import ModelFiles, TemplateRefusal, render_template
from actshift.models.sources import ADAPTER_FILES, LocalSource, ZooSource, parse_adapter
from actshift.plan.plan import Plan
from actshift.studies.misalignment.study import Misalignment


def zoo_of(plan: Plan, pair: str) -> dict[str, Any] | None:
    """Family, size and seed of a pair's tuned model; None where it is not of the zoo."""
    source = plan.models[f"{pair}.tuned"].source
    if not isinstance(source, ZooSource):
        return None
    return {"family": source.family, "size": plan.config.zoo.size, "seed": source.seed}


def adapter_files(plan: Plan, pair: str) -> list[Path]:
    """The local files that a pair's adapters are trained on or taken from."""
    files = [
        folder / name for folder in _given_folders(plan, pair).values() for name in ADAPTER_FILES
    ]
    if zoo_of(plan, pair) is not None:
        return files
    data = plan.config.of(Misalignment).data.values()
    return files + [Path(source.path).expanduser() for source in data if source.path is not None]


def given_adapters(plan: Plan, pair: str) -> dict[str, Any]:
    """Sources and revisions of a pair's adapters that exist already."""
    adapters = plan.models[f"{pair}.tuned"].pair.adapters
    return {name: adapter.model_dump() for name, adapter in adapters.items()}


def check_adapter_files(plan: Plan) -> None:
    """Refuse training data that is not there before the DAG is built.

    Raises:
        UserError: Names the key and the file.
    """
    for line in adapter_file_errors(plan):
        raise UserError(line)


def adapter_file_errors(plan: Plan) -> Iterator[str]:
    """Yield a line for every file of `misalignment` that is not there.

    Raises:
        UserError: The source of an adapter is neither a folder nor a hub id.
    """
    if "misalignment" not in plan.config.studies:
        return
    for kind, source in plan.config.of(Misalignment).data.items():
        if source.path is not None and not Path(source.path).expanduser().is_file():
            yield (
                f"misalignment.data.{kind}.path: no file '{source.path}'; expected a .jsonl of "
                "conversations, relative to the folder snakemake runs in"
            )
    for pair in plan.config.chosen_pairs:
        for name, folder in _given_folders(plan, pair.name).items():
            missing = [file for file in ADAPTER_FILES if not (folder / file).is_file()]
            if missing:
                yield (
                    f"pairs.{pair.name}.adapters.{name}: no {missing[0]} in '{folder}'; expected "
                    "an adapter folder of peft, relative to the folder snakemake runs in"
                )


def system_turns(plan: Plan, pair: str, tuned: ModelFiles) -> Iterator[Finding]:
    """Compare the roles in a pair's conversations with those that its chat template takes.

    Raises:
        UserError: A file of the tokenizer cannot be read.
    """
    if "misalignment" not in plan.config.studies or tuned.template is None:
        return
    reason = _refusal_of_system(tuned.template, tuned.special_tokens)
    if reason is None:
        return
    adapters = plan.models[f"{pair}.tuned"].pair.adapters
    for kind, source in plan.config.of(Misalignment).data.items():
        row = None if source.path is None or kind in adapters else _system_row(source.path)
        if row is not None:
            yield error(
                f"its chat template takes no system turn ({reason}), and row {row} of "
                f"misalignment.data.{kind}.path '{source.path}' has one: put its text into the "
                "first user turn, or leave it out"
            )


def _refusal_of_system(template: str, tokens: dict[str, str]) -> str | None:
    """Why a template refuses a system turn; None where it does not."""
    opened = [{"role": "system", "content": "x"}, {"role": "user", "content": "x"}]
    try:
        render_template(template, opened[1:], tokens=tokens)
    except TemplateRefusal:
        return None
    try:
        render_template(template, opened, tokens=tokens)
    except TemplateRefusal as refusal:
        return str(refusal)
    return None


def _system_row(path: str) -> int | None:
    """Number of the first row of a JSONL file that has a system turn; the job reads other files."""
    file = Path(path).expanduser()
    if file.suffix != ".jsonl" or not file.is_file():
        return None
    with file.open(encoding="utf-8", errors="replace") as lines:
        rows = (line for line in lines if line.strip())
        for number, line in enumerate(rows, start=1):
            if '"system"' in line and _has_system_turn(line):
                return number
    return None


def _has_system_turn(line: str) -> bool:
    try:
        turns = json.loads(line)["messages"]
        return any(turn["role"] == "system" for turn in turns)
    except (ValueError, KeyError, TypeError):
        return False  # the job names the row and what is wrong with it


def _given_folders(plan: Plan, pair: str) -> dict[str, Path]:
    """Folders of the adapters that lie on this disk, by name; another source is a UserError."""
    folders: dict[str, Path] = {}
    for name, adapter in plan.models[f"{pair}.tuned"].pair.adapters.items():
        try:
            source = parse_adapter(adapter.source, revision=adapter.revision)
        except UserError as error:
            raise UserError(f"pairs.{pair}.adapters.{name}: {error}") from None
        if isinstance(source, LocalSource):
            folders[name] = source.folder
    return folders
