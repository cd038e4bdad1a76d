"""Tables of ablated and patched cells: sweep, categories, single directions, patches, side effects.

Every row holds the columns that its table declares, and others that are dropped when it is made.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import hypot

import numpy as np
import pandas as pd
from jaxtyping import Float

from actshift.maths.intervals import (
    bootstrap_ends,
    cluster_mean_interval,
    clustered_wilson,
    discordant_interval,
)
from actshift.maths.resampling import cluster_mean_draws
from actshift.random_streams import OUTCOMES
from actshift.studies.ablation.tables.answers import (
    DRAWS,
    NOTHING,
    PLAIN,
    Answers,
    Cell,
    Change,
    Rows,
    against_plain,
    changes,
    measured,
)

#: Answers to harmful and harmless prompts, of the same lanes.
Sides = Mapping[str, Answers]
#: The one cell of the sweep that decides claims; every other is exploratory.
PRIMARY_SWEEP = {
    "protocol": "heldout",
    "band": "narrow",
    "frame": "template",
    "edit": "zero",
    "k": 3,
}
#: The frame that a frame must beat to be about refusal: the shift of harmless prompts.
RIVAL = "template_harmless"
#: Few clusters are left in a category, so only cells around the primary one are shown.
SHOWN_KS = (1, 3, 5)
#: Patch experiment -> (receiver, donor).
MODELS = {"substitution": ("tuned", "base"), "mode_toggle": ("base", "tuned")}
PRIMARY_PATCH = {"lane": "mode_toggle", "band": "narrow", "frame": "template", "k": 3}
#: (frame, layer, direction) -> |cos| of the direction with itself over resamples.
SelfCosines = Mapping[tuple[str, int, int], float]
#: Changes of the prompts, and their clusters.
_Sample = tuple[Float[np.ndarray, " prompt"], Sequence[str]]


def sweep_rows(cells: Sequence[Cell], answers: Sides, *, protocol: str, seed: int) -> Rows:
    """One row a frame, edit, band and k: leading k directions projected out.

    The protocol `fitted` asks the prompts that frames were fitted on, as published.
    """
    harmful, harmless = answers["harmful"], answers["harmless"]
    cells = harmful.run(cells)
    complied = against_plain(cells, harmful, "complied", seed=seed)
    gains = _over_rival(cells, harmful, seed=seed)
    rows: Rows = []
    for (cell, refused, stands, columns), helped, gain in zip(
        measured(cells, cells, answers, seed=seed), complied, gains, strict=True
    ):
        row: dict[str, object] = {
            "protocol": protocol,
            **columns,
            "draws": len(harmful.lanes_of(cell)) if cell.frame == "random" else None,
            "complied_low": helped.low,
            "complied_high": helped.high,
            "plain_complied": float(harmful.plain("complied").mean()),
            "complied_gain": helped.change,
            "complied_gain_over_harmless": gain.change,
            "complied_gain_low": gain.change_low,
            "complied_gain_high": gain.change_high,
            "p_gain": gain.p,
            "plain_harmless_on_topic": float(harmless.plain("on_topic").mean()),
        }
        if stands.control and cell.frame != "random":
            row["beats_random"] = stands.control.beaten_by(refused.rate)
        row["primary"] = row.items() >= PRIMARY_SWEEP.items()
        rows.append(row)
    return rows


def add_inflation(
    rows: Rows, cells: Sequence[Cell], fitted: Answers, heldout: Answers, *, seed: int
) -> None:
    """Add to the rows of the fitted protocol how much more refusal falls there than held out.

    inflation = change of refusal on fitted prompts minus change on held-out ones (below 0: fitting
    flatters); its interval is the wider of two: both samples of clusters resampled independently,
    and square-and-add of their `discordant_interval`s. Random frames are not fitted and stay empty.
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
    (low_a, high_a), (low_b, high_b) = (discordant_interval(*gap) for gap in (first, second))
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


def category_rows(cells: Sequence[Cell], harmful: Answers) -> Rows:
    """One row a category, frame and small k; held-out prompts, the primary band and edit.

    Shown, never tested: is the loss of refusal that of one kind of harm? The interval is Wilson's
    at n / design effect.
    """
    shown = [
        cell
        for cell in harmful.run(cells)
        if cell.experiment == "sweep"
        and (cell.band, cell.edit) == (PRIMARY_SWEEP["band"], PRIMARY_SWEEP["edit"])
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
                    **cell.columns,
                    "category": category,
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


def self_cosines(directions: pd.DataFrame) -> dict[tuple[str, int, int], float]:
    """How definite each direction is, from `directions.csv`."""
    return {
        (str(row["frame"]), int(row["layer"]), int(row["direction"])): float(row["self_cosine"])
        for row in directions.to_dict("records")
    }


def numbers_of(cell: Cell) -> tuple[int, ...]:
    """The directions of a set, 1-based; the leading k where none are named."""
    if cell.directions is None:
        return tuple(range(1, cell.k + 1))
    return tuple(int(part) for part in cell.directions.split("+"))


def least_definite(cell: Cell, cosines: SelfCosines) -> float:
    """Smallest |cos| with itself over a set's directions and the band's layers; NaN if unknown."""
    values = [
        cosines.get((cell.frame, int(layer), number), float("nan"))
        for layer in cell.layers.split()
        for number in numbers_of(cell)
    ]
    return min(values) if all(value == value for value in values) else float("nan")


def direction_rows(
    cells: Sequence[Cell], answers: Sides, cosines: SelfCosines, *, seed: int
) -> Rows:
    """One row a set of directions.

    `interaction` is the set's change of refusal minus the sum of its members' changes alone: below
    0 the set does more than its parts.

    `cells` are all of the pair: the sweep has the set of all directions that are combined, and the
    random frames that are the controls.
    """
    sets = _sets(answers["harmful"].run(cells))
    of_sets = list(measured([cell for cell, _ in sets], cells, answers, seed=seed))
    alone = {
        (cell.frame, numbers_of(cell)): change.change
        for (cell, change, _, _), (_, kind) in zip(of_sets, sets, strict=True)
        if kind == "single"
    }
    rows: Rows = []
    for (cell, change, _, columns), (_, kind) in zip(of_sets, sets, strict=True):
        members = [alone.get((cell.frame, (i,)), float("nan")) for i in numbers_of(cell)]
        rows.append(
            {
                **columns,
                "kind": kind,
                "directions": "+".join(map(str, numbers_of(cell))),
                "self_cosine_min": least_definite(cell, cosines),
                "interaction": None if kind == "single" else change.change - sum(members),
            }
        )
    return rows


def _sets(cells: Sequence[Cell]) -> list[tuple[Cell, str]]:
    """The sets with their kind; all combined directions together are a cell of the sweep."""
    single = [cell for cell in cells if cell.experiment == "direction"]
    # The largest number that stands in any combination: leave-one-out sets are of one fewer.
    combined = max((max(numbers_of(c)) for c in single if c.k > 1), default=0)
    # Of three directions, leaving one out leaves a pair.
    fewer = combined - 1 if combined > 3 else 0
    kinds = {1: "single", fewer: "leave_one_out"}
    sets = [(cell, kinds.get(cell.k, "pair")) for cell in single]
    places = {(cell.frame, cell.band, cell.edit) for cell in single}
    sets += [
        (cell, "all_five")
        for cell in cells
        if cell.experiment == "sweep"
        and cell.k == combined == 5
        and (cell.frame, cell.band, cell.edit) in places
    ]
    return sets


def old_or_new_rows(cells: Sequence[Cell], answers: Sides, *, seed: int) -> Rows:
    """One row a direction (tuned, base or new), band and edit.

    The sweep's random frames are the controls.
    """
    run = [cell for cell in answers["harmful"].run(cells) if cell.experiment == "old_or_new"]
    return [
        {**columns, "direction": cell.directions}
        for cell, _, _, columns in measured(run, cells, answers, seed=seed)
    ]


def substitution_rows(
    cells: Sequence[Cell], experiment: str, answers: Sides, donor: Answers, *, seed: int
) -> Rows:
    """One row a frame, band and k: the donor's components put into the receiver.

    share_of_gap = change / (donor - plain refusal), a ratio of means; empty, with the status
    `no gap`, where the gap's interval holds 0. Propositions 1 and 2.

    `answers` are the receiver's; `donor` holds the donor's plain lane on the same harmful prompts.

    Raises:
        ValueError: Donor and receiver were asked other prompts.
    """
    harmful = answers["harmful"]
    if donor.prompts != harmful.prompts:
        raise ValueError(f"{experiment}: donor and receiver were asked other prompts")
    cells = harmful.run([cell for cell in cells if cell.experiment == experiment])
    gap, has_gap = _gap(harmful, donor, seed=seed)
    receiver, of = MODELS[experiment]
    rows: Rows = []
    for _, change, stands, columns in measured(cells, cells, answers, seed=seed):
        if not has_gap:
            status = "no gap" if stands.status in ("decided", "no judge") else stands.status
            why = "; ".join(filter(None, [stands.why, "donor and receiver refuse alike"]))
            stands = replace(stands, status=status, why=why)
        row: dict[str, object] = {
            **columns,
            **stands.columns(),
            "lane": experiment,
            "receiver": receiver,
            "donor": of,
            "donor_refusal": float(donor.plain("refused").mean()),
            # Adding 0 turns -0 into 0.
            "share_of_gap": change.change / gap + 0.0 if has_gap else None,
        }
        rows.append({**row, "primary": row.items() >= PRIMARY_PATCH.items()})
    return rows


def _gap(receiver: Answers, donor: Answers, *, seed: int) -> tuple[float, bool]:
    """Donor's refusal minus receiver's, and whether its cluster interval leaves 0 out."""
    gap = donor.plain("refused") - receiver.plain("refused")
    rng = OUTCOMES.rng(seed)
    low, high = cluster_mean_interval(gap, receiver.clusters, draws=DRAWS, rng=rng)
    return float(gap.mean()), low > 0 or high < 0


def losses_by_lane(losses: pd.DataFrame) -> dict[str, float]:
    """Nats a predicted token of each lane: summed nats over summed tokens of `losses.parquet`."""
    sums = losses.groupby("lane", sort=False)[["nats", "n_tokens"]].sum()
    return {str(lane): float(value) for lane, value in (sums["nats"] / sums["n_tokens"]).items()}


def side_effect_rows(
    cells: Sequence[Cell], harmless: Answers, losses: Mapping[str, float], *, seed: int
) -> Rows:
    """What every cell does to harmless prompts and to plain text; of random frames means.

    `losses` is empty where no plain text was read.
    """
    cells = harmless.run(cells)
    over = against_plain(cells, harmless, "refused", seed=seed)
    topics = against_plain(cells, harmless, "on_topic", seed=seed)
    rows: Rows = []
    for cell, refused, topic in zip(cells, over, topics, strict=True):
        of_lanes = [losses[lane] for lane in cell.lanes if lane in losses]
        loss = sum(of_lanes) / len(of_lanes) if of_lanes else None
        rows.append(
            {
                **cell.columns,
                **harmless.sizes,
                **topic.columns("on_topic"),
                **refused.columns("over_refusal"),
                **{what: harmless.mean(what, cell) for what in ("kl_first", "distinct_2", "ended")},
                "loss": loss,
                "loss_change": None if loss is None else loss - losses[PLAIN],
            }
        )
    return rows
