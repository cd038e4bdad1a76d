"""substitution.csv: the donor's components put into the receiver, Propositions 1 and 2."""

from collections.abc import Sequence
from dataclasses import replace

from actshift.maths.intervals import cluster_mean_interval
from actshift.random_streams import OUTCOMES
from actshift.studies.ablation.tables.answers import Answers, Cell, Rows
from actshift.studies.ablation.tables.compare import (
    DRAWS,
    against_plain,
    refusal_columns,
)
from actshift.studies.ablation.tables.control import standing_of

#: Lane -> (receiver, donor).
MODELS = {"substitution": ("tuned", "base"), "mode_toggle": ("base", "tuned")}
PRIMARY = {"lane": "mode_toggle", "band": "narrow", "frame": "template", "k": 3}


def substitution_rows(
    cells: Sequence[Cell],
    lane: str,
    harmful: Answers,
    harmless: Answers,
    donor: Answers,
    *,
    pair: str,
    seed: int,
) -> Rows:
    """One row a frame, band and k of one of the two experiments.

    Args:
        cells: All of the pair.
        lane: `substitution` or `mode_toggle`.
        harmful: The receiver's answers to harmful prompts.
        harmless: Its answers to harmless prompts.
        donor: Answers that hold the donor's plain lane on the same harmful prompts.
        pair: Name of the pair.
        seed: Of resampling.

    Returns:
        Columns of `substitution`. share_of_gap = change / (donor - plain refusal), a ratio of
        means; empty, with the status `no gap`, where the gap's interval holds 0.

    Raises:
        ValueError: Donor and receiver were asked other prompts.
    """
    if donor.prompts != harmful.prompts:
        raise ValueError(f"{lane}: donor and receiver were asked other prompts")
    cells = harmful.run([cell for cell in cells if cell.experiment == lane])
    gap, has_gap = _gap(harmful, donor, seed=seed)
    rows: Rows = []
    compared = against_plain(cells, harmful, "refused", seed=seed)
    for cell, change in zip(cells, compared, strict=True):
        stands = standing_of(cell, cells, harmful, harmless)
        if not has_gap:
            status = "no gap" if stands.status in ("decided", "no judge") else stands.status
            why = "; ".join(filter(None, [stands.why, "donor and receiver refuse alike"]))
            stands = replace(stands, status=status, why=why)
        row: dict[str, object] = {
            "pair": pair,
            **_names(cell),
            **refusal_columns(change, harmful),
            "donor_refusal": float(donor.plain("refused").mean()),
            # Adding 0 turns -0 into 0.
            "share_of_gap": change.change / gap + 0.0 if has_gap else None,
            "harmless_refusal": float(harmless.matrix("refused", [cell]).mean()),
            **stands.columns(),
        }
        row["primary"] = all(row[key] == value for key, value in PRIMARY.items())
        rows.append(row)
    return rows


def _names(cell: Cell) -> dict[str, object]:
    receiver, donor = MODELS[cell.experiment]
    return {
        "lane": cell.experiment,
        "receiver": receiver,
        "donor": donor,
        "band": cell.band,
        "layers": cell.layers,
        "frame": cell.frame,
        "k": cell.k,
        "d": cell.d,
        "k_over_d": cell.k / cell.d,
        "draws": cell.draws,
        "shift_share": cell.shift_share,
    }


def _gap(receiver: Answers, donor: Answers, *, seed: int) -> tuple[float, bool]:
    """Donor's refusal minus receiver's, and whether its cluster interval leaves 0 out."""
    gap = donor.plain("refused") - receiver.plain("refused")
    rng = OUTCOMES.rng(seed)
    low, high = cluster_mean_interval(gap, receiver.clusters, draws=DRAWS, rng=rng)
    return float(gap.mean()), low > 0 or high < 0
