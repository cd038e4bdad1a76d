"""Recording module outputs at chosen tokens, straight into a buffer, while a batch runs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from actshift.hooks.reading.model_parts import CausalModel


def hidden_of(output: Tensor | tuple[Any, ...]) -> Tensor:
    """Return the hidden states of a block's output: the tensor, or the first of a tuple.

    Blocks return a tensor in transformers 5 and a tuple in 4.
    """
    return output[0] if isinstance(output, tuple) else output


@contextmanager
def record_rows(
    modules: Sequence[nn.Module],
    out: Float[Tensor, "module position row d_model"],
    token_index: Int[Tensor, "position row"],
) -> Iterator[None]:
    """Copy what each module puts out at the given tokens while the block runs.

    `out[i, p, b] = modules[i].output[b, token_index[p, b]]`. Values are copied, never viewed: a
    view of the last token would keep the whole `[row, token, d_model]` tensor alive. The hooks are
    gone afterwards, also after an exception. `out` lies on the modules' device; a wider dtype than
    theirs widens without rounding. Tokens are 0-based.
    """
    rows = torch.arange(token_index.shape[1], device=token_index.device)

    def hook_into(target: Tensor) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: object, output: Tensor | tuple[Any, ...]) -> None:
            target.copy_(hidden_of(output)[rows, token_index])

        return hook

    with ExitStack() as stack:
        for module, target in zip(modules, out, strict=True):
            stack.enter_context(module.register_forward_hook(hook_into(target)))
        yield


@torch.inference_mode()
def run_batch(
    causal: CausalModel,
    ids: Sequence[Int[np.ndarray, " _"]],
    token_index: Int[np.ndarray, "position row"],
) -> Float[np.ndarray, "outputs position row d_model"]:
    """Run prompts as one batch and return what stands at the given tokens.

    `token_index` is the token of every position and prompt, 0-based; -1 where there is none, whose
    values are NaN. Returns float32 `resid_post` of every block and, as the last entry, the output
    of the final norm; bf16 and fp16 values are widened, which is exact.
    """
    shape = (len(causal.blocks) + 1, *token_index.shape, causal.d_model)
    out = torch.full(shape, torch.nan, dtype=causal.dtype, device=causal.device)
    index = torch.from_numpy(token_index).to(causal.device, torch.long)
    # Under causal attention no real token sees what comes after it, so right padding needs neither
    # a mask nor position ids, and attention kernels keep their fast path (checked at load time).
    padded = pad_sequence([torch.from_numpy(prompt).long() for prompt in ids], batch_first=True)
    with record_rows([*causal.blocks, causal.final_norm], out, index.clamp(min=0)):
        causal.trunk(input_ids=padded.to(causal.device), use_cache=False)
    values = out.float().cpu().numpy()
    values[:, token_index < 0] = np.nan
    return values
