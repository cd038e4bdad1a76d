"""`actshift doctor CONFIG`: what the files on this disk tell of a run, without running it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from actshift.config.schema import parse_config
from actshift.errors import UserError, one_line
from actshift.models.findings import Finding, Level, error
from actshift.models.language_model import language_type
from actshift.models.model_files import ModelFiles
from actshift.models.on_disk import place_of
from actshift.models.sources import HubSource, shape_in
from actshift.plan.checks import key_of, plan_errors
from actshift.plan.files import PlanFinding, file_findings
from actshift.plan.misalignment import adapter_file_errors
from actshift.plan.plan import Model, Plan


def examine_config(path: Path) -> bool:
    """Print a line a finding, grouped by pair: `ok`, `warning` or `error`.

    Args:
        path: a config file; its paths are relative to the current folder, as for snakemake.

    Returns:
        True when there is no error.

    Raises:
        UserError: the file is missing or is no valid config.
    """
    plan = Plan(parse_config(_load(path), origin=str(path)))
    findings = [*_models(plan), *file_findings(plan)]
    lines = {finding.line for finding in findings}
    # Some faults are seen by the quick checks and by those of the files.
    quick = (line for line in [*plan_errors(plan), *adapter_file_errors(plan)] if line not in lines)
    findings += [_quick(plan, line) for line in quick]
    groups = {"": "config"} | {pair.name: f"pair {pair.name}" for pair in plan.config.chosen_pairs}
    for pair, title in groups.items():
        of_pair = [finding for finding in findings if finding.pair == pair]
        if not of_pair:
            continue
        typer.echo(title)
        for finding in of_pair:
            typer.echo(f"  {finding.finding.level:<8} {finding.line}")
    levels: list[Level] = [finding.finding.level for finding in findings]
    typer.echo(f"{path}: {_counted(levels, 'error')}, {_counted(levels, 'warning')}")
    return "error" not in levels


def _counted(levels: Sequence[Level], level: Level) -> str:
    number = levels.count(level)
    return f"{number} {level}{'' if number == 1 else 's'}"


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a config such as config.yaml")
    try:
        raw = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as fault:
        raise UserError(f"{path}: not valid YAML: {one_line(fault)}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected a mapping such as config.yaml")
    return raw


def _quick(plan: Plan, line: str) -> PlanFinding:
    """A line of the quick checks, which begins with its config key."""
    for pair in plan.config.chosen_pairs:
        if line.startswith((f"pairs.{pair.name}.", f"pairs.{pair.name}:")):
            return PlanFinding(pair.name, "", error(line))
    return PlanFinding("", "", error(line))


def _models(plan: Plan) -> Iterator[PlanFinding]:
    """Say of each model what it is, so that a model without a finding is seen to be looked at."""
    for model in plan.models.values():
        text = _known(model)
        if text is not None:
            yield PlanFinding(
                model.pair.name, key_of(model), Finding("ok", f"{model.source}: {text}")
            )


def _known(model: Model) -> str | None:
    """What a model's files are; None where they cannot be read, which is a finding of its own."""
    place = place_of(model.source)
    if place is None:
        hub = isinstance(model.source, HubSource)
        return "not in the hub cache, so not looked at" if hub else "made by the run"
    files = ModelFiles(place)
    try:
        layers, width = shape_in(files.config, name=str(model.source))
        tokens = len(files.vocabulary or {})
        kind = language_type(files.config) or files.config.get("model_type")
        return f"{kind}, {layers} blocks, {width} wide, {tokens} tokens"
    except UserError:
        return None
