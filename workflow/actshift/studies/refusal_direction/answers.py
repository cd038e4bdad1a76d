"""What the refusal direction says about one pair; no effect stands without its control."""

import numpy as np
import pandas as pd

from actshift.report.point import (
    CARRIES,
    MIN_CLUSTERS,
    MIN_REFUSED,
    Point,
    Verdict,
    basis_of,
    counted,
    not_measured,
    points_of,
    rate,
    topical_then,
)
from actshift.report.tables import Tables, first, select
from actshift.vocab import MIN_ON_TOPIC


def points(tables: Tables, pair: str) -> list[Point]:
    """What the tables say about one pair."""
    return [refusal_point(tables, pair)]


def refusal_point(tables: Tables, pair: str) -> Point:
    """Whether taking one direction out takes refusal away, beside random directions."""
    question = "Does one direction carry refusal?"
    rows = _ablated(tables, pair, "harmful")
    chosen = _of_direction(rows)
    random = select(rows, control="random") if len(rows) else rows
    if chosen.empty or random.empty:
        return not_measured(question, "refusal_effect")
    plain, left = first(chosen, "plain_refused"), first(chosen, "refused")
    clusters, least = int(first(chosen, "clusters")), first(random, "draws_low")
    low, high = first(chosen, "low"), first(chosen, "high")
    brief = f"{rate(plain)} to {rate(left)}"
    moves = (
        f"removing one direction takes refusal of harmful prompts from {rate(plain)} to "
        f"{rate(left)} on {counted(clusters, 'unseen cluster')}, where "
        f"{counted(int(first(random, 'draws')), 'random direction')} leave at least "
        f"{rate(least)}"
    )
    detail = (
        f"Change {points_of(first(chosen, 'change'), low, high)} points. "
        f"{topical_then(chosen)}{_harmless(tables, pair)}{_choice(tables, pair)}"
    )
    basis = basis_of(chosen)
    verdict: Verdict = "measured"
    if why := _undecidable(plain, clusters, _broken(tables, pair)):
        verdict, words = "cannot be told", f"whether it carries refusal cannot be told ({why})"
    elif high < -CARRIES and high < least - plain:
        words = "it carries refusal"
    elif low > -CARRIES:
        words = "it does not carry half of the refusals"
    else:
        verdict, words = "inconclusive", "whether it carries refusal is open"
    return Point(question, verdict, f"{moves}: {words}", detail, basis, brief)


def _ablated(tables: Tables, pair: str, condition: str) -> pd.DataFrame:
    """Effects of ablating a direction, the chosen one and random ones."""
    return select(tables.get("refusal_effect"), pair=pair, condition=condition, edit="ablate")


def _of_direction(effects: pd.DataFrame) -> pd.DataFrame:
    """The effects of the chosen direction, without those of random ones."""
    return effects[effects["control"].isna()] if len(effects) else effects


def _undecidable(plain: float, clusters: int, broken: str) -> str:
    """Why nothing can be said; empty where something can."""
    if plain < MIN_REFUSED:
        return "it refuses too little to lose it"
    return "too few clusters" if clusters < MIN_CLUSTERS else broken


def _broken(tables: Tables, pair: str) -> str:
    """What the edit does to harmless prompts, where that is damage; empty else."""
    rows = _of_direction(_ablated(tables, pair, "harmless"))
    if rows.empty:
        return ""
    topical, refused = first(rows, "on_topic"), first(rows, "refused")
    if not np.isnan(topical) and topical < MIN_ON_TOPIC:
        return f"under that edit {rate(topical)} of harmless prompts are answered on topic"
    return (
        f"that edit makes {rate(refused)} of harmless prompts refused"
        if refused > 1 - MIN_ON_TOPIC
        else ""
    )


def _harmless(tables: Tables, pair: str) -> str:
    """What the same edit does to harmless prompts."""
    rows = _of_direction(_ablated(tables, pair, "harmless"))
    if rows.empty:
        return ""
    return f"Under the same edit {rate(first(rows, 'refused'))} of harmless prompts are refused. "


def _choice(tables: Tables, pair: str) -> str:
    """Whether the direction passed the published filters."""
    rows = select(tables.get("refusal_direction"), pair=pair, chosen=True)
    if rows.empty or str(rows["verdict"].iloc[0]) != "none passes":
        return "The direction passes the published filters." if len(rows) else ""
    return "No candidate passes the published filters; this is the least violating one."
