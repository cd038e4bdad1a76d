"""A loaded model as `hooks` takes it: its parts by the table of architectures."""

from typing import Any

from actshift.hooks.reading.model_parts import Causal
from actshift.models.families import (
    block_halves,
    blocks_of,
    embeddings_of,
    final_norm_of,
    head_of,
)


def take_apart(model: Any) -> Causal:
    """The parts of a causal language model that patching, scoring and swaps need.

    Args:
        model: Any architecture of the table, adapters merged.

    Raises:
        UserError: The architecture is not in the table, or its row names a part it lacks.
    """
    attention, mlp = block_halves(model)
    return Causal(
        model=model,
        trunk=model.base_model,
        embeddings=embeddings_of(model),
        blocks=tuple(blocks_of(model)),
        final_norm=final_norm_of(model),
        head=head_of(model),
        attention=attention,
        mlp=mlp,
    )
