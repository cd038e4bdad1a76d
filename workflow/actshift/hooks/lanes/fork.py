"""Sharing the blocks below the first edit among rows that have read the same tokens.

Lanes of one prompt are equal until an edit tells them apart, and most of them go on to say the
same. So the lower blocks run once for every distinct (prompt, answer so far), a *group*, and the
batch grows to one row a lane at the first block that any edit can reach.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from actshift.edits import Lane
from actshift.hooks.reading.record import hidden_of


def shared_blocks(lanes: Sequence[Lane], n_blocks: int) -> int:
    """How many of the first blocks no edit of any lane reaches; all of them without edits.

    An edit of a block's output reaches the next block; at any other site it reaches its own.
    """
    reached = [
        placed.layer + (placed.site == "resid_post") for lane in lanes for placed in lane.edits
    ]
    return min([n_blocks, *reached])


@dataclass
class Fork:
    """Where the batch grows from groups to rows.

    Attributes:
        depth: Blocks that run on groups.
        group: Group of every row; None where rows and groups are the same.
    """

    depth: int
    group: Int[Tensor, " row"] | None = None
    _grown: dict[int, Tensor] = field(default_factory=dict)

    def set(self, group: Int[Tensor, " row"], groups: int) -> None:
        """Say how the next forward pass grows."""
        same = len(group) == groups and torch.equal(group, torch.arange(groups).to(group.device))
        self.group = None if same else group
        self._groups = groups
        self._grown = {}

    def grow(self, value: Tensor) -> Tensor:
        """One entry a row, from one a group."""
        return value if self.group is None else value.index_select(0, self.group)

    def grow_argument(self, value: Any) -> Any:
        """The same for what a block is called with; whatever has no group axis stays as it is."""
        if isinstance(value, tuple):
            return tuple(self.grow_argument(part) for part in value)
        if not isinstance(value, Tensor) or value.ndim < 2 or value.shape[0] != self._groups:
            return value
        # All blocks are called with the same masks and positions.
        if id(value) not in self._grown:
            self._grown[id(value)] = self.grow(value)
        return self._grown[id(value)]


@contextmanager
def forked(blocks: Sequence[nn.Module], fork: Fork) -> Iterator[None]:
    """Grow the batch inside every forward pass of the block; must be entered before the edits.

    The caller changes `fork` between passes.
    """
    with ExitStack() as stack:
        if fork.depth > 0:
            stack.enter_context(blocks[fork.depth - 1].register_forward_hook(_grow_output(fork)))
        for number, block in enumerate(blocks[fork.depth :]):
            hook = _grow_inputs(fork, hidden=fork.depth == 0 and number == 0)
            stack.enter_context(block.register_forward_pre_hook(hook, with_kwargs=True))
        yield


def _grow_output(fork: Fork) -> Callable[..., Any]:
    def hook(_module: nn.Module, _args: Any, output: Tensor | tuple[Any, ...]) -> Any:
        if fork.group is None:
            return None
        grown = fork.grow(hidden_of(output))
        return (grown, *output[1:]) if isinstance(output, tuple) else grown

    return hook


def _grow_inputs(fork: Fork, *, hidden: bool) -> Callable[..., Any]:
    """Grow all that a block is called with; hidden states only where they did not grow yet."""

    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if fork.group is None:
            return None
        first = args[:1] if not hidden else tuple(map(fork.grow, args[:1]))
        rest = tuple(map(fork.grow_argument, args[1:]))
        named = {
            name: value if name == "hidden_states" and not hidden else fork.grow_argument(value)
            for name, value in kwargs.items()
        }
        return (*first, *rest), named

    return hook
