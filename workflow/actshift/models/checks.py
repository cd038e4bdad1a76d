"""Checks at load time, by shape and by numeric identity: a model that fails one is not used.

Every tool of this kind has had silent position and padding bugs; here they stop the job.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from actshift.errors import UserError
from actshift.models.load import LoadedModel

#: Largest relative difference between padded and unpadded runs, by dtype of the forward pass.
#: float32 sums in another order (about 1e-6); bf16 rounds each step to 8 bits (about 1e-2).
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 6e-2, torch.float16: 1e-2}
_LENGTHS = (3, 9, 6)


def check_model(loaded: LoadedModel) -> None:
    """Run all load-time checks.

    Raises:
        UserError: Naming the model, the check and what differs.
    """
    check_shape(loaded)
    check_identity_hook(loaded)
    check_padding(loaded)


def check_shape(loaded: LoadedModel) -> None:
    """Compare block count and width with the configuration.

    Raises:
        UserError: They differ.
    """
    config = loaded.model.config
    depth = len(loaded.blocks)
    if depth != config.num_hidden_layers:
        raise UserError(
            f"{loaded.name}: has {depth} decoder blocks, config.json says "
            f"{config.num_hidden_layers}; correct its row in models/families.py"
        )
    width = _hidden(loaded, _probe(loaded)[:1]).shape[-1]
    if width != config.hidden_size:
        raise UserError(
            f"{loaded.name}: hidden states are {width} wide, config.json says {config.hidden_size}"
        )


def check_identity_hook(loaded: LoadedModel) -> None:
    """Hooks on every block that return their output as it is must change no bit.

    Raises:
        UserError: The hidden states differ.
    """
    prompts = _probe(loaded)
    plain = _hidden(loaded, prompts)
    with ExitStack() as stack:
        for block in loaded.blocks:
            stack.enter_context(block.register_forward_hook(lambda _module, _args, out: out))
        hooked = _hidden(loaded, prompts)
    # NaN equals NaN here: broken weights are reported by extraction, with prompt and layer.
    if not torch.allclose(plain, hooked, rtol=0, atol=0, equal_nan=True):
        raise UserError(
            f"{loaded.name}: an identity hook changes the hidden states, so edits cannot be "
            "trusted; this architecture needs another hook point"
        )


def check_padding(loaded: LoadedModel, *, left_padded: Callable[..., Tensor] | None = None) -> None:
    """Last-token states must not depend on padding: left (generation) and right (extraction).

    `left_padded` runs a left-padded batch; by default `run_left_padded`.

    Raises:
        UserError: A padded run differs from the unpadded one by more than `TOLERANCE`.
    """
    prompts = _probe(loaded)
    alone = torch.stack([_hidden(loaded, [prompt])[0, -1] for prompt in prompts])
    last = torch.tensor([len(prompt) - 1 for prompt in prompts])
    runs = {
        "left": (left_padded or run_left_padded)(loaded, prompts)[:, -1],
        "right": _hidden(loaded, prompts)[torch.arange(len(prompts)), last],
    }
    limit = TOLERANCE[loaded.dtype]
    for side, states in runs.items():
        error = float((states - alone).norm() / alone.norm())
        if error > limit:
            raise UserError(
                f"{loaded.name}: {side}-padded and unpadded runs differ by {error:.1e} "
                f"(allowed {limit:.0e}), so results would depend on batch composition"
            )


@torch.inference_mode()
def run_left_padded(
    loaded: LoadedModel,
    prompts: list[Int[Tensor, " _"]],
    *,
    with_position_ids: bool = True,
) -> Float[Tensor, "row token d_model"]:
    """Run prompts left-padded, with mask and the position ids that follow from it.

    Without position ids absolute-position models (GPT-2) read every shorter prompt at shifted
    positions. Returns hidden states after the final norm, float32, on the CPU; prompts end at the
    last token.
    """
    ids = pad_sequence(prompts, batch_first=True, padding_side="left")
    width = ids.shape[1]
    mask = torch.stack([torch.arange(width) >= width - len(prompt) for prompt in prompts]).long()
    options: dict[str, Any] = {"attention_mask": mask}
    if with_position_ids:
        options["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    device = loaded.device
    sent = {key: value.to(device) for key, value in options.items()}
    out = loaded.trunk(input_ids=ids.to(device), use_cache=False, **sent)
    return out.last_hidden_state.float().cpu()


@torch.inference_mode()
def _hidden(
    loaded: LoadedModel, prompts: list[Int[Tensor, " _"]]
) -> Float[Tensor, "row token d_model"]:
    ids = pad_sequence(prompts, batch_first=True).to(loaded.device)
    return loaded.trunk(input_ids=ids, use_cache=False).last_hidden_state.float().cpu()


def _probe(loaded: LoadedModel) -> list[Int[Tensor, " _"]]:
    """Return three short prompts of arbitrary tokens, the same at every load."""
    draw = torch.Generator().manual_seed(0)
    return [torch.randint(loaded.vocab_size, (size,), generator=draw) for size in _LENGTHS]
