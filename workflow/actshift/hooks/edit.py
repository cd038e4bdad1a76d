"""Applying lanes inside a forward pass: one hook a site, each lane on its own rows.

The rows of a batch are grouped by lane. Edits work out of place and keep the dtype of the stream;
the arithmetic itself is done in float32 or wider, so that bf16 projections do not leave a rest.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from actshift.hooks.record import hidden_of
from actshift.lanes import Ablate, Edit, EditPositions, EditSite, Lane, Patch, Placed, Steer

#: Modules by site, one a block: a pre-hook for `resid_pre`, hooks on the output for the rest.
Sites = Mapping[EditSite, Sequence[nn.Module]]
Place = tuple[EditSite, int]


@dataclass
class EditState:
    """What the hooks must know about the forward pass they run in.

    Attributes:
        rows: First and past-the-last row of each lane in the batch, by lane index.
        prefill: Whether the pass reads the prompts (left-padded), or one generated token a row.
        donor: The donor's stream at each place that a patch reads, of the same rows and tokens.
    """

    rows: list[tuple[int, int]]
    prefill: bool = True
    donor: dict[Place, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class _TorchEdit:
    """An edit whose arrays lie on the model's device."""

    edit: Edit
    positions: EditPositions
    lane: int
    basis: Tensor | None
    vector: Tensor | None

    def apply(self, hidden: Tensor, donor: Tensor | None) -> Tensor:
        """The edit of the reference in tests, on `[row, token, d_model]`."""
        wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        if isinstance(self.edit, Steer):
            assert self.vector is not None
            return (wide + self.edit.coeff * self.vector).to(hidden.dtype)
        if isinstance(self.edit, Ablate):
            away = wide if self.vector is None else wide - self.vector
            return (wide - _onto(away, self.basis)).to(hidden.dtype)
        assert donor is not None
        towards = _onto(donor.to(wide.dtype) - wide, self.basis)
        return (wide + self.edit.alpha * towards).to(hidden.dtype)


def _onto(rows: Tensor, basis: Tensor | None) -> Tensor:
    """Projection on the span of the basis; on everything without one."""
    return rows if basis is None else rows @ basis @ basis.T


@contextmanager
def edited(
    sites: Sites, lanes: Sequence[Lane], state: EditState, *, dtype: torch.dtype
) -> Iterator[None]:
    """Edit every forward pass inside the block; the hooks are gone afterwards, whatever happens.

    Args:
        sites: Modules of the model by site, in block order.
        lanes: The lanes of the batch, in the order of `state.rows`.
        state: Changed by the caller between passes: rows as they finish, prefill, donor.
        dtype: Dtype of the model's forward pass.

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
            edits = [_on_device(index, part, device, wide) for index, part in placed]
            change = _changer(edits, state, (site, layer))
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


def _on_device(lane: int, placed: Placed, device: torch.device, dtype: torch.dtype) -> _TorchEdit:
    edit = placed.edit
    basis = None if isinstance(edit, Steer) else edit.basis
    vector = edit.vector if isinstance(edit, Steer) else None
    if isinstance(edit, Ablate):
        vector = edit.centre
    basis, vector = (
        None if array is None else torch.as_tensor(array, device=device, dtype=dtype)
        for array in (basis, vector)
    )
    return _TorchEdit(edit, placed.positions, lane, basis, vector)


def _changer(
    edits: Sequence[_TorchEdit], state: EditState, place: Place
) -> Callable[[Tensor], Tensor]:
    def change(
        hidden: Float[Tensor, "row token d_model"],
    ) -> Float[Tensor, "row token d_model"]:
        out: Tensor | None = None
        for edit in edits:
            start, stop = state.rows[edit.lane]
            if start == stop or not (state.prefill or edit.positions == "all"):
                continue
            if out is None:
                out = hidden.clone()
            # Left padding: the last column holds the last token of every prompt.
            tokens = slice(-1, None) if edit.positions == "last_prompt" else slice(None)
            donor = state.donor.get(place)
            part = None if donor is None else donor[start:stop, tokens]
            out[start:stop, tokens] = edit.apply(out[start:stop, tokens], part)
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
