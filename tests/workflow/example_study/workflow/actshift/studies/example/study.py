"""How far tuning moves the residual stream: settings, tables and figure."""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from actshift.studies.contract import Figure, Study, table
from actshift.validation import Section


class Example(Section):
    """How far tuning moves the residual stream."""

    position: Annotated[int, Field(lt=0)] = Field(
        default=-1, description="position that is read, counted from the end of the prompt"
    )


TABLES = (
    table(
        "example_norm",
        "a pair and layer",
        """
        pair, layer, n
        norm | activation | mean norm of the shift over prompts
        norm_low, norm_high
        relative | | mean norm of the shift over the mean norm of the base model's activations
        """,
    ),
    table(
        "example_summary",
        "a pair",
        """
        pair, n
        layer | | layer of the largest relative norm
        relative | | relative norm at that layer
        norm | activation | mean norm of the shift at that layer
        norm_low, norm_high
        """,
    ),
)


def _needs(config: Any) -> Iterator[str]:
    """Yield what the configuration lacks."""
    yield from config.lacks_prompts("conditions", "harmful")


STUDY = Study(
    name="example",
    title="Norm of the shift",
    about=(
        "Asks how far tuning moves the residual stream on harmful prompts. Both models are given "
        "the tuned model's chat template, so that no difference is the template's. It cannot tell "
        "what the shift does to behaviour."
    ),
    settings=Example,
    tables=TABLES,
    stages=("example",),
    join="actshift.studies.example.tables:join",
    figures=(
        Figure("example_norm", ("example_norm",), "actshift.studies.example.figures:example_norm"),
    ),
    needs=_needs,
)
