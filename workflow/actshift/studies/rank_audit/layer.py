"""Everything the tables need of one layer: shift matrices, spectra, means. One layer at a time."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from actshift.engine.prompt_rows import PromptRows
from actshift.engine.stores import CONDITIONS
from actshift.errors import UserError
from actshift.maths.directions import diff_in_means
from actshift.maths.resampling import bootstrap_counts, half_samples, nested_orders
from actshift.maths.shifts import aligned_shift, did_shift, naive_shift, template_shift
from actshift.maths.spectrum import ResampledRanks, Spectrum, spectrum
from actshift.random_streams import AUDIT_RESAMPLES
from actshift.studies.rank_audit.inputs import AlignedStreams, ConceptPairs, Selection
from actshift.studies.rank_audit.study import RankAudit
from actshift.vocab import MATRICES, ROLES, Matrix, Role, Template

#: Activations of one condition, by (role, template).
Streams = Mapping[tuple[Role, Template], Float[np.ndarray, "prompt d_model"]]
STREAM_KINDS: tuple[tuple[Role, Template], ...] = (
    ("tuned", "chat"),
    ("tuned", "raw"),
    ("base", "chat"),
    ("base", "raw"),
)


@dataclass(frozen=True, slots=True)
class Draws:
    """One set of index draws, shared by all layers and matrices of a condition."""

    counts: Int[np.ndarray, "draw prompt"]
    halves: Bool[np.ndarray, "half prompt"]
    orders: Int[np.ndarray, "order prompt"]


@dataclass(frozen=True, slots=True)
class ShiftMatrix:
    """One shift matrix and the energy of the activations it is subtracted from."""

    matrix: Matrix
    inputs: str
    rows: Float[np.ndarray, "prompt d_model"]
    reference_energy: Float[np.ndarray, " prompt"]


@dataclass(frozen=True, slots=True)
class FittedMatrix:
    """A shift matrix of the fit prompts with everything that is computed once from it."""

    shift: ShiftMatrix
    prompts: PromptRows
    plain: Spectrum
    centered: Spectrum
    resampled: ResampledRanks
    draws: Draws

    @property
    def key(self) -> dict[str, str]:
        """The identifying columns every table shares."""
        return {"matrix": self.shift.matrix, "inputs": self.shift.inputs}


@dataclass(frozen=True, slots=True)
class LayerData:
    """One layer of one pair.

    Attributes:
        layer: 0-based decoder block.
        fitted: Matrices of the fit prompts by (matrix, inputs), with spectra and draws.
        heldout: Matrices of the held-out prompts; empty when there are none.
        tuned_contrast: Tuned model, chat: harmful minus harmless mean (refusal direction, raw).
        base_contrast: The same contrast of the base model.
    """

    layer: int
    fitted: dict[tuple[Matrix, str], FittedMatrix]
    heldout: dict[tuple[Matrix, str], ShiftMatrix]
    tuned_contrast: Float[np.ndarray, " d_model"]
    base_contrast: Float[np.ndarray, " d_model"]


def make_draws(rows: PromptRows, settings: RankAudit, *, seed: int, stream: int) -> Draws:
    """Draw for one condition; `stream` keeps the conditions' random numbers apart."""
    n = len(rows.ids)
    boot, half, nested = (AUDIT_RESAMPLES.rng(seed, stream, part) for part in range(3))
    return Draws(
        counts=bootstrap_counts(n, draws=settings.bootstrap_draws, rng=boot),
        halves=half_samples(rows.clusters, draws=settings.half_sample_draws, rng=half),
        orders=nested_orders(n, draws=settings.n_sweep_draws, rng=nested),
    )


def load_layer(
    streams: AlignedStreams,
    selection: Selection,
    draws: Mapping[str, Draws],
    *,
    layer: int,
    settings: RankAudit,
) -> LayerData:
    """Read one layer and compute its shift matrices and spectra.

    The control mean of the held-out did matrix is that of the *fit* harmless prompts: it is a
    fitted quantity like the directions.
    """
    fit = {name: _read(streams, selection.fit[name], layer) for name in CONDITIONS}
    control = template_shift(fit["harmless"]["tuned", "chat"], fit["harmless"]["base", "chat"])
    fitted = {
        key: _fit(shift, selection.fit[key[1]], draws[key[1]], settings)
        for key, shift in shift_matrices(fit, control).items()
    }
    heldout: dict[tuple[Matrix, str], ShiftMatrix] = {}
    if all(selection.heldout[name].ids for name in CONDITIONS):
        held = {name: _read(streams, selection.heldout[name], layer) for name in CONDITIONS}
        heldout = shift_matrices(held, control)
    contrasts = [
        diff_in_means(fit["harmful"][role, "chat"], fit["harmless"][role, "chat"])
        for role in ("tuned", "base")
    ]
    return LayerData(layer, fitted, heldout, *contrasts)


def shift_matrices(
    streams: Mapping[str, Streams], control: Float[np.ndarray, "control d_model"]
) -> dict[tuple[Matrix, str], ShiftMatrix]:
    """The four matrices of both conditions; did for harmful only (harmless is its control).

    Args:
        streams: Activations by condition.
        control: M_template of the harmless fit prompts.

    Returns:
        Seven matrices by (matrix, inputs), float64.
    """
    matrices: dict[tuple[Matrix, str], ShiftMatrix] = {}
    for matrix in MATRICES:
        for inputs in CONDITIONS if matrix != "did" else CONDITIONS[:1]:
            acts = streams[inputs]
            rows, reference = _shift(matrix, acts, control)
            energy = np.sum(np.square(reference, dtype=np.float64), axis=1)
            matrices[matrix, inputs] = ShiftMatrix(matrix, inputs, rows, energy)
    return matrices


def concept_rows(
    streams: AlignedStreams, concept: ConceptPairs, *, layer: int, role: Role, template: Template
) -> Float[np.ndarray, "pair d_model"]:
    """Side A minus side B of every pair, within one model, float64."""
    first = streams.read(layer, role, template, concept.prompt_set, concept.first)
    second = streams.read(layer, role, template, concept.prompt_set, concept.second)
    return first.astype(np.float64) - second


def _shift(
    matrix: Matrix, acts: Streams, control: Float[np.ndarray, "control d_model"]
) -> tuple[Float[np.ndarray, "prompt d_model"], Float[np.ndarray, "prompt d_model"]]:
    """The rows of one matrix, and the activations it is measured against."""
    tuned = acts["tuned", "chat"]
    if matrix == "naive":
        return naive_shift(tuned, acts["base", "raw"]), acts["base", "raw"]
    if matrix == "aligned":
        return aligned_shift(tuned, acts["tuned", "raw"]), acts["tuned", "raw"]
    rows = template_shift(tuned, acts["base", "chat"])
    return (did_shift(rows, control) if matrix == "did" else rows), acts["base", "chat"]


def _read(streams: AlignedStreams, rows: PromptRows, layer: int) -> Streams:
    acts: Streams = {
        (role, template): streams.read(layer, role, template, rows.prompt_set, rows.ids)
        for role, template in STREAM_KINDS
    }
    widths = {role: acts[role, "chat"].shape[1] for role in ROLES}
    if widths["tuned"] != widths["base"]:
        raise UserError(
            f"rank_audit: base has width {widths['base']}, tuned {widths['tuned']}; "
            "base and tuned must have the same width"
        )
    return acts


def _fit(
    shift: ShiftMatrix, prompts: PromptRows, draws: Draws, settings: RankAudit
) -> FittedMatrix:
    return FittedMatrix(
        shift=shift,
        prompts=prompts,
        plain=spectrum(shift.rows, k=settings.heldout_k),
        centered=spectrum(shift.rows, k=1, centered=True),
        resampled=ResampledRanks(shift.rows),
        draws=draws,
    )
