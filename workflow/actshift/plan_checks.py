"""What can be known to be wrong with a plan before the DAG is built (no numpy, no torch)."""

from pathlib import Path
from typing import TYPE_CHECKING

from actshift.config import Pair
from actshift.errors import UserError
from actshift.models.on_disk import shape_of
from actshift.vocab import ROLES

if TYPE_CHECKING:
    from actshift.plan import Model, Plan


def check_plan(plan: "Plan") -> None:
    """Refuse what can be known to be wrong before the DAG is built.

    Raises:
        UserError: a missing folder or file, or a pair whose models differ in shape.
    """
    for pair in plan.config.chosen_pairs:
        _check_shapes(plan, pair)
    for model in plan.models.values():
        for file in plan.merged_inputs(model.name):
            if not file.is_file():
                raise UserError(
                    f"pairs.{model.pair.name}.{_place(model)}: no {file.name} in '{file.parent}'; "
                    "expected an adapter folder of peft"
                )
    for name, source in plan.config.prompts.items():
        if source.path is not None and not Path(source.path).expanduser().is_file():
            raise UserError(
                f"prompts.{name}.path: no file '{source.path}'; expected a .jsonl, .csv, "
                ".json or .parquet file, relative to the folder snakemake runs in"
            )
    if "ablation" in plan.config.studies:
        for text in plan.plain_text_inputs():
            if not text.is_file():
                raise UserError(
                    f"ablation.plain_text: no file '{text}'; expected a text file, one text a "
                    "line, relative to the folder snakemake runs in"
                )


def _check_shapes(plan: "Plan", pair: Pair) -> None:
    base, tuned = (_shape(plan, f"{pair.name}.{role}") for role in ROLES)
    if base and tuned and base != tuned:
        raise UserError(
            f"pairs.{pair.name}: base '{pair.base}' has (blocks, width) {base} and tuned "
            f"'{pair.tuned}' has {tuned}; a pair needs one depth and width"
        )
    for name in plan.references(pair.name):
        found = _shape(plan, name)
        if base and found and base != found:
            raise UserError(
                f"pairs.{pair.name}.references.{plan.models[name].role}: has (blocks, width) "
                f"{found} and base has {base}; a reference needs those of its pair"
            )


def _shape(plan: "Plan", name: str) -> tuple[int, int] | None:
    model = plan.models[name]
    try:
        return shape_of(model.source)
    except UserError as error:
        raise UserError(f"pairs.{model.pair.name}.{_place(model)}: {error}") from None


def _place(model: "Model") -> str:
    """Where the pair's block names a model."""
    return model.role if model.role in ROLES else f"references.{model.role}"
