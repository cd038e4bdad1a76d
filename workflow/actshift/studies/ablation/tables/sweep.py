"""Tables `ablation_sweep` and `ablation_by_category`: leading k directions projected out."""

from collections.abc import Sequence
from math import hypot

import numpy as np
from jaxtyping import Float

from actshift.maths.intervals import bootstrap_ends, clustered_wilson, discordant_interval
from actshift.maths.resampling import cluster_mean_draws
from actshift.random_streams import OUTCOMES
from actshift.studies.ablation.tables.answers import Answers, Cell, Rows
from actshift.studies.ablation.tables.compare import (
    DRAWS,
    NOTHING,
    Change,
    against_plain,
    changes,
    refusal_columns,
)
from actshift.studies.ablation.tables.control import standing_of

#: The one cell that decides claims; every other is exploratory.
PRIMARY = {"protocol": "heldout", "band": "narrow", "frame": "template", "edit": "zero", "k": 3}
#: The frame that a frame must beat to be about refusal: the shift of harmless prompts.
RIVAL = "template_harmless"
#: Few clusters are left in a category, so only cells around the primary one are shown.
SHOWN_KS = (1, 3, 5)
#: Changes of the prompts, and their clusters.
_Sample = tuple[Float[np.ndarray, " prompt"], Sequence[str]]


def sweep_rows(
    cells: Sequence[Cell],
    harmful: Answers,
    harmless: Answers,
    *,
    pair: str,
    protocol: str,
    seed: int,
) -> Rows:
    """One row a frame, edit, band and k.

    Args:
        cells: Of the sweep.
        harmful: Answers to harmful prompts.
        harmless: Answers to harmless prompts, of the same lanes.
        pair: Name of the pair.
        protocol: `heldout`, or `fitted`: the prompts that frames were fitted on, as published.
        seed: Of resampling.

    Returns:
        Columns of `ablation_sweep` but for `inflation`; only cells that were run.
    """
    cells = harmful.run(cells)
    refusal = against_plain(cells, harmful, "refused", seed=seed)
    complied = against_plain(cells, harmful, "complied", seed=seed)
    gains = _over_rival(cells, harmful, seed=seed)
    rows: Rows = []
    for cell, refused, helped, gain in zip(cells, refusal, complied, gains, strict=True):
        stands = standing_of(cell, cells, harmful, harmless)
        row: dict[str, object] = {
            "pair": pair,
            "protocol": protocol,
            **_names(cell, len(harmful.lanes_of(cell))),
            **refusal_columns(refused, harmful),
            "complied_low": helped.low,
            "complied_high": helped.high,
            "plain_complied": float(harmful.plain("complied").mean()),
            "complied_gain": helped.change,
            "complied_gain_over_harmless": gain.change,
            "complied_gain_low": gain.change_low,
            "complied_gain_high": gain.change_high,
            "p_gain": gain.p,
            "plain_harmless_on_topic": float(harmless.plain("on_topic").mean()),
            "harmless_refusal": float(harmless.matrix("refused", [cell]).mean()),
            **stands.columns(),
        }
        if stands.control and cell.frame != "random":
            row["beats_random"] = stands.control.beaten_by(refused.rate)
        row["primary"] = all(row[key] == value for key, value in PRIMARY.items())
        rows.append(row)
    return rows


def add_inflation(
    rows: Rows,
    cells: Sequence[Cell],
    fitted: Answers,
    heldout: Answers,
    *,
    seed: int,
) -> None:
    """Add to the rows of the fitted protocol how much more refusal falls there than held out.

    inflation = change of refusal on fitted prompts minus change on held-out ones (below 0: fitting
    flatters); its interval is the wider of two: both samples of clusters resampled independently,
    and square-and-add of their `discordant_interval`s. Random frames are not fitted and stay empty.

    Args:
        rows: What `sweep_rows` gave for `fitted`.
        cells: Of the sweep.
        fitted: Answers to the fitted harmful prompts.
        heldout: Answers to the held-out harmful prompts.
        seed: Of resampling.
    """
    run = fitted.run(cells)
    keep = [place for place, cell in enumerate(run) if cell.frame != "random"]
    if not keep:
        return
    named = [run[place] for place in keep]
    gaps, draws = [], []
    for number, answers in enumerate((fitted, heldout)):
        gap = answers.matrix("refused", named) - answers.plain("refused")
        rng = OUTCOMES.rng(seed, number)
        gaps.append((gap, answers.clusters))
        draws.append(cluster_mean_draws(gap, answers.clusters, draws=DRAWS, rng=rng))
    fewest = min(len(set(clusters)) for _, clusters in gaps)
    ends = bootstrap_ends(draws[0] - draws[1], clusters=fewest)
    for number, place in enumerate(keep):
        first, second = ((gap[number], clusters) for gap, clusters in gaps)
        low, high = _difference_interval(first, second)
        rows[place] |= {
            "inflation": float(first[0].mean() - second[0].mean()),
            "inflation_low": float(np.fmin(ends[number, 0], low)),
            "inflation_high": float(np.fmax(ends[number, 1], high)),
        }


def _difference_interval(first: _Sample, second: _Sample) -> tuple[float, float]:
    """Square-and-add interval of two changes' difference; it has a width where nothing changed."""
    (low_a, high_a), (low_b, high_b) = (discordant_interval(*one) for one in (first, second))
    a, b = (float(gap.mean()) for gap, _ in (first, second))
    low, high = a - b - hypot(a - low_a, high_b - b), a - b + hypot(high_a - a, b - low_b)
    return max(-1.0, low), min(1.0, high)


def _over_rival(cells: Sequence[Cell], answers: Answers, *, seed: int) -> list[Change]:
    """Each cell's on-topic compliance against that of the harmless frame at its k, band, edit."""
    rivals = {(c.k, c.band, c.edit): c for c in cells if c.frame == RIVAL}
    pairs = [
        (place, cell, rivals[cell.k, cell.band, cell.edit])
        for place, cell in enumerate(cells)
        if cell.frame != RIVAL and (cell.k, cell.band, cell.edit) in rivals
    ]
    gains = [NOTHING] * len(cells)
    if not pairs:
        return gains
    after = answers.matrix("complied", [cell for _, cell, _ in pairs])
    before = answers.matrix("complied", [rival for _, _, rival in pairs])
    compared = changes(before, after, answers.clusters, seed=seed)
    for (place, _, _), change in zip(pairs, compared, strict=True):
        gains[place] = change
    return gains


def _names(cell: Cell, lanes: int) -> dict[str, object]:
    return {
        "band": cell.band,
        "layers": cell.layers,
        "frame": cell.frame,
        "edit": cell.edit,
        "k": cell.k,
        "d": cell.d,
        "k_over_d": cell.k / cell.d,
        "draws": lanes if cell.frame == "random" else None,
        "energy_removed": cell.energy_harmful,
        "energy_removed_harmless": cell.energy_harmless,
    }


def category_rows(cells: Sequence[Cell], harmful: Answers, *, pair: str) -> Rows:
    """One row a category, frame and small k; held-out prompts, the primary band and edit.

    Shown, never tested: is the loss of refusal that of one kind of harm?

    Args:
        cells: All cells; those of the sweep are read.
        harmful: Answers to held-out harmful prompts.
        pair: Name of the pair.

    Returns:
        Columns of `ablation_by_category`; the interval is Wilson at n / design effect.
    """
    shown = [
        cell
        for cell in harmful.run(cells)
        if cell.experiment == "sweep"
        and (cell.band, cell.edit) == (PRIMARY["band"], PRIMARY["edit"])
        and cell.k in SHOWN_KS
    ]
    rows: Rows = []
    for category in sorted(set(harmful.categories)):
        in_category = np.array([name == category for name in harmful.categories])
        clusters = [name for name, kept in zip(harmful.clusters, in_category, strict=True) if kept]
        for cell in shown:
            refused, complied = (
                harmful.matrix(what, [cell])[0][in_category] for what in ("refused", "complied")
            )
            low, high = clustered_wilson(refused, clusters)
            rows.append(
                {
                    "pair": pair,
                    "category": category,
                    "band": cell.band,
                    "frame": cell.frame,
                    "edit": cell.edit,
                    "k": cell.k,
                    "draws": cell.draws,
                    "n": len(clusters),
                    "clusters": len(set(clusters)),
                    "plain_refusal": float(harmful.plain("refused")[in_category].mean()),
                    "refusal": float(refused.mean()),
                    "refusal_low": low,
                    "refusal_high": high,
                    "complied": float(complied.mean()),
                }
            )
    return rows
