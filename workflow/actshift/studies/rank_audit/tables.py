"""Tables of one layer: ranks, energy, cosines, and how much they move with the prompts."""

import numpy as np
import pandas as pd
from jaxtyping import Float

from actshift.engine.stores import CONDITIONS, PromptRows
from actshift.maths.directions import MeanAlgebra, cosine, did_mean_algebra, template_shift
from actshift.maths.frames import band_layers
from actshift.maths.heldout import heldout_shares
from actshift.maths.resampling import prefix_membership, shifted_range, stability_range
from actshift.maths.spectrum import (
    Spectrum,
    cumulative_shares,
    entropy_rank,
    rank_eps,
    spectrum,
    stable_rank,
)
from actshift.random_streams import HELDOUT_SHARES
from actshift.studies.rank_audit.layer import (
    STREAM_KINDS,
    AlignedStreams,
    ConceptPairs,
    FittedMatrix,
    LayerData,
    Selection,
    ShiftMatrix,
    Streams,
    concept_rows,
    shift_matrices,
)
from actshift.studies.rank_audit.study import RankAudit

Row = dict[str, object]
#: The stored positions whose mean is `last_8_mean`.
LAST_8 = tuple(range(-8, 0))


def rank_rows(data: LayerData, settings: RankAudit) -> list[Row]:
    """Rank numbers of every matrix, over all prompts and per category of at least two prompts."""
    return [
        _rank_row(item, data, settings, category)
        for item in data.fitted.values()
        for category in ("all", *categories(item.prompts))
    ]


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
        draws = {"draws": settings.null_draws, "range_draws": settings.bootstrap_draws}
        rng = HELDOUT_SHARES.rng(seed)
        result = heldout_shares(item.plain.left, held.rows, clusters, rng=rng, **draws)
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


def _rank_row(item: FittedMatrix, data: LayerData, settings: RankAudit, category: str) -> Row:
    everyone = category == "all"
    mask = item.prompts.mask(category) | everyone
    rows = item.shift.rows[mask]
    plain, centered = item.plain, item.centered
    if not everyone:
        plain, centered = spectrum(rows), spectrum(rows, centered=True)
    n, d = rows.shape
    rank = rank_eps(plain.values, settings.eps)
    energy = float(np.sum(np.square(plain.values)))
    mean_energy = n * float(np.sum(np.square(rows.mean(axis=0))))
    reference = float(np.sum(item.shift.reference_energy[mask]))
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


#: Ranks of the half-samples of one layer, by (matrix, inputs).
HalfRanks = dict[tuple[str, str], Float[np.ndarray, " draw"]]


def half_ranks(data: LayerData, settings: RankAudit) -> HalfRanks:
    """Rank of every half-sample; two matrices of one condition share their halves."""
    return {
        key: item.resampled.ranks(item.draws.halves, eps=settings.eps)
        for key, item in data.fitted.items()
    }


def bootstrap_rows(data: LayerData, halves: HalfRanks, settings: RankAudit) -> list[Row]:
    """With-replacement ranks as published, and half-samples by cluster beside them."""
    rows: list[Row] = []
    for key, item in data.fitted.items():
        half = halves[key]
        full = rank_eps(item.plain.values, settings.eps)
        boot = item.resampled.ranks(item.draws.counts, eps=settings.eps)
        boot_low, boot_high = stability_range(boot)
        sub_low, sub_high = stability_range(half)
        range_low, range_high = shifted_range(float(full), half)
        rows.append(
            {
                **item.key,
                "layer": data.layer,
                "rank_eps": full,
                "boot_mean": float(boot.mean()),
                "boot_std": float(boot.std(ddof=1)) if len(boot) > 1 else float("nan"),
                "boot_low": boot_low,
                "boot_high": boot_high,
                "boot_distinct": float((item.draws.counts > 0).sum(axis=1).mean()),
                "sub_n": float(item.draws.halves.sum(axis=1).mean()),
                "sub_mean": finite_mean(half),
                "sub_low": sub_low,
                "sub_high": sub_high,
                "range_low": range_low,
                "range_high": range_high,
                "draws": len(boot),
            }
        )
    return rows


def n_sweep_rows(data: LayerData, settings: RankAudit) -> list[Row]:
    """Rank by number of prompts, over random nested subsets and for the first n (published)."""
    rows: list[Row] = []
    for item in data.fitted.values():
        total = len(item.prompts.ids)
        full = rank_eps(item.plain.values, settings.eps)
        for n in sorted({min(size, total) for size in settings.n_sweep}):
            ranks = np.array([full], dtype=np.float64)
            first = float(full)
            if n < total:
                ranks = item.resampled.ranks(
                    prefix_membership(item.draws.orders, n), eps=settings.eps
                )
                in_order = (np.arange(total) < n)[None, :]
                first = float(item.resampled.ranks(in_order, eps=settings.eps)[0])
            low, high = stability_range(ranks)
            rows.append(
                {
                    **item.key,
                    "layer": data.layer,
                    "n": n,
                    "draws": len(ranks),
                    "rank_mean": float(ranks.mean()),
                    "rank_low": low,
                    "rank_high": high,
                    "rank_first_n": first,
                }
            )
    return rows


def inflation_rows(data: LayerData, halves: HalfRanks, settings: RankAudit) -> list[Row]:
    """Log ratio of the naive to the template rank, at equal n, with its stability range."""
    rows: list[Row] = []
    for inputs in CONDITIONS:
        naive, template = (data.fitted[matrix, inputs] for matrix in ("naive", "template"))
        ranks = [rank_eps(item.plain.values, settings.eps) for item in (naive, template)]
        full = float(log_ratio(np.array([ranks[0]], float), np.array([ranks[1]], float))[0])
        ratios = log_ratio(halves["naive", inputs], halves["template", inputs])
        low, high = shifted_range(full, ratios)
        rows.append(
            {
                "inputs": inputs,
                "layer": data.layer,
                "n": len(naive.prompts.ids),
                "rank_naive": ranks[0],
                "rank_template": ranks[1],
                "ratio": float(np.exp(full)),
                "log_ratio": full,
                "log_ratio_low": low,
                "log_ratio_high": high,
                "half_n": float(naive.draws.halves.sum(axis=1).mean()),
                "half_log_ratio": finite_mean(ratios),
                "draws": len(ratios),
            }
        )
    return rows


def log_ratio(
    top: Float[np.ndarray, " draw"], bottom: Float[np.ndarray, " draw"]
) -> Float[np.ndarray, " draw"]:
    """ln(top / bottom); NaN where either rank is 0 or missing (a layer that does not move)."""
    usable = (top > 0) & (bottom > 0)
    return np.log(np.where(usable, top, np.nan)) - np.log(np.where(usable, bottom, np.nan))


def finite_mean(values: Float[np.ndarray, " draw"]) -> float:
    """Mean of the finite values; NaN when there is none."""
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if kept.size else float("nan")


def control_algebra(
    streams: AlignedStreams, concept: ConceptPairs | None, *, layer: int
) -> MeanAlgebra | None:
    """The algebra of the means for a contrast that has nothing to do with refusal."""
    if concept is None:
        return None
    tuned, base = (
        concept_rows(streams, concept, layer=layer, role=role, template="chat").mean(axis=0)
        for role in ("tuned", "base")
    )
    return did_mean_algebra(tuned, base)


def cosine_rows(data: LayerData, control: MeanAlgebra | None) -> list[Row]:
    """|cos| of u_1 with the refusal direction and with the own mean, and the algebra for did."""
    algebra = did_mean_algebra(data.tuned_contrast, data.base_contrast)
    rows: list[Row] = []
    for item in data.fitted.values():
        row: Row = {
            **item.key,
            "layer": data.layer,
            **_cosines(item.plain, item.centered, item.shift.rows, data.tuned_contrast),
        }
        if item.shift.matrix == "did":
            row["cos_refusal_from_means"] = algebra.cos_from_means
            row["base_difference_ratio"] = algebra.base_ratio
            row["cos_base_difference"] = algebra.cos_base
            if control is not None:
                row["cos_control_from_means"] = control.cos_from_means
                row["base_difference_ratio_control"] = control.base_ratio
                row["cos_base_difference_control"] = control.cos_base
        rows.append(row)
    return rows


def category_rows(data: LayerData) -> list[Row]:
    """The same cosines per category; the refusal direction stays that of all prompts."""
    rows: list[Row] = []
    for item in data.fitted.values():
        for category in categories(item.prompts):
            part = item.shift.rows[item.prompts.mask(category)]
            spectra = spectrum(part, k=1), spectrum(part, k=1, centered=True)
            rows.append(
                {
                    **item.key,
                    "category": category,
                    "layer": data.layer,
                    "n": len(part),
                    **_cosines(*spectra, part, data.tuned_contrast),
                }
            )
    return rows


def _cosines(
    plain: Spectrum,
    centered: Spectrum,
    rows: Float[np.ndarray, "prompt d_model"],
    refusal: Float[np.ndarray, " d_model"],
) -> dict[str, float]:
    mean = rows.mean(axis=0)
    return {
        "cos_refusal": _leading(plain, refusal),
        "cos_own_mean": _leading(plain, mean),
        "cos_refusal_centered": _leading(centered, refusal),
        "cos_own_mean_centered": _leading(centered, mean),
    }


def _leading(spec: Spectrum, vector: Float[np.ndarray, " d_model"]) -> float:
    """|cos| of u_1 and a vector; the sign of a singular vector means nothing."""
    return abs(cosine(spec.left[:, 0], vector)) if spec.left.shape[1] else float("nan")
