"""Applying lanes inside a forward pass: one hook a site, each lane on its own rows.

The rows of a batch are grouped by lane. Edits work out of place and keep the dtype of the stream;
the arithmetic is done in float32 or wider, so that bf16 projections do not leave a rest. The edits
of many lanes at one place are stacked: one batched product instead of one a lane.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from actshift.edits import Ablate, Edit, EditPositions, EditSite, Lane, Patch, Placed, Steer
from actshift.hooks.reading.model_parts import Sites
from actshift.hooks.reading.record import hidden_of

Place = tuple[EditSite, int]
#: First and past-the-last row of each lane of the batch.
Bounds = list[tuple[int, int]]
_Hidden = Float[Tensor, "lane cell d_model"]


@dataclass(frozen=True)
class StackRows:
    """The rows of a stack's lanes, as a rectangle `[lane, row]`.

    Attributes:
        index: Row of the batch; short lanes are filled up with row 0.
        real: False where it is filled up; None where it never is.
    """

    index: Int[Tensor, "lane row"]
    real: Bool[Tensor, "lane row"] | None

    def take(
        self, batch: Float[Tensor, "entry token d_model"], group: Int[Tensor, " row"] | None = None
    ) -> _Hidden:
        """The rows of each lane with all their tokens, one after the other.

        `batch` has one entry a row, or one a group, with the group of every row.
        """
        index = self.index.flatten()
        picked = batch.index_select(0, index if group is None else group[index])
        return picked.view(len(self.index), -1, batch.shape[-1])

    def put(self, batch: Float[Tensor, "row token d_model"], edited: _Hidden) -> None:
        """Write what `take` took back to where it came from."""
        rows = edited.view(-1, *batch.shape[1:])
        if self.real is None:
            batch[self.index.flatten()] = rows
        else:
            real = self.real.flatten()
            batch[self.index.flatten()[real]] = rows[real]


@dataclass
class EditStack:
    """Edits of one kind and shape at one place, of lanes that each have one of them.

    Attributes:
        kind: Type of the edits.
        positions: At which tokens they act.
        lanes: Their lanes, by index in the batch.
        basis: Orthonormal columns, `[lane, d_model, k]`; None for the whole space.
        vector: Centre of an ablation or vector of a steering, `[lane, d_model]`.
        weight: Coefficient of a steering or alpha of a patch, `[lane]`.
    """

    kind: type[Edit]
    positions: EditPositions
    lanes: tuple[int, ...]
    basis: Float[Tensor, "lane d_model k"] | None
    vector: Float[Tensor, "lane d_model"] | None
    weight: Float[Tensor, " lane"] | None
    _bounds: Bounds | None = None
    _rows: StackRows | None = None
    _device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def reads_donor(self) -> bool:
        """Whether the edits need the donor's stream."""
        return self.kind is Patch

    def rows(self, bounds: Bounds) -> StackRows | None:
        """Rows of the stack's lanes; None where none is left. Kept until the bounds change."""
        if bounds is not self._bounds:
            self._bounds = bounds
            self._rows = _rectangle([bounds[lane] for lane in self.lanes], self._device)
        return self._rows

    def apply(self, hidden: _Hidden, donor: _Hidden | None) -> _Hidden:
        """The edit of every lane on its own rows, in their dtype."""
        wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        if self.kind is Steer:
            assert self.vector is not None
            assert self.weight is not None
            return (wide + (self.weight[:, None] * self.vector)[:, None]).to(hidden.dtype)
        if self.kind is Ablate:
            assert self.basis is not None
            away = wide if self.vector is None else wide - self.vector[:, None]
            return _add_projection(wide, away, self.basis, -1.0).to(hidden.dtype)
        assert donor is not None
        assert self.weight is not None
        towards = self.weight[:, None, None] * (donor.to(wide.dtype) - wide)
        if self.basis is None:
            return (wide + towards).to(hidden.dtype)
        return _add_projection(wide, towards, self.basis, 1.0).to(hidden.dtype)


def stack_edits(
    placed: Sequence[tuple[int, Placed]], device: torch.device, dtype: torch.dtype
) -> list[EditStack]:
    """Stack what can be applied together; the order of a lane's own edits is kept.

    Edits are (lane, edit) at one place, several of a lane in the order they act. The stacks are to
    be applied one after the other.
    """
    turns: dict[int, int] = {}
    kinds: dict[tuple[object, ...], list[tuple[int, Placed]]] = {}
    for lane, edit in placed:
        turn = turns.get(lane, 0)
        turns[lane] = turn + 1
        kinds.setdefault((turn, *_shape(edit)), []).append((lane, edit))
    # A lane's second edit must come after its first.
    ordered = sorted(kinds.items(), key=lambda item: int(str(item[0][0])))
    return [_stack(members, device, dtype) for _, members in ordered]


def _shape(placed: Placed) -> tuple[object, ...]:
    """What edits must have in common to be stacked."""
    edit = placed.edit
    columns = None if isinstance(edit, Steer) or edit.basis is None else edit.basis.shape[1]
    return type(edit), placed.positions, columns, isinstance(edit, Ablate) and edit.centre is None


def _stack(
    members: Sequence[tuple[int, Placed]], device: torch.device, dtype: torch.dtype
) -> EditStack:
    def tensor(arrays: Sequence[object]) -> Tensor | None:
        if arrays[0] is None:
            return None
        parts = [torch.as_tensor(array, device=device, dtype=dtype) for array in arrays]
        return torch.stack(parts)

    edits = [placed.edit for _, placed in members]
    basis = tensor([None if isinstance(edit, Steer) else edit.basis for edit in edits])
    vector = tensor([_vector(edit) for edit in edits])
    weight = tensor([_weight(edit) for edit in edits])
    lanes = tuple(lane for lane, _ in members)
    first = members[0][1]
    return EditStack(
        type(first.edit), first.positions, lanes, basis, vector, weight, _device=device
    )


def _vector(edit: Edit) -> object:
    if isinstance(edit, Steer):
        return edit.vector
    return edit.centre if isinstance(edit, Ablate) else None


def _weight(edit: Edit) -> float | None:
    if isinstance(edit, Steer):
        return edit.coeff
    return edit.alpha if isinstance(edit, Patch) else None


def _rectangle(bounds: Bounds, device: torch.device) -> StackRows | None:
    """Rows of some lanes; those with fewer rows than the longest are filled up with row 0."""
    starts, stops = (
        torch.tensor(ends, device=device)[:, None] for ends in zip(*bounds, strict=True)
    )
    longest = int((stops - starts).max())
    if longest == 0:
        return None
    steps = torch.arange(longest, device=device)[None]
    index, real = starts + steps, steps < stops - starts
    return StackRows(index, None) if bool(real.all()) else StackRows(index * real, real)


def _add_projection(
    start: _Hidden, part: _Hidden, basis: Float[Tensor, "lane d_model k"], sign: float
) -> _Hidden:
    """Lane by lane, start + sign * part U U^T."""
    return torch.baddbmm(start, part @ basis, basis.mT, alpha=sign)


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
