"""All seeds' calibration rows beside the published ones, and the means of both."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from actshift.studies.calibration.names import GAP_LAMBDA, RANK_LAMBDA, Tuned
from actshift.studies.calibration.study import PUBLISHED

_KEYS = {
    "calibration_rank": ["seed", "variant", "lambda", "inputs", "layer"],
    "calibration_ablation": ["seed", "variant", "lambda", "projection", "draw", "ablated_rank"],
    "calibration_spectral_gap": ["seed", "honest", "unsafe", "layer"],
}
_VALUES = {
    "calibration_rank": {"rank_eps": "rank_eps_published", "rho_eps": "rho_eps_published"},
    "calibration_ablation": {
        "compliance": "compliance_published",
        "rho_eps_mean_over_layers": "rho_mean_published",
    },
    "calibration_spectral_gap": {"r_S": "rank_S_published", "kappa_emp": "kappa_published"},
}
#: What the means are taken of, and what stays apart in them.
_MEANS = {
    "calibration_rank": (["variant", "lambda", "inputs", "layer"], ["rank_eps", "rho_eps"]),
    "calibration_ablation": (
        ["variant", "lambda", "projection", "ablated_rank"],
        ["compliance", "rho_mean"],
    ),
    "calibration_spectral_gap": (["honest", "unsafe", "layer"], ["rank_S", "kappa"]),
}
_PAIRINGS = {
    "ft": Tuned("full_finetune").name,
    "dist5": Tuned("distributed", GAP_LAMBDA).name,
    "unsafe_ft": Tuned("full_finetune", unsafe=True).name,
    "unsafe_dist5": Tuned("distributed", GAP_LAMBDA, unsafe=True).name,
}
_MEAN_KEYS = [
    "variant", "lambda", "inputs", "layer", "projection", "ablated_rank", "honest", "unsafe"
]  # fmt: skip


def published_rows(name: str, released: pd.DataFrame) -> pd.DataFrame:
    """A released per-seed CSV under this project's keys, values named `<column>_published`.

    Args:
        name: A key of `PUBLISHED`.
        released: Its CSV as in `resources/published`.

    Returns:
        Keys and published values, one row a published row.
    """
    rows = released.rename(columns=_VALUES[name])
    if name == "calibration_rank":
        rows["lambda"] = np.where(rows["variant"] == "distributed", RANK_LAMBDA, 0.0)
        rows["variant"] = rows["variant"].replace({"ft": "full_finetune"})
    elif name == "calibration_ablation":
        rows["lambda"] = rows["lambda"].fillna(0.0).astype(float)
        rows["variant"] = np.where(rows["variant"] == "FullFT", "full_finetune", "distributed")
        rows = rows.assign(projection="principal", draw=0)
    else:
        sides = rows["pairing"].str.split("_vs_", expand=True)
        rows = rows.assign(honest=sides[0].map(_PAIRINGS), unsafe=sides[1].map(_PAIRINGS))
    return rows[[*_KEYS[name], *_VALUES[name].values()]]


def beside_published(name: str, rows: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Measured rows with the published value of the same seed, where there is one.

    Args:
        name: A key of `PUBLISHED`.
        rows: Measured rows of all seeds.
        published: `published_rows` of the same table.

    Returns:
        The rows in their order, `published_seed` after the seed, published values last.
    """
    joined = rows.merge(published, how="left", on=_KEYS[name], validate="one_to_one")
    at_seeds = joined["seed"].isin(published["seed"].unique())
    joined.insert(1, "published_seed", at_seeds)
    if name == "calibration_ablation":
        # Compared as a count: the released shares were rounded by another device's float32 mean.
        released = (joined["compliance_published"] * joined["n"]).round()
        joined["complied_published"] = released.astype("Int64")
    return joined


def means(
    tables: Mapping[str, pd.DataFrame], published: Mapping[str, pd.DataFrame]
) -> pd.DataFrame:
    """Means over seeds: published, ours at the published seeds, ours at the others, ours at all.

    Args:
        tables: Measured tables, from `beside_published`.
        published: `published_rows` of each.

    Returns:
        One row a cell and quantity; an empty cell where no seed falls into the group. Random
        draws are averaged within a seed first, so a seed counts once.
    """
    cells: list[dict[str, Any]] = []
    for name, (keys, quantities) in _MEANS.items():
        per_seed = tables[name].groupby([*keys, "seed", "published_seed"], sort=False)
        averaged = per_seed[quantities].mean().reset_index()
        for cell, rows in averaged.groupby(keys, sort=False):
            where = dict(zip(keys, cell, strict=True))
            theirs = _matching(published[name], where)
            for quantity in quantities:
                cells.append(
                    {"table": name, **where, "quantity": quantity}
                    | _four_means(rows, theirs, quantity)
                )
    values = [column for column in cells[0] if column.startswith(("mean_", "sd_", "seeds_"))]
    return pd.DataFrame(cells)[["table", *_MEAN_KEYS, "quantity", *values]].astype(
        {"layer": "Int64", "ablated_rank": "Int64"}
    )


def _matching(published: pd.DataFrame, where: Mapping[str, Any]) -> pd.DataFrame:
    for column, value in where.items():
        published = published[published[column] == value]
    return published


def _four_means(rows: pd.DataFrame, theirs: pd.DataFrame, quantity: str) -> dict[str, float]:
    """Mean, sample standard deviation and number of seeds of each group."""
    groups = {
        "published": theirs[f"{quantity}_published"],
        "at_published_seeds": rows.loc[rows["published_seed"], quantity],
        "at_other_seeds": rows.loc[~rows["published_seed"], quantity],
        "all_seeds": rows[quantity],
    }
    columns: dict[str, float] = {}
    for group, numbers in groups.items():
        columns[f"mean_{group}"] = float(numbers.mean())
        columns[f"sd_{group}"] = float(numbers.std(ddof=1)) if len(numbers) > 1 else float("nan")
        columns[f"seeds_{group}"] = len(numbers)
    return columns


def joined_tables(
    measured: Mapping[str, Sequence[pd.DataFrame]], released: Mapping[str, pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """Every table of the study but the training log.

    Args:
        measured: One table a seed, by a key of `PUBLISHED`.
        released: The released CSV of each.
    """
    published = {name: published_rows(name, released[name]) for name in PUBLISHED}
    tables = {
        name: beside_published(name, pd.concat(parts, ignore_index=True), published[name])
        for name, parts in measured.items()
    }
    return {**tables, "calibration_means": means(tables, published)}
