"""The parts of a loaded model, by the table of architectures."""

from typing import Any

from actshift.hooks.reading.model_parts import CausalModel
from actshift.models.families import (
    block_halves,
    blocks_of,
    edit_sites,
    embeddings_of,
    final_norm_of,
    head_of,
)


def causal_model(model: Any) -> CausalModel:
    """A causal language model with its parts, of any architecture of the table, adapters merged.

    An architecture that is not in the table, or lacks a part that its row names, is a UserError.
    """
    attention, mlp = block_halves(model)
    return CausalModel(
        model=model,
        trunk=model.base_model,
        embeddings=embeddings_of(model),
        blocks=tuple(blocks_of(model)),
        final_norm=final_norm_of(model),
        head=head_of(model),
        sites=edit_sites(model),
        attention=attention,
        mlp=mlp,
    )
