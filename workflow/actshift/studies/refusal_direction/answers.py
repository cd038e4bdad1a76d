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
    """Whether taking one direction out takes refusal away, beside random directions."""
    question = "Does one direction carry refusal?"
    effects = select(tables.get("refusal_effect"), pair=pair, edit="ablate")
    random = select(effects, condition="harmful", control="random")
    of_direction = effects[effects["control"].isna()] if len(effects) else effects
    chosen, harmless = (select(of_direction, condition=name) for name in ("harmful", "harmless"))
    if chosen.empty or random.empty:
        return [not_measured(question, "refusal_effect")]
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
        f"Change {points_of(first(chosen, 'change'), low, high)} points. {topical_then(chosen)}"
    )
    if len(harmless):
        refused = rate(first(harmless, "refused"))
        detail += f"Under the same edit {refused} of harmless prompts are refused. "
    detail += _choice(tables, pair)
    verdict: Verdict = "measured"
    if why := _undecidable(plain, clusters, _broken(harmless)):
        verdict, words = "cannot be told", f"whether it carries refusal cannot be told ({why})"
    elif high < -CARRIES and high < least - plain:
        words = "it carries refusal"
    elif low > -CARRIES:
        words = "it does not carry half of the refusals"
    else:
        verdict, words = "inconclusive", "whether it carries refusal is open"
    return [Point(question, verdict, f"{moves}: {words}", detail, basis_of(chosen), brief)]


def _undecidable(plain: float, clusters: int, broken: str) -> str:
    """Why nothing can be said; empty where something can."""
    if plain < MIN_REFUSED:
        return "it refuses too little to lose it"
    return "too few clusters" if clusters < MIN_CLUSTERS else broken


def _broken(harmless: pd.DataFrame) -> str:
    """What the edit does to harmless prompts, where that is damage; empty else."""
    if harmless.empty:
        return ""
    topical, refused = first(harmless, "on_topic"), first(harmless, "refused")
    if not np.isnan(topical) and topical < MIN_ON_TOPIC:
        return f"under that edit {rate(topical)} of harmless prompts are answered on topic"
    if refused > 1 - MIN_ON_TOPIC:
        return f"that edit makes {rate(refused)} of harmless prompts refused"
    return ""


def _choice(tables: Tables, pair: str) -> str:
    """Whether the direction passed the published filters."""
    rows = select(tables.get("refusal_direction"), pair=pair, chosen=True)
    if rows.empty or str(rows["verdict"].iloc[0]) != "none passes":
        return "The direction passes the published filters." if len(rows) else ""
    return "No candidate passes the published filters; this is the least violating one."
