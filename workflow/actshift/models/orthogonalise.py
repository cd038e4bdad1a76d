"""Writing a directional ablation into the weights: no matrix writes to the subspace any more."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from actshift.errors import UserError
from actshift.models.families import blocks_of, embedding_of, embeddings_of, family_of, head_of


@torch.no_grad()
def orthogonalise(model: Any, basis: Float[Tensor, "d_model k"]) -> None:
    """Change the weights in place so that the residual stream stays orthogonal to `basis`.

    W <- W - U U^T W for every matrix whose output is added to the residual stream, biases and the
    token embedding included. A tied head gets weights of its own first: ablation does not touch
    reading. Where a norm stands between a matrix and the stream (Gemma 2), the matrix is made
    orthogonal to g * U, g the norm's gain: then the stream is orthogonal to U as well, but the
    norm's denominator changes, so the result equals ablation by hooks up to that scale only. The
    columns of `basis` are orthonormal.

    Raises:
        UserError: The architecture has an output matrix that is not known here.

    Source: Arditi et al. 2024 (arXiv 2406.11717), appendix E.
    """
    untie_head(model)
    wide = basis.to(torch.float64)
    # All that is added up before the first block.
    for module in embeddings_of(model):
        weight = module.get_parameter("weight")
        rows = weight.double()
        weight.copy_((rows - rows @ wide @ wide.T).to(weight.dtype))
    family = family_of(model.config.model_type)
    for block in blocks_of(model):
        for norm_path, matrix in _writers(block):
            gained = wide
            if norm_path is not None:
                gain = _gain(family.key, block.get_submodule(norm_path))
                gained = torch.linalg.qr(gain[:, None] * wide).Q
            _project_output(matrix, gained)


def untie_head(model: Any) -> None:
    """Give a tied language-model head its own copy of the weights, and say so in the config."""
    head, weight = head_of(model), embedding_of(model).get_parameter("weight")
    if head.weight is weight:
        head.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    model.config.tie_word_embeddings = False


def _writers(block: nn.Module) -> list[tuple[str | None, nn.Module]]:
    """The output matrices of attention and MLP, each with the norm behind it, if there is one."""
    names = dict(block.named_modules())
    for attention, mlp in (("self_attn.o_proj", "mlp.down_proj"), ("attn.c_proj", "mlp.c_proj")):
        if attention in names and mlp in names:
            after = ("post_attention_layernorm", "post_feedforward_layernorm")
            # Without a norm after the MLP, `post_attention_layernorm` only reads the stream.
            norms = after if after[1] in names else (None, None)
            return [(norms[0], names[attention]), (norms[1], names[mlp])]
    raise UserError(
        f"{type(block).__name__}: its output matrices are not known; add their names to _writers "
        "in models/orthogonalise.py"
    )


def _gain(family: str, norm: nn.Module) -> Tensor:
    weight = norm.get_parameter("weight").double()
    return 1.0 + weight if family.startswith("gemma") else weight


def _project_output(matrix: nn.Module, basis: Tensor) -> None:
    """Remove the span of `basis` from what a linear map puts out."""
    weight = matrix.get_parameter("weight")
    wide = weight.double()
    # GPT-2's Conv1D keeps [input, output], every other linear map [output, input].
    transposed = type(matrix).__name__ == "Conv1D"
    away = wide @ basis @ basis.T if transposed else basis @ (basis.T @ wide)
    weight.copy_((wide - away).to(weight.dtype))
    bias = getattr(matrix, "bias", None)
    if bias is not None:
        bias.copy_((bias.double() - basis @ (basis.T @ bias.double())).to(bias.dtype))
