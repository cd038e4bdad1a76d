"""Applying lanes inside a forward pass: one hook a site, each lane on its own rows.

The rows of a batch are grouped by lane. Edits work out of place and keep the dtype of the stream;
what they do to it is `hooks.lanes.edit_stack`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from actshift.edits import EditSite, Lane, Patch, Placed
from actshift.hooks.lanes.edit_stack import EditStack, stack_edits
from actshift.hooks.reading.model_parts import Sites
from actshift.hooks.reading.record import hidden_of

Place = tuple[EditSite, int]


@dataclass
class EditState:
    """What the hooks must know about the forward pass they run in.

    Attributes:
        rows: First and past-the-last row of each lane in the batch, by lane index.
        prefill: Whether the pass reads the prompts (left-padded), or one generated token a row.
        donor: The donor's stream at each place that a patch reads, of the same tokens.
        group: Row of the donor that each row reads; None where they are the same.
    """

    rows: list[tuple[int, int]]
    prefill: bool = True
    donor: dict[Place, Tensor] = field(default_factory=dict)
    group: Tensor | None = None


@contextmanager
def edited(
    sites: Sites, lanes: Sequence[Lane], state: EditState, *, dtype: torch.dtype
) -> Iterator[None]:
    """Edit every forward pass inside the block; the hooks are gone afterwards, whatever happens.

    `state` has its rows in the order of the lanes; the caller changes it between passes: rows as
    they finish, prefill, donor.

    Raises:
        ValueError: A lane names a layer the model does not have.
    """
    wide = torch.promote_types(dtype, torch.float32)
    with ExitStack() as stack:
        for (site, layer), placed in _by_place(lanes).items():
            if not 0 <= layer < len(sites[site]):
                lane = lanes[placed[0][0]].name
                raise ValueError(f"lane {lane}: layer {layer} of {len(sites[site])}")
            device = next(sites[site][layer].parameters()).device
            change = _changer(stack_edits(placed, device, wide), state, (site, layer))
            stack.enter_context(_attach(sites, (site, layer), change))
        yield


def donor_places(lanes: Sequence[Lane]) -> set[Place]:
    """Where the lanes need the donor's stream."""
    return {
        (placed.site, placed.layer)
        for lane in lanes
        for placed in lane.edits
        if isinstance(placed.edit, Patch)
    }


@contextmanager
def recorded(sites: Sites, places: set[Place], into: dict[Place, Tensor]) -> Iterator[None]:
    """Keep the donor's stream at the given places, of the latest forward pass."""
    with ExitStack() as stack:
        for place in places:

            def keep(hidden: Tensor, place: Place = place) -> Tensor:
                into[place] = hidden
                return hidden

            stack.enter_context(_attach(sites, place, keep))
        yield


def _attach(sites: Sites, place: Place, change: Callable[[Tensor], Tensor]) -> RemovableHandle:
    """Let a function see, and replace, the stream at a place."""
    site, layer = place
    module = sites[site][layer]
    if site == "resid_pre":
        return module.register_forward_pre_hook(_before(change), with_kwargs=True)
    return module.register_forward_hook(_after(change))


def _by_place(lanes: Sequence[Lane]) -> dict[Place, list[tuple[int, Placed]]]:
    """The edits of all lanes by place; several at one place act in the order of the lane."""
    places: dict[Place, list[tuple[int, Placed]]] = {}
    for index, lane in enumerate(lanes):
        for placed in lane.edits:
            places.setdefault((placed.site, placed.layer), []).append((index, placed))
    return places


def _changer(
    stacks: Sequence[EditStack], state: EditState, place: Place
) -> Callable[[Tensor], Tensor]:
    def change(
        hidden: Float[Tensor, "row token d_model"],
    ) -> Float[Tensor, "row token d_model"]:
        out: Tensor | None = None
        for stack in stacks:
            rows = stack.rows(state.rows)
            if rows is None or not (state.prefill or stack.positions == "all"):
                continue
            if out is None:
                out = hidden.clone()
            # Left padding: the last column holds the last token of every prompt.
            tokens = slice(-1, None) if stack.positions == "last_prompt" else slice(None)
            donor = state.donor.get(place) if stack.reads_donor else None
            rows.put(
                out[:, tokens],
                stack.apply(
                    rows.take(out[:, tokens]),
                    None if donor is None else rows.take(donor[:, tokens], state.group),
                ),
            )
        return hidden if out is None else out

    return change


def _before(change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    return hook


def _after(change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    def hook(_module: nn.Module, _args: Any, output: Tensor | tuple[Any, ...]) -> Any:
        changed = change(hidden_of(output))
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    return hook
