"""The refusal direction: lanes of its held-out effect, and the tables of candidates and effects."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from actshift.edits import Ablate, Lane, Placed, Steer, everywhere
from actshift.maths.frames import unit_column
from actshift.maths.paired import compare_paired
from actshift.random_streams import EFFECT_CONTROLS
from actshift.studies.refusal_direction.selection import Candidate, Choice, missed_filters
from actshift.studies.refusal_direction.study import COLUMNS, RefusalDirection
from actshift.zoo.judge import topical
from actshift.zoo.language import Language

#: Random directions beside the chosen one.
DRAWS = 20
_EDITS = ("ablate", "add", "subtract")
_RESAMPLES = 2000


def effect_lanes(
    direction: Float[np.ndarray, " d_model"], best: Candidate, *, n_layers: int, seed: int
) -> list[Lane]:
    """Plain, ablated, added and subtracted; and the same with random directions of equal norm."""
    rng = EFFECT_CONTROLS.rng(seed)
    norm = float(np.linalg.norm(direction))
    draws = rng.standard_normal((DRAWS, len(direction)))
    draws *= norm / np.linalg.norm(draws, axis=1, keepdims=True)
    lanes = [Lane("plain")]
    for kind, draw, vector in [
        ("", None, direction),
        *(("random_", number, row) for number, row in enumerate(draws)),
    ]:
        tail = "" if draw is None else f"_{draw}"
        edit = Ablate(unit_column(vector))
        cut = everywhere(f"{kind}ablate{tail}", edit, n_layers=n_layers)
        lanes.append(Lane(cut.name, cut.edits, draw=draw))
        for name, coeff in (("add", 1.0), ("subtract", -1.0)):
            place = Placed(Steer(vector, coeff), best.layer, site="resid_pre")
            lanes.append(Lane(f"{kind}{name}{tail}", (place,), draw=draw))
    return lanes


def candidate_rows(
    pair: str,
    candidates: Sequence[Candidate],
    chosen: Choice,
    settings: RefusalDirection,
    *,
    norms: Float[np.ndarray, "layer position"],
    counts: Mapping[str, int],
) -> list[dict[str, object]]:
    """One row a candidate (`refusal_direction.csv`).

    Args:
        pair: Name of the pair.
        candidates: With their scores.
        chosen: Which was chosen, and what it misses.
        settings: Holds the limits of the filters.
        norms: Norm of every difference of means.
        counts: Prompts that directions were made from and chosen on.

    Returns:
        Rows of table `refusal_direction`; `verdict` stands in the chosen row alone: `passes`, or
        `none passes` where it is the least violating candidate.
    """
    rows = []
    for index, candidate in enumerate(candidates):
        missed = missed_filters(candidate, settings, n_layers=len(norms))
        verdict = "none passes" if chosen.missed else "passes"
        rows.append(
            {
                "pair": pair,
                "layer": candidate.layer,
                "position": candidate.position,
                "norm": float(norms[candidate.layer, candidate.position]),
                "bypass": candidate.bypass,
                "induce": candidate.induce,
                "kl": candidate.kl,
                **{f"passes_{name}": name not in missed for name in ("kl", "induce", "layer")},
                "chosen": index == chosen.index,
                "verdict": verdict if index == chosen.index else None,
                **counts,
            }
        )
    return rows


def effect_table(
    rows: pd.DataFrame, *, pair: str, seed: int, lang: Language | None
) -> pd.DataFrame:
    """What the chosen direction and random ones of equal norm do on held-out prompts.

    Rates of a control are means over its draws, prompt by prompt, so that its row is as paired as
    the others; `draws_low` and `draws_high` are its smallest and largest draw.

    Args:
        rows: Of the intervene stage.
        pair: Name of the pair.
        seed: Of resampling.
        lang: The zoo's language, to judge whether an answer is on topic; None for other models.

    Returns:
        Table `refusal_effect`; `change` is edited minus plain rate of refusal, its interval a
        cluster bootstrap, `p_sign_flip` by cluster, `p_mcnemar_independent` as if prompts were
        independent (empty for means over draws).
    """
    judged = rows.assign(
        on_topic=topical(rows["text"], rows["category"], lang), kind=rows["lane"].map(_kind)
    )
    effects = []
    for condition, part in judged.groupby("condition", sort=False):
        plain = part[part["kind"] == "plain"].set_index("prompt_id")
        for edit in _EDITS:
            for control in ("", "random_"):
                lanes = part[part["kind"] == f"{control}{edit}"]
                effects.append(
                    {
                        "pair": pair,
                        "condition": condition,
                        "edit": edit,
                        "control": control.rstrip("_") or None,
                        **_effect(lanes, plain, seed=seed),
                    }
                )
    return pd.DataFrame(effects, columns=list(COLUMNS["refusal_effect"]))


def _kind(lane: str) -> str:
    """Name of a lane without the number of its draw."""
    name, _, number = lane.rpartition("_")
    return name if number.isdigit() else lane


def _effect(lanes: pd.DataFrame, plain: pd.DataFrame, *, seed: int) -> dict[str, object]:
    by_prompt = lanes.groupby("prompt_id", sort=False)["refused"].mean().reindex(plain.index)
    by_draw = lanes.groupby("lane")["refused"].mean()
    edited, before = by_prompt.to_numpy(dtype=float), plain["refused"].to_numpy(dtype=float)
    clusters = [str(name) for name in plain["cluster"]]
    rng = EFFECT_CONTROLS.rng(seed)
    test = compare_paired(before, edited, clusters, draws=_RESAMPLES, rng=rng)
    single = lanes["lane"].nunique() == 1
    return {
        "draws": None if single else lanes["lane"].nunique(),
        "n": test.n,
        "clusters": test.clusters,
        "refused": test.rate_b,
        "plain_refused": test.rate_a,
        "change": test.difference,
        "low": test.low,
        "high": test.high,
        "p_sign_flip": test.sign_flip.p_two_sided,
        "p_mcnemar_independent": test.p_mcnemar if single else None,
        "draws_low": None if single else float(by_draw.min()),
        "draws_high": None if single else float(by_draw.max()),
        "on_topic": float(lanes["on_topic"].mean()),
        "kl_first": float(lanes["kl_first"].mean()),
        "ended": float(lanes["ended"].mean()),
        "plain_ended": float(plain["ended"].mean()),
    }
