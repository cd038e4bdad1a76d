"""Join the pairs' tables; means over layers of what was measured and of what was published."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from actshift.engine.joining import JoinContext, finished_pairs, stacked
from actshift.io.missed import missed_in
from actshift.io.tables import read_table
from actshift.studies.rank_audit.study import COLUMNS, STUDY
from actshift.studies.rank_audit.tables import finite_mean


def join(context: JoinContext) -> dict[str, pd.DataFrame]:
    """Join the tables of all pairs; `pairs` says which pairs there are.

    A pair whose job failed left no folder: it is reported as missing and the others go on.

    Raises:
        UserError: No pair has tables, or a pair's folder lacks one.
    """
    pairs = context.folders["rank_audit"]
    present = finished_pairs(pairs, rule="rank_audit", needed="tables")
    tables = {}
    for name in COLUMNS:
        if name == "pairs":
            continue
        parts = [read_table(folder / f"{name}.csv") for folder in present.values()]
        if name == "summary":
            released = [read_table(context.published / file) for file in STUDY.published]
            parts.append(published_summary(*released))
        table = stacked(parts, COLUMNS[name])
        tables[name] = table.astype({"layer": "Int64"}) if "layer" in table else table
    status = []
    for pair, folder in pairs.items():
        missed, state = missed_in(folder), "present" if folder.is_dir() else "missing"
        status.append((pair, state if missed is None else missed.status))
    return {**tables, "pairs": pd.DataFrame(status, columns=list(COLUMNS["pairs"]))}


#: Names of the published matrices in this project's words: (matrix, inputs, pooling).
PUBLISHED_MATRICES = {
    "M_naive_safety": ("naive", "harmful", "last_prompt"),
    "M_naive_control": ("naive", "harmless", "last_prompt"),
    "M_template_safety": ("template", "harmful", "last_prompt"),
    "M_template_control": ("template", "harmless", "last_prompt"),
    "M_aligned_safety": ("aligned", "harmful", "last_prompt"),
    "M_aligned_control": ("aligned", "harmless", "last_prompt"),
    "M_DiD_safety": ("did", "harmful", "last_prompt"),
    "M_naive_meanpool_safety": ("naive", "harmful", "last_8_mean"),
}
#: Other models than the ones measured, and the label says so.
PUBLISHED_PAIRS = {
    "llama": "Llama-3.1-8B (published)",
    "gemma": "Gemma-2-9B (published)",
    "qwen": "Qwen2.5-7B (published)",
}
_COSINES = {
    ("naive", "harmful", "last_prompt"): "abs_cos_naive_u1",
    ("template", "harmful", "last_prompt"): "abs_cos_template_u1",
    ("did", "harmful", "last_prompt"): "abs_cos_did_u1",
}
_CELL = ("matrix", "inputs", "pooling")


def measured_summary(
    rank: pd.DataFrame, cosine: pd.DataFrame, pooling: pd.DataFrame
) -> pd.DataFrame:
    """Means over layers of one pair's tables, plain and weighted by relative shift energy.

    The weight of layer l is (||M_l|| / ||H_l||)^2: a plain mean is ruled by layers that hardly
    move, and ||M_l||^2 alone by the last layers, because the residual stream grows with depth.
    """
    width = int(rank["d"].iloc[0])
    rows: list[dict[str, object]] = []
    for (pair, matrix, inputs, pool), part in pooling.groupby(["pair", *_CELL], sort=False):
        n = int(part["n"].iloc[0])
        ranks, norms = _column(part, "rank_eps"), _column(part, "relative_shift_norm")
        chosen = cosine[(cosine["matrix"] == matrix) & (cosine["inputs"] == inputs)]
        cosines = _column(chosen, "cos_refusal")
        rows.append(
            {
                "pair": pair,
                "source": "measured",
                "matrix": matrix,
                "inputs": inputs,
                "pooling": pool,
                "n": n,
                "d": width,
                "n_layers": len(part),
                "mean_rank_eps": ranks.mean(),
                "weighted_rank_eps": weighted_mean(ranks, norms),
                "mean_rank_eps_centered": _column(part, "rank_eps_centered").mean(),
                "mean_rho_eps": ranks.mean() / width,
                "mean_rank_over_min_dn": ranks.mean() / min(n, width),
                "mean_abs_cos_refusal": (
                    finite_mean(cosines) if pool == "last_prompt" else float("nan")
                ),
                "mean_relative_shift_norm": finite_mean(norms),
            }
        )
    return _with_inflation(rows)


def published_summary(ranks: pd.DataFrame, cosines: pd.DataFrame) -> pd.DataFrame:
    """The same rows from the paper's released per-layer values, labelled as other models.

    What was not released stays empty. Width and n are recovered from the released ratios (rank /
    rho, rank / (rank / min(d, n))).
    """
    rows: list[dict[str, object]] = []
    for key, part in ranks.groupby(["family", "matrix"], sort=False):
        family, name = map(str, key)
        if name not in PUBLISHED_MATRICES or family not in PUBLISHED_PAIRS:
            continue
        cell = PUBLISHED_MATRICES[name]
        of_family = cosines[cosines["family"] == family]
        rank, rho = _column(part, "rank_eps"), _column(part, "rho_eps")
        share = _column(part, "rank_over_min_dn")
        rows.append(
            {
                "pair": PUBLISHED_PAIRS[family],
                "source": "published",
                **dict(zip(_CELL, cell, strict=True)),
                "n": round(float(np.median(rank / share))),
                "d": round(float(np.median(rank / rho))),
                "n_layers": len(part),
                "mean_rank_eps": rank.mean(),
                "mean_rank_eps_centered": _column(part, "rank_eps_centered").mean(),
                "mean_rho_eps": rho.mean(),
                "mean_rank_over_min_dn": share.mean(),
                "mean_abs_cos_refusal": (
                    finite_mean(_column(of_family, _COSINES[cell]))
                    if cell in _COSINES
                    else float("nan")
                ),
            }
        )
    return _with_inflation(rows)


def weighted_mean(
    values: Float[np.ndarray, " layer"], relative_norms: Float[np.ndarray, " layer"]
) -> float:
    """Mean weighted by squared relative shift norm; NaN when no layer moves."""
    weights = np.square(np.nan_to_num(relative_norms))
    total = float(weights.sum())
    return float(weights @ values / total) if total > 0 else float("nan")


def _with_inflation(rows: Sequence[dict[str, object]]) -> pd.DataFrame:
    """Mean naive rank over mean template rank, on the naive and template rows of a pair."""
    table = pd.DataFrame(rows).reindex(columns=list(COLUMNS["summary"]))
    inflation = np.full(len(table), np.nan)
    for _, part in table.groupby(["pair", "inputs", "pooling"], sort=False):
        means = dict(zip(part["matrix"].tolist(), _column(part, "mean_rank_eps"), strict=True))
        both = np.asarray(part.index)[np.isin(part["matrix"], ["naive", "template"])]
        if len(both) == 2 and means["template"] > 0:
            inflation[both] = means["naive"] / means["template"]
    return table.assign(inflation=inflation)


def _column(table: pd.DataFrame, name: str) -> Float[np.ndarray, " row"]:
    """One column as float64, missing values as NaN."""
    return table[name].to_numpy(dtype=float)
