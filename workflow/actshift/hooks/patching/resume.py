"""A model's own forward pass, entered in the middle: from given states at some block on.

The real forward runs with hooks, since only it knows the masks of each layer, the rotations of
each position, scaled embeddings and soft caps. Blocks before the first entry do nothing; at its
entry a group of rows joins the batch, so one pass carries states of many layers (a staircase).
Masks and positions are made by the model for the rows of its input and repeated for every row
that stands in for one of them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from actshift.hooks.reading.kv_cache import AddedError, KeyValues, KvCache
from actshift.hooks.reading.model_parts import CausalModel
from actshift.hooks.reading.record import hidden_of


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

    def end(self) -> "Segment":
        """The last token, behind all others."""
        tokens = self.ids.shape[1]
        return Segment(
            self.ids[:, -1:], self.positions[:, -1:], self.mask, self.prefix + tokens - 1
        )


@dataclass(frozen=True)
class Join:
    """Rows that enter the batch as the input of a block.

    Attributes:
        states: `[row, token, d_model]`.
        rows: The row of the segment each one stands in for.
    """

    states: Float[Tensor, "row token d_model"]
    rows: Int[Tensor, " row"]


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
    causal: CausalModel, segment: Segment, joins: Mapping[int, Join], kv_cache: KvCache
) -> Float[Tensor, "row token d_model"]:
    """Push states through the blocks above them.

    `joins` are rows that enter as the input of a block, by block; `n_layers` is the output of the
    last one. The segment's ids are never looked at. Returns the output of the last block, before
    the final norm, of all rows in the order of blocks they joined at.
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
            _forward(causal, segment, kv_cache)
        rows = out[0]
        return torch.cat([rows, joins[top].states]) if top in joins else rows
    return joins[top].states


def run_last_token(
    causal: CausalModel, segment: Segment, joins: Mapping[int, Join], kv_cache: KvCache
) -> Float[Tensor, "row d_model"]:
    """The same, at the last token only.

    The last block makes keys and values of all tokens and goes on with the last one: nobody reads
    what else it would put out. `kv_cache` keeps keys and values of the segment.
    """
    top = causal.n_layers - 1
    through = {block: join for block, join in joins.items() if block <= top}
    ends = [join.states[:, -1] for block, join in joins.items() if block > top]
    if through:
        with kv_cache.stopping(top), _until_added(causal.blocks[top]):
            states = run_from(causal, segment, through, kv_cache)
        rows = torch.cat([through[block].rows for block in sorted(through)])
        end = segment.end()

        def look_up(layer: int) -> list[KeyValues]:
            parts = kv_cache.look_up(layer) if kv_cache.look_up and kv_cache.prefix else []
            keys, values = kv_cache.kept[layer]
            return [*parts, (keys[:, :, :-1], values[:, :, :-1])]

        last = {top: Join(states[:, -1:], rows)}
        ends.insert(0, run_from(causal, end, last, KvCache(end.prefix, look_up))[:, 0])
    return torch.cat(ends)


def run_whole(
    causal: CausalModel, segment: Segment, kv_cache: KvCache
) -> list[Float[Tensor, "row token d_model"]]:
    """The plain pass over a segment: the output of every block, none edited."""
    out: list[Tensor] = []
    with torch.inference_mode(), _seen(causal.blocks, out):
        _forward(causal, segment, kv_cache)
    return out


def _forward(causal: CausalModel, segment: Segment, kv_cache: KvCache) -> None:
    causal.trunk(
        input_ids=segment.ids,
        attention_mask=None if segment.mask is None else segment.mask.long(),
        position_ids=segment.positions,
        past_key_values=kv_cache,
        use_cache=True,
    )


@contextmanager
def _entered(causal: CausalModel, segment: Segment, joins: Mapping[int, Join]) -> Iterator[None]:
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

    def pass_on(hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        return hidden_states

    with _forward_as(block, pass_on):
        yield


@contextmanager
def _forward_as(block: nn.Module, forward: Callable[..., Tensor]) -> Iterator[None]:
    replaced = vars(block).get("forward")
    block.forward = forward
    try:
        yield
    finally:
        if replaced is None:
            del block.forward
        else:
            block.forward = replaced


@contextmanager
def _until_added(block: nn.Module) -> Iterator[None]:
    """Make a block return its input once its keys and values are there."""
    whole = block.forward

    def keys_only(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        with suppress(AddedError):
            whole(hidden_states, *args, **kwargs)
        return hidden_states

    with _forward_as(block, keys_only):
        yield


@contextmanager
def _seen(modules: Sequence[nn.Module], out: list[Tensor]) -> Iterator[None]:
    """Append what each module puts out."""

    def keep(_module: nn.Module, _args: Any, output: Tensor | tuple[Any, ...]) -> None:
        out.append(hidden_of(output))

    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(module.register_forward_hook(keep))
        yield
