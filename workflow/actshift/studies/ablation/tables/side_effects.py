"""side_effects.csv: what every cell does to harmless prompts and to plain text."""

from collections.abc import Mapping, Sequence

import pandas as pd

from actshift.studies.ablation.tables.answers import PLAIN, Answers, Cell, Rows
from actshift.studies.ablation.tables.compare import against_plain


def losses_by_lane(losses: pd.DataFrame) -> dict[str, float]:
    """Nats a predicted token of each lane: summed nats over summed tokens.

    Args:
        losses: `losses.parquet`.
    """
    sums = losses.groupby("lane", sort=False)[["nats", "n_tokens"]].sum()
    return {str(lane): float(value) for lane, value in (sums["nats"] / sums["n_tokens"]).items()}


def side_effect_rows(
    cells: Sequence[Cell], harmless: Answers, losses: Mapping[str, float], *, pair: str, seed: int
) -> Rows:
    """One row a cell.

    Args:
        cells: Of any experiment.
        harmless: Answers to harmless prompts of the model that these cells edit.
        losses: Loss on plain text of each lane; empty where none was measured.
        pair: Name of the pair.
        seed: Of resampling.

    Returns:
        Columns of `side_effects`; of random frames means over draws.
    """
    cells = harmless.run(cells)
    over = against_plain(cells, harmless, "refused", seed=seed)
    topics = against_plain(cells, harmless, "on_topic", seed=seed)
    rows: Rows = []
    for cell, refused, topic in zip(cells, over, topics, strict=True):
        loss = _loss(cell, losses)
        rows.append(
            {
                "pair": pair,
                "experiment": cell.experiment,
                "frame": cell.frame,
                "edit": cell.edit,
                "band": cell.band,
                "k": cell.k,
                "directions": cell.directions,
                "draws": cell.draws,
                "n": len(harmless.prompts),
                "clusters": len(set(harmless.clusters)),
                "over_refusal": refused.rate,
                "over_refusal_change": refused.change,
                "over_refusal_change_low": refused.change_low,
                "over_refusal_change_high": refused.change_high,
                "p_sign_flip": refused.p,
                "on_topic": topic.rate,
                "on_topic_change": topic.change,
                "on_topic_change_low": topic.change_low,
                "on_topic_change_high": topic.change_high,
                **{
                    name: float(harmless.matrix(name, [cell]).mean())
                    for name in ("kl_first", "distinct_2", "ended")
                },
                "loss": loss,
                "loss_change": None if loss is None else loss - losses[PLAIN],
            }
        )
    return rows


def _loss(cell: Cell, losses: Mapping[str, float]) -> float | None:
    of_lanes = [losses[lane] for lane in cell.lanes if lane in losses]
    return sum(of_lanes) / len(of_lanes) if of_lanes else None
