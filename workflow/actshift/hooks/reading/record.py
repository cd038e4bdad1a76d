"""Recording module outputs at chosen tokens, straight into a buffer."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


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
