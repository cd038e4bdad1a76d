"""What attention is given as its cache: known keys and values of a prefix, and what a pass adds."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

#: Keys and values of one layer, each `[..., head, token, d_head]`.
KeyValues = tuple[Tensor, Tensor]


class AddedError(Exception):
    """The pass has added its keys and values at the layer where it was to stop."""


class KvCache:
    """Keys and values of a prefix, laid before those of a pass.

    Full prefixes are handed out at sliding-window layers too; the model's own mask for those
    layers hides what lies outside the window.
    """

    def __init__(
        self,
        prefix: int = 0,
        look_up: Callable[[int], Sequence[KeyValues]] | None = None,
        *,
        keep: bool = False,
    ) -> None:
        """Behind a prefix.

        `prefix` is its number of tokens. `look_up` gives the parts of a layer's prefix, one behind
        the other, for the rows there at that time; axes before `head` make up the rows and may be
        expanded: each number is copied once, to its place. `keep` keeps the segment's own keys and
        values in `kept`.
        """
        self.prefix = prefix
        self.look_up = look_up
        self.keep = keep
        self.kept: dict[int, KeyValues] = {}
        self._stop: int | None = None

    def update(
        self, keys: Tensor, values: Tensor, layer: int, *_args: Any, **_kwargs: Any
    ) -> KeyValues:
        """Return prefix and segment of a layer, one behind the other.

        Raises:
            AddedError: Inside `stopping`, at its layer.
        """
        if self.keep:
            self.kept[layer] = (keys, values)
        if layer == self._stop:
            raise AddedError
        if self.look_up is None or self.prefix == 0:
            return keys, values
        parts = self.look_up(layer)
        return _behind([part[0] for part in parts], keys), _behind([p[1] for p in parts], values)

    @contextmanager
    def stopping(self, layer: int) -> Iterator[None]:
        """Let passes go no further than a layer's keys and values."""
        self._stop = layer
        try:
            yield
        finally:
            self._stop = None

    def get_seq_length(self, _layer: int = 0) -> int:
        """Tokens before the segment."""
        return self.prefix

    def get_query_offset(self, _layer: int = 0) -> int:
        """Place of the segment's first token."""
        return self.prefix

    def get_mask_sizes(self, query_length: int, _layer: int = 0) -> tuple[int, int]:
        """Number of keys that a query sees at most, and the place of the first."""
        return self.prefix + query_length, 0


def for_both_sides(pair: KeyValues) -> KeyValues:
    """Keys and values of prompts, seen by two completions each."""
    keys, values = (part[:, None].expand(-1, 2, -1, -1, -1) for part in pair)
    return keys, values


def _behind(parts: Sequence[Tensor], added: Tensor) -> Tensor:
    """The parts and what a pass adds, along the axis of tokens."""
    rows, heads, tokens, width = added.shape
    before = sum(part.shape[-2] for part in parts)
    out = added.new_empty(rows, heads, before + tokens, width)
    first = 0
    for part in (*parts, added):
        last = first + part.shape[-2]
        out.unflatten(0, part.shape[:-3])[..., first:last, :] = part
        first = last
    return out
