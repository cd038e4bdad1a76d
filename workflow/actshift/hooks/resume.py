"""A model's own forward pass, entered in the middle: from given states at some block on.

The real forward runs with hooks, since only it knows the masks of each layer, the rotations of
each position, scaled embeddings and soft caps. Blocks before the first entry do nothing; at its
entry a group of rows joins the batch, so one pass carries states of many layers (a staircase).
Masks and positions are made by the model for the rows of its input and repeated for every row
that stands in for one of them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from actshift.hooks.causal import Causal
from actshift.hooks.record import hidden_of

#: Keys and values of one layer, each `[row, head, token, d_head]`.
KeyValues = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Segment:
    """The tokens of a pass, behind a prefix whose keys and values are known.

    Attributes:
        ids: `[row, token]`; one row where masks and positions are the same for all.
        positions: Position of each token, prefix counted, `[row, token]`.
        mask: Which tokens of prefix and segment are real, `[row, prefix + token]`; None for all.
        prefix: Number of tokens of the prefix.
    """

    ids: Int[Tensor, "row token"]
    positions: Int[Tensor, "row token"]
    mask: Bool[Tensor, "row seen"] | None
    prefix: int = 0


@dataclass(frozen=True)
class Join:
    """Rows that enter the batch as the input of a block.

    Attributes:
        states: `[row, token, d_model]`.
        rows: The row of the segment each one stands in for.
    """

    states: Float[Tensor, "row token d_model"]
    rows: Int[Tensor, " row"]


class Past:
    """What attention sees as its cache: prefix keys and values, and what the pass adds to them.

    Full prefixes are handed out at sliding-window layers too; the model's own mask for those
    layers hides what lies outside the window.
    """

    def __init__(
        self,
        prefix: int = 0,
        look_up: Callable[[int], KeyValues] | None = None,
        *,
        keep: bool = False,
    ) -> None:
        """Behind a prefix.

        Args:
            prefix: Number of prefix tokens.
            look_up: Keys and values of the prefix at a layer, for the rows there at that time;
                None without a prefix.
            keep: Whether to keep the segment's own keys and values in `kept`.
        """
        self.prefix = prefix
        self.look_up = look_up
        self.keep = keep
        self.kept: dict[int, KeyValues] = {}

    def update(
        self, keys: Tensor, values: Tensor, layer: int, *_args: Any, **_kwargs: Any
    ) -> KeyValues:
        """Return prefix and segment of a layer, one behind the other."""
        if self.keep:
            self.kept[layer] = (keys, values)
        if self.look_up is None or self.prefix == 0:
            return keys, values
        before = self.look_up(layer)
        return torch.cat([before[0], keys], dim=2), torch.cat([before[1], values], dim=2)

    def get_seq_length(self, _layer: int = 0) -> int:
        """Tokens before the segment."""
        return self.prefix

    def get_query_offset(self, _layer: int = 0) -> int:
        """Place of the segment's first token."""
        return self.prefix

    def get_mask_sizes(self, query_length: int, _layer: int = 0) -> tuple[int, int]:
        """Number of keys that a query sees at most, and the place of the first."""
        return self.prefix + query_length, 0


@dataclass
class _Rows:
    """The rows in the batch so far, and the arguments of blocks repeated for them."""

    segment_rows: int
    rows: Tensor
    repeated: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def joined(self, rows: Tensor) -> None:
        """More rows came in."""
        self.rows = torch.cat([self.rows, rows])
        self.repeated.clear()

    def repeat(self, value: Any) -> Any:
        """A mask or a table of positions, one row for every row of the batch."""
        if isinstance(value, tuple):
            return tuple(self.repeat(part) for part in value)
        if not isinstance(value, Tensor) or self.segment_rows == 1:
            return value
        if value.ndim < 2 or value.shape[0] != self.segment_rows:
            return value
        if id(value) not in self.repeated:
            # The original is kept beside its copy, so that its id is not given to another tensor.
            self.repeated[id(value)] = (value, value[self.rows])
        return self.repeated[id(value)][1]


def run_from(
    causal: Causal, segment: Segment, joins: Mapping[int, Join], past: Past
) -> Float[Tensor, "row token d_model"]:
    """Push states through the blocks above them.

    Args:
        causal: The model.
        segment: Tokens that the rows stand for; their ids are never looked at.
        joins: Rows that enter as the input of a block, by block; `n_layers` is the output of the
            last one. Rows are numbered in the order of blocks.
        past: Prefix keys and values.

    Returns:
        Output of the last block, before the final norm, of all rows in the order they joined.
    """
    top = causal.n_layers
    entries = sorted(joins)
    if entries[0] < top:
        out: list[Tensor] = []
        with (
            torch.inference_mode(),
            _entered(causal, segment, joins),
            _seen(causal.blocks[-1:], out),
        ):
            _forward(causal, segment, past)
        rows = out[0]
        return torch.cat([rows, joins[top].states]) if top in joins else rows
    return joins[top].states


def run_whole(
    causal: Causal, segment: Segment, past: Past
) -> list[Float[Tensor, "row token d_model"]]:
    """The plain pass over a segment: the output of every block, none edited."""
    out: list[Tensor] = []
    with torch.inference_mode(), _seen(causal.blocks, out):
        _forward(causal, segment, past)
    return out


def _forward(causal: Causal, segment: Segment, past: Past) -> None:
    causal.trunk(
        input_ids=segment.ids,
        attention_mask=None if segment.mask is None else segment.mask.long(),
        position_ids=segment.positions,
        past_key_values=past,
        use_cache=True,
    )


@contextmanager
def _entered(causal: Causal, segment: Segment, joins: Mapping[int, Join]) -> Iterator[None]:
    """Let rows join at their blocks; blocks before the first entry pass on what they get."""
    first = min(joins)
    state = _Rows(segment.ids.shape[0], joins[first].rows[:0])

    def before(index: int) -> Callable[..., Any]:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            kwargs = dict(kwargs)
            hidden, *rest = args or (kwargs.pop("hidden_states"),)
            if index in joins:
                new = joins[index]
                hidden = new.states if index == first else torch.cat([hidden, new.states])
                state.joined(new.rows)
            again = {name: state.repeat(value) for name, value in kwargs.items()}
            return (hidden, *map(state.repeat, rest)), again

        return hook

    with ExitStack() as stack:
        for block in causal.blocks[:first]:
            stack.enter_context(idle(block))
        for index, block in enumerate(causal.blocks[first:], start=first):
            handle = block.register_forward_pre_hook(before(index), with_kwargs=True)
            stack.enter_context(handle)
        yield


@contextmanager
def idle(block: nn.Module) -> Iterator[None]:
    """Make a block return its input."""
    own = vars(block).get("forward")

    def pass_on(hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        return hidden_states

    block.forward = pass_on
    try:
        yield
    finally:
        if own is None:
            del block.forward
        else:
            block.forward = own


@contextmanager
def _seen(modules: Sequence[nn.Module], out: list[Tensor]) -> Iterator[None]:
    """Append what each module puts out."""

    def keep(_module: nn.Module, _args: Any, output: Tensor | tuple[Any, ...]) -> None:
        out.append(hidden_of(output))

    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(module.register_forward_hook(keep))
        yield
