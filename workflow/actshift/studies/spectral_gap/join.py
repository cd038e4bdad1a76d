"""Join the spectral gaps of all pairs, and their summary beside the published one (torch-free)."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from actshift.engine.joining import JoinContext, finished_pairs, stacked
from actshift.io.tables import read_table
from actshift.maths.gap import KAPPA_THRESHOLD
from actshift.studies.spectral_gap.stage import TABLE, gap_status
from actshift.studies.spectral_gap.study import COLUMNS, STUDY
from actshift.zoo.judge import topical
from actshift.zoo.language import Language, language

_RATES = ("refused_harmful", "on_topic_harmful", "refused_harmless", "on_topic_harmless")


def join(context: JoinContext) -> dict[str, pd.DataFrame]:
    """Join the pairs' tables, and count layers beside what the models answer.

    Absent held-out answers (stage `reference_behaviour`) leave their rates empty.

    Raises:
        UserError: No pair has its table.
    """
    pairs = context.folders["spectral_gap"]
    present = finished_pairs(pairs, rule="spectral_gap", needed="a table")
    parts = (read_table(folder / TABLE) for folder in present.values())
    table = stacked(parts, COLUMNS["spectral_gap"])
    rates: dict[tuple[str, str], dict[str, float]] = {}
    for pair in present:
        size = context.zoo_sizes.get(pair)
        lang = None if size is None else language(size)
        for file in sorted(context.folders["reference_behaviour"][pair].glob("*.parquet")):
            rates[pair, file.stem] = behaviour_rates(pd.read_parquet(file), lang=lang)
    (published,) = (read_table(context.published / file) for file in STUDY.published)
    summary = summary_table(table, rates, published)
    return {"spectral_gap": table, "spectral_gap_summary": summary}


def behaviour_rates(rows: pd.DataFrame, *, lang: Language | None) -> dict[str, float]:
    """Rates of one model on held-out prompts, by condition, from one plain answer a prompt.

    Whether an answer is on topic is judged in the zoo's language alone. `clusters_harmful`: 0 % of
    C clusters bounds a new one at 1 - 0.05^(1/C).
    """
    on_topic = topical(rows["text"], rows["category"], lang)
    harmful = rows.loc[rows["condition"] == "harmful", "cluster"]
    rates: dict[str, float] = {"clusters_harmful": float(harmful.nunique())}
    for condition in ("harmful", "harmless"):
        here = (rows["condition"] == condition).to_numpy()
        rates[f"refused_{condition}"] = float(rows["refused"].to_numpy(dtype=float)[here].mean())
        rates[f"on_topic_{condition}"] = float(on_topic[here].mean())
    return rates


def summary_table(
    gaps: pd.DataFrame,
    rates: Mapping[tuple[str, str], Mapping[str, float]],
    published: pd.DataFrame,
) -> pd.DataFrame:
    """Counts of layers and kappas a reference, here and published.

    `rates` are those of `behaviour_rates`, by (pair, role). `layers` are those where S is not zero,
    the published denominator; the others of `depth` are counted in `no_difference`. A row `all`
    joins a pair's references.
    """
    rows = []
    for source, table in (("here", gaps), ("published", from_published(published))):
        for pair, of_pair in table.groupby("pair", sort=False):
            for reference, part in [*of_pair.groupby("reference", sort=False), ("all", of_pair)]:
                head = {"source": source, "pair": pair, "reference": reference}
                rows.append({**head, **_counts(part), **_behaviour(rates, str(pair), reference)})
    return pd.DataFrame(rows, columns=list(COLUMNS["spectral_gap_summary"]))


def _counts(part: pd.DataFrame) -> dict[str, Any]:
    moved = part[part["status"] != "no difference"]
    able = moved[moved["status"] == "informative"]
    return {
        "depth": part["layer"].nunique(),
        "layers": len(moved),
        "no_difference": len(part) - len(moved),
        "rank_too_high": len(moved) - len(able),
        "informative": len(able),
        "above_8": int((moved["kappa"] > KAPPA_THRESHOLD).sum()),
        "kappa_median": moved["kappa"].median(),
        "kappa_max": moved["kappa"].max(),
        "kappa_over_bound_median": moved["kappa_over_bound"].median(),
        "kappa_over_bound_max": moved["kappa_over_bound"].max(),
        "rank_S_median": moved["rank_S"].median(),
    }


def _behaviour(
    rates: Mapping[tuple[str, str], Mapping[str, float]], pair: str, reference: Any
) -> dict[str, float]:
    unsafe, honest = rates.get((pair, str(reference))), rates.get((pair, "tuned"))
    if unsafe is None or honest is None:
        return {}
    return {**unsafe, **{f"{name}_honest": honest[name] for name in _RATES}}


def from_published(released: pd.DataFrame) -> pd.DataFrame:
    """The released layers in the columns of the summary; layers it skipped are those with S = 0."""
    depth = int(released["layer"].max()) + 1
    return pd.DataFrame(_released_rows(released, depth))


def _released_rows(released: pd.DataFrame, depth: int) -> Iterator[dict[str, Any]]:
    for reference, part in released.groupby("unsafe_reference", sort=False):
        by_layer = part.set_index("layer")
        for layer in range(depth):
            head = {"pair": "llama", "reference": reference, "layer": layer}
            if layer not in by_layer.index:
                yield {**head, "rank_S": np.nan, "kappa": np.nan, "status": "no difference"}
                continue
            rank, kappa = int(by_layer["rank_eps_S"][layer]), float(by_layer["kappa_emp"][layer])
            # The release used eps = 0.05 throughout.
            bound = 2 / (0.05 * rank)
            status = gap_status(rank, informative=bound > KAPPA_THRESHOLD)
            share = {"kappa_over_bound": kappa / bound, "status": status}
            yield {**head, "rank_S": rank, "kappa": kappa, **share}
