"""What can be known to be wrong with a plan before the DAG is built (no numpy, no torch)."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from actshift.config.schema import Pair
from actshift.errors import UserError
from actshift.models.on_disk import shape_of
from actshift.models.sources import LocalSource, LoraSource
from actshift.studies.ablation.study import Ablation
from actshift.studies.misalignment.study import Misalignment
from actshift.vocab import ROLES

if TYPE_CHECKING:
    from actshift.plan.plan import Model, Plan


def plan_errors(plan: "Plan") -> Iterator[str]:
    """Yield a line for everything wrong with a plan that takes no time to see.

    These are missing folders and files, paths that Snakemake cannot take, and pairs whose models
    differ in depth or width.
    """
    yield from _braced_paths(plan)
    for pair in plan.config.chosen_pairs:
        yield from _shape_errors(plan, pair)
    for model in plan.models.values():
        for file in plan.merged_inputs(model.name):
            if not file.is_file():
                yield (
                    f"{key_of(model)}: no {file.name} in '{file.parent}'; "
                    "expected an adapter folder of peft"
                )
    for name, source in plan.config.prompts.items():
        if source.path is not None and not Path(source.path).expanduser().is_file():
            yield (
                f"prompts.{name}.path: no file '{source.path}'; expected a .jsonl, .csv, "
                ".json or .parquet file, relative to the folder snakemake runs in"
            )
    if "ablation" in plan.config.studies:
        for text in plan.plain_text_inputs():
            if not text.is_file():
                yield (
                    f"ablation.plain_text: no file '{text}'; expected a text file, one text a "
                    "line, relative to the folder snakemake runs in"
                )


def _braced_paths(plan: "Plan") -> Iterator[str]:
    """Snakemake reads {x} in a path as a wildcard, and there is no way to spell it otherwise."""
    for key, path in _paths(plan):
        if "{" in path or "}" in path:
            yield (
                f"{key}: '{path}' has a brace, which Snakemake reads as a wildcard; rename the "
                "folder or file, or give a link to it without braces"
            )


def _paths(plan: "Plan") -> Iterator[tuple[str, str]]:
    """Every path of the config that becomes an input of a rule, with its key."""
    for model in plan.models.values():
        source = model.source.adapter if isinstance(model.source, LoraSource) else model.source
        if isinstance(source, LocalSource):
            yield key_of(model), str(source.folder)
    for pair in plan.config.chosen_pairs:
        for name, section in pair.adapters.items():
            yield f"pairs.{pair.name}.adapters.{name}", section.source
    named = {f"prompts.{name}": section.path for name, section in plan.config.prompts.items()}
    data = plan.config.of(Misalignment).data
    named |= {f"misalignment.data.{kind}": section.path for kind, section in data.items()}
    named |= {"ablation.plain_text": plan.config.of(Ablation).plain_text}
    for key, path in named.items():
        if path is not None:
            yield (key if key.startswith("ablation") else f"{key}.path"), path


def _shape_errors(plan: "Plan", pair: Pair) -> Iterator[str]:
    shapes: dict[str, tuple[int, int] | None] = {}
    for name in (*(f"{pair.name}.{role}" for role in ROLES), *plan.references(pair.name)):
        model = plan.models[name]
        try:
            shapes[name] = shape_of(model.source)
        except UserError as error:
            yield f"{key_of(model)}: {error}"
    base, tuned = (shapes.get(f"{pair.name}.{role}") for role in ROLES)
    if base and tuned and base != tuned:
        yield (
            f"pairs.{pair.name}: base '{pair.base}' has (blocks, width) {base} and tuned "
            f"'{pair.tuned}' has {tuned}; a pair needs one depth and width"
        )
    for name in plan.references(pair.name):
        shape = shapes.get(name)
        if base and shape and base != shape:
            yield (
                f"{key_of(plan.models[name])}: has (blocks, width) "
                f"{shape} and base has {base}; a reference needs those of its pair"
            )


def key_of(model: "Model") -> str:
    """Where the config names a model."""
    place = model.role if model.role in ROLES else f"references.{model.role}"
    return f"pairs.{model.pair.name}.{place}"
