"""What the rank audit reads: prompts by part, aligned streams, and the matrices of one layer."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from actshift.engine.stores import CONDITIONS, PairStores, PromptRows, StreamReader, fit_and_heldout
from actshift.errors import UserError
from actshift.maths.directions import (
    aligned_shift,
    did_shift,
    diff_in_means,
    naive_shift,
    template_shift,
)
from actshift.maths.resampling import bootstrap_counts, half_samples, nested_orders
from actshift.maths.spectrum import ResampledRanks, Spectrum, spectrum
from actshift.prompts.records import Prompt
from actshift.random_streams import AUDIT_RESAMPLES
from actshift.studies.rank_audit.study import RankAudit
from actshift.vocab import MATRICES, ROLES, TEMPLATES, Matrix, Role, Template


@dataclass(frozen=True, slots=True)
class ConceptPairs:
    """The two sides of one concept, pair by pair, in file order."""

    concept: str
    prompt_set: str
    sides: tuple[str, str]
    first: tuple[str, ...]
    second: tuple[str, ...]
    clusters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which prompts play which part; nothing but `heldout` ever holds a held-out prompt."""

    fit: dict[str, PromptRows]
    heldout: dict[str, PromptRows]
    concepts: tuple[ConceptPairs, ...]


def select(
    prompts: Mapping[str, Sequence[Prompt]], sets: Mapping[str, str], *, concepts: str
) -> Selection:
    """Sort the prompts, by name of their set, into their parts.

    `sets` has the name of the prompt set of each condition (both may name one set), `concepts` that
    of the paired concepts, which may be missing. A set or condition that is missing or too small, a
    cluster that is both fitted and held out, and a concept pair that is no pair are UserErrors.
    """
    fit, heldout = fit_and_heldout(prompts, sets, fit=("fit",), heldout=("heldout",))
    return Selection(fit, heldout, _concepts(prompts.get(concepts, ()), concepts))


def required_streams(selection: Selection, *, control: str) -> list[tuple[str, Template]]:
    """The (prompt set, template) streams that both models of a pair must have, sorted.

    The concept `control` is read in the chat template too.
    """
    streams: set[tuple[str, Template]] = set()
    for name in CONDITIONS:
        for template in TEMPLATES:
            streams.add((selection.fit[name].prompt_set, template))
    for concept in selection.concepts:
        streams.add((concept.prompt_set, "raw"))
        if concept.concept == control:
            streams.add((concept.prompt_set, "chat"))
    return sorted(streams)


class AlignedStreams:
    """The streams of one pair, opened once, with equal prompts and layers on both sides."""

    def __init__(self, stores: PairStores, streams: Sequence[tuple[str, Template]]) -> None:
        """Open every stream of both roles and check that depths and prompts are the same."""
        self._readers: dict[tuple[Role, str, Template], StreamReader] = {
            (role, prompt_set, template): stores.open(role, prompt_set, template)
            for prompt_set, template in streams
            for role in ROLES
        }
        self.layers = self._common_layers()
        first: dict[str, list[str]] = {}
        for (role, prompt_set, template), reader in self._readers.items():
            ids = [str(prompt_id) for prompt_id in reader.prompt_ids]
            if first.setdefault(prompt_set, ids) != ids:
                raise UserError(
                    f"rank_audit: stream {role} {prompt_set}.{template} holds other prompts than "
                    f"the other streams of '{prompt_set}'; extract them from one prompt file"
                )

    def has_window(self, positions: Sequence[int], prompt_sets: Collection[str]) -> bool:
        """Whether every stream of these prompt sets stores all these positions."""
        return all(
            set(positions) <= {int(position) for position in reader.positions}
            for (_, prompt_set, _), reader in self._readers.items()
            if prompt_set in prompt_sets
        )

    def read(
        self, layer: int, role: Role, template: Template, prompt_set: str, ids: Sequence[str]
    ) -> Float[np.ndarray, "prompt d_model"]:
        """Last prompt token of one layer, in the order of `ids`."""
        return self._readers[role, prompt_set, template].read(layer, -1, list(ids))

    def read_mean(
        self,
        layer: int,
        role: Role,
        template: Template,
        rows: PromptRows,
        positions: Sequence[int],
    ) -> Float[np.ndarray, "prompt d_model"]:
        """Mean over the positions a prompt has; absent positions count neither way."""
        reader = self._readers[role, rows.prompt_set, template]
        window, present = reader.read_window(layer, list(positions), list(rows.ids))
        total = np.where(present[..., None], window, 0.0).sum(axis=0, dtype=np.float64)
        return total / present.sum(axis=0)[:, None]

    def _common_layers(self) -> list[int]:
        depths = {key: [int(x) for x in r.layers] for key, r in self._readers.items()}
        (reference_key, reference), *rest = depths.items()
        for key, layers in rest:
            if layers != reference:
                raise UserError(
                    f"rank_audit: {' '.join(key)} has {len(layers)} layers, "
                    f"{' '.join(reference_key)} has {len(reference)}; "
                    "base and tuned must have the same depth"
                )
        return reference


def _concepts(rows: Sequence[Prompt], prompt_set: str) -> tuple[ConceptPairs, ...]:
    grouped: dict[str, dict[str, list[Prompt]]] = {}
    for row in rows:
        if row.pair is not None and row.split == "fit":
            grouped.setdefault(row.category, {}).setdefault(row.pair, []).append(row)
    return tuple(
        _concept(prompt_set, name, pairs) for name, pairs in grouped.items() if len(pairs) > 1
    )


def _concept(prompt_set: str, concept: str, pairs: Mapping[str, Sequence[Prompt]]) -> ConceptPairs:
    lead = next(iter(pairs.values()))[0].condition
    ordered: list[tuple[Prompt, Prompt]] = []
    for pair, members in pairs.items():
        ranked = sorted(members, key=lambda row: row.condition != lead)
        if len(ranked) != 2 or ranked[0].condition != lead or ranked[1].condition == lead:
            raise UserError(
                f"rank_audit: concept pair '{pair}' of '{prompt_set}' must have one '{lead}' row "
                "and one row of the other side, both in one split"
            )
        ordered.append((ranked[0], ranked[1]))
    return ConceptPairs(
        concept=concept,
        prompt_set=prompt_set,
        sides=(lead, ordered[0][1].condition),
        first=tuple(a.id for a, _ in ordered),
        second=tuple(b.id for _, b in ordered),
        clusters=tuple(a.cluster for a, _ in ordered),
    )


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

    Matrices are by (matrix, inputs); `heldout` is empty without held-out prompts. Contrasts are the
    harmful minus the harmless mean in the chat template: the tuned model's is the refusal
    direction, raw.
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
    fitted: dict[tuple[Matrix, str], FittedMatrix] = {
        (matrix, inputs): FittedMatrix(
            shift=shift,
            prompts=selection.fit[inputs],
            plain=spectrum(shift.rows, k=settings.heldout_k),
            centered=spectrum(shift.rows, k=1, centered=True),
            resampled=ResampledRanks(shift.rows),
            draws=draws[inputs],
        )
        for (matrix, inputs), shift in shift_matrices(fit, control).items()
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

    `streams` are activations by condition, `control` is M_template of the harmless fit prompts.
    Gives seven matrices by (matrix, inputs), float64.
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
