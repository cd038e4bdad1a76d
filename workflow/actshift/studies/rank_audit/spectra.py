"""Tables from the spectra of one layer: ranks, variance, eps, held-out energy, pooling."""

import numpy as np
import pandas as pd

from actshift.engine.prompt_rows import PromptRows
from actshift.engine.stores import CONDITIONS
from actshift.maths.bands import band_layers
from actshift.maths.heldout import heldout_shares
from actshift.maths.shifts import template_shift
from actshift.maths.spectrum import (
    Spectrum,
    cumulative_shares,
    entropy_rank,
    rank_eps,
    spectrum,
    stable_rank,
)
from actshift.random_streams import HELDOUT_SHARES
from actshift.studies.rank_audit.inputs import AlignedStreams, Selection
from actshift.studies.rank_audit.layer import (
    STREAM_KINDS,
    FittedMatrix,
    LayerData,
    ShiftMatrix,
    Streams,
    shift_matrices,
)
from actshift.studies.rank_audit.study import RankAudit

Row = dict[str, object]
#: The stored positions whose mean is `last_8_mean`.
LAST_8 = tuple(range(-8, 0))


def rank_rows(data: LayerData, settings: RankAudit) -> list[Row]:
    """Rank numbers of every matrix, over all prompts and per category of at least two prompts."""
    rows: list[Row] = []
    for item in data.fitted.values():
        everyone = np.ones(len(item.prompts.ids), dtype=bool)
        rows.append(_rank_row(item, data, settings, "all", everyone, item.plain, item.centered))
        for category in categories(item.prompts):
            chosen = item.prompts.mask(category)
            part = item.shift.rows[chosen]
            spectra = spectrum(part), spectrum(part, centered=True)
            rows.append(_rank_row(item, data, settings, category, chosen, *spectra))
    return rows


def categories(prompts: PromptRows) -> list[str]:
    """Categories worth a row of their own: two prompts or more, and not the whole set."""
    names = sorted(set(prompts.categories))
    return [n for n in names if len(names) > 1 and prompts.categories.count(n) > 1]


def cumulative_rows(data: LayerData, settings: RankAudit) -> list[Row]:
    """Cumulative share of the energy by number of components, uncentred and centred."""
    rows: list[Row] = []
    for item in data.fitted.values():
        plain = cumulative_shares(item.plain.values)[: settings.cumulative_k]
        centered = cumulative_shares(item.centered.values)[: settings.cumulative_k]
        rows += [
            {**item.key, "layer": data.layer, "k": k, "share": share, "share_centered": other}
            for k, (share, other) in enumerate(zip(plain, centered, strict=True), start=1)
        ]
    return rows


def eps_rows(data: LayerData, settings: RankAudit) -> list[Row]:
    """`rank_eps` on the grid of eps, uncentred."""
    return [
        {
            **item.key,
            "scope": "layer",
            "layer": data.layer,
            "band": None,
            "eps": eps,
            "rank_eps": float(rank_eps(item.plain.values, eps)),
        }
        for item in data.fitted.values()
        for eps in settings.eps_grid
    ]


def with_bands(table: pd.DataFrame, *, depth: int) -> pd.DataFrame:
    """Append the band means of an eps table; a band layer that is not stored is left out."""
    keys = ["pair", "matrix", "inputs", "eps"]
    rows: list[Row] = []
    for band, layers in band_layers(depth).items():
        for key, part in table[table["layer"].isin(layers)].groupby(keys, sort=False):
            rank = float(part["rank_eps"].to_numpy(dtype=float).mean())
            band_of_key = dict(zip(keys, key, strict=True))
            rows.append({**band_of_key, "scope": "band", "band": band, "rank_eps": rank})
    joined = [*table.to_dict("records"), *rows]
    return pd.DataFrame(joined).reindex(columns=table.columns).astype({"layer": "Int64"})


def heldout_rows(
    data: LayerData, selection: Selection, settings: RankAudit, *, seed: int
) -> list[Row]:
    """Share of the held-out shift energy in the first k fitted directions, with its null."""
    rows: list[Row] = []
    for key, held in data.heldout.items():
        item = data.fitted[key]
        clusters = selection.heldout[held.inputs].clusters
        # One generator a cell: the same permutations in every layer and matrix.
        rng = HELDOUT_SHARES.rng(seed)
        result = heldout_shares(
            item.plain.left,
            held.rows,
            clusters,
            draws=settings.null_draws,
            range_draws=settings.bootstrap_draws,
            rng=rng,
        )
        columns = {
            "share_fit": cumulative_shares(item.plain.values),
            "share_heldout": result.share,
            "share_low": result.low,
            "share_high": result.high,
            "share_null": result.null,
            "share_null_p95": result.null_p95,
            "gain": result.gain,
            "gain_null_p95": result.gain_null_p95,
        }
        counts = {
            "knee": result.knee,
            "n_fit": len(item.prompts.ids),
            "n_heldout": len(held.rows),
            "clusters_heldout": len(set(clusters)),
        }
        for k in range(item.plain.left.shape[1]):
            values = {name: float(series[k]) for name, series in columns.items()}
            rows.append({**item.key, "layer": data.layer, "k": k + 1, **values, **counts})
    return rows


def _rank_row(
    item: FittedMatrix,
    data: LayerData,
    settings: RankAudit,
    category: str,
    chosen: np.ndarray,
    plain: Spectrum,
    centered: Spectrum,
) -> Row:
    rows = item.shift.rows[chosen]
    n, d = rows.shape
    rank = rank_eps(plain.values, settings.eps)
    energy = float(np.sum(np.square(plain.values)))
    mean_energy = n * float(np.sum(np.square(rows.mean(axis=0))))
    reference = float(np.sum(item.shift.reference_energy[chosen]))
    return {
        **item.key,
        "category": category,
        "layer": data.layer,
        "n": n,
        "d": d,
        "rank_eps": rank,
        "rank_eps_centered": rank_eps(centered.values, settings.eps),
        "rho_eps": rank / d,
        "rank_over_min_dn": rank / min(d, n),
        "stable_rank": stable_rank(plain.values),
        "entropy_rank": entropy_rank(plain.values),
        "top_share": cumulative_shares(plain.values)[0],
        "mean_share": mean_energy / energy if energy > 0 else float("nan"),
        "shift_norm": float(np.sqrt(energy / n)),
        "relative_shift_norm": relative_norm(energy, reference),
    }


def relative_norm(shift_energy: float, reference_energy: float) -> float:
    """||M||_F / ||H||_F, H the activations the shift is measured against; NaN when H is zero."""
    return float(np.sqrt(shift_energy / reference_energy)) if reference_energy > 0 else float("nan")


def pooling_rows(
    streams: AlignedStreams, selection: Selection, data: LayerData, settings: RankAudit
) -> list[Row]:
    """Ranks under both poolings; `last_8_mean` only where both conditions store eight positions.

    A prompt shorter than eight tokens is averaged over the positions it has.
    """
    rows = [
        _pooling_row(item.shift, "last_prompt", data.layer, settings)
        for item in data.fitted.values()
    ]
    if not streams.has_window(LAST_8, {selection.fit[name].prompt_set for name in CONDITIONS}):
        return rows
    pooled = {name: _pooled(streams, selection.fit[name], data.layer) for name in CONDITIONS}
    harmless = pooled["harmless"]
    control = template_shift(harmless["tuned", "chat"], harmless["base", "chat"])
    matrices = shift_matrices(pooled, control).values()
    return rows + [_pooling_row(shift, "last_8_mean", data.layer, settings) for shift in matrices]


def _pooled(streams: AlignedStreams, rows: PromptRows, layer: int) -> Streams:
    return {
        (role, template): streams.read_mean(layer, role, template, rows, LAST_8)
        for role, template in STREAM_KINDS
    }


def _pooling_row(shift: ShiftMatrix, pooling: str, layer: int, settings: RankAudit) -> Row:
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
