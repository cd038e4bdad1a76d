"""How much the ranks move with the prompts: bootstrap, half-samples, nested subsets, inflation."""

import numpy as np
from jaxtyping import Float

from actshift.engine.stores import CONDITIONS
from actshift.maths.resampling import prefix_membership, shifted_range, stability_range
from actshift.maths.spectrum import rank_eps
from actshift.studies.rank_audit.layer import FittedMatrix, LayerData
from actshift.studies.rank_audit.study import RankAudit

Row = dict[str, object]
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
    return [
        {**item.key, "layer": data.layer, **_bootstrap(item, halves[key], settings)}
        for key, item in data.fitted.items()
    ]


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


def _bootstrap(item: FittedMatrix, halves: Float[np.ndarray, " draw"], settings: RankAudit) -> Row:
    full = rank_eps(item.plain.values, settings.eps)
    boot = item.resampled.ranks(item.draws.counts, eps=settings.eps)
    boot_low, boot_high = stability_range(boot)
    sub_low, sub_high = stability_range(halves)
    range_low, range_high = shifted_range(float(full), halves)
    return {
        "rank_eps": full,
        "boot_mean": float(boot.mean()),
        "boot_std": float(boot.std(ddof=1)) if len(boot) > 1 else float("nan"),
        "boot_low": boot_low,
        "boot_high": boot_high,
        "boot_distinct": float((item.draws.counts > 0).sum(axis=1).mean()),
        "sub_n": float(item.draws.halves.sum(axis=1).mean()),
        "sub_mean": finite_mean(halves),
        "sub_low": sub_low,
        "sub_high": sub_high,
        "range_low": range_low,
        "range_high": range_high,
        "draws": len(boot),
    }
