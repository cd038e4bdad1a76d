"""The edits of many lanes at one place, stacked: one batched product instead of one a lane.

The arithmetic is done in float32 or wider, so that bf16 projections do not leave a rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from actshift.edits import Ablate, Edit, EditPositions, Patch, Placed, Steer

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
