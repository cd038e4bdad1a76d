"""The residual stream of one prompt, slowly: one prompt at a time, no hooks of ours, no padding."""

import numpy as np
import torch

from actshift.models.families import final_norm_of


def hidden_states(model: torch.nn.Module, ids: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Run one unpadded prompt with `output_hidden_states`.

    The library's last hidden state is after the final norm, so the last block's output is found
    by running the norm's input through a replaced norm: the model is run a second time with the
    final norm swapped for the identity.

    Returns:
        `resid_post` `[layer, token, d_model]` and final norm `[token, d_model]`, float32.
    """
    tokens = torch.tensor([ids])
    with torch.no_grad():
        states = model(tokens, output_hidden_states=True, use_cache=False).hidden_states
        last = _without_final_norm(model, tokens)
    blocks = [*states[1:-1], last]
    resid = np.stack([state[0].float().numpy() for state in blocks])
    return resid, states[-1][0].float().numpy()


def _without_final_norm(model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    norm = final_norm_of(model)
    trunk = model.base_model
    name = next(name for name, child in trunk.named_children() if child is norm)
    setattr(trunk, name, torch.nn.Identity())
    try:
        return trunk(tokens, use_cache=False).last_hidden_state
    finally:
        setattr(trunk, name, norm)
