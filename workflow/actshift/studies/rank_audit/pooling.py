"""Last token against the mean of the last eight, for every matrix and condition."""

import numpy as np
from jaxtyping import Float

from actshift.engine.prompt_rows import PromptRows
from actshift.engine.stores import CONDITIONS
from actshift.maths.shifts import template_shift
from actshift.maths.spectrum import rank_eps, spectrum
from actshift.studies.rank_audit.inputs import AlignedStreams, Selection
from actshift.studies.rank_audit.layer import (
    STREAM_KINDS,
    LayerData,
    ShiftMatrix,
    Streams,
    shift_matrices,
)
from actshift.studies.rank_audit.settings import RankAuditSettings
from actshift.studies.rank_audit.spectra import relative_norm
from actshift.vocab import Role, Template

Row = dict[str, object]
#: The stored positions whose mean is `last_8_mean`.
LAST_8 = tuple(range(-8, 0))


def pooling_rows(
    streams: AlignedStreams, selection: Selection, data: LayerData, settings: RankAuditSettings
) -> list[Row]:
    """Ranks under both poolings; `last_8_mean` only where both conditions store eight positions.

    A prompt shorter than eight tokens is averaged over the positions it has.
    """
    rows = [_row(item.shift, "last_prompt", data.layer, settings) for item in data.fitted.values()]
    if not streams.has_window(LAST_8, {selection.fit[name].prompt_set for name in CONDITIONS}):
        return rows
    pooled = {name: _read(streams, selection.fit[name], data.layer) for name in CONDITIONS}
    harmless = pooled["harmless"]
    control = template_shift(harmless["tuned", "chat"], harmless["base", "chat"])
    matrices = shift_matrices(pooled, control).values()
    return rows + [_row(shift, "last_8_mean", data.layer, settings) for shift in matrices]


def _read(streams: AlignedStreams, rows: PromptRows, layer: int) -> Streams:
    acts: dict[tuple[Role, Template], Float[np.ndarray, "prompt d_model"]] = {}
    for role, template in STREAM_KINDS:
        acts[role, template] = streams.read_mean(layer, role, template, rows, LAST_8)
    return acts


def _row(shift: ShiftMatrix, pooling: str, layer: int, settings: RankAuditSettings) -> Row:
    values = spectrum(shift.rows).values
    centered = spectrum(shift.rows, centered=True).values
    energy, reference = float(np.sum(np.square(values))), float(shift.reference_energy.sum())
    return {
        "matrix": shift.matrix,
        "inputs": shift.inputs,
        "layer": layer,
        "pooling": pooling,
        "n": len(shift.rows),
        "rank_eps": rank_eps(values, settings.eps),
        "rank_eps_centered": rank_eps(centered, settings.eps),
        "relative_shift_norm": relative_norm(energy, reference),
    }
