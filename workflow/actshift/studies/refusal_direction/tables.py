"""The tables of all pairs: every candidate, and the effect on held-out prompts."""

from pathlib import Path
from typing import Any

import pandas as pd

from actshift.engine.joining import JoinContext, join_rows
from actshift.io.tables import read_table
from actshift.maths.paired import compare_paired
from actshift.random_streams import EFFECT_CONTROLS
from actshift.studies.refusal_direction.study import COLUMNS
from actshift.zoo.judge import topical
from actshift.zoo.language import Language, language

_EDITS = ("ablate", "add", "subtract")
_RESAMPLES = 2000


def join(context: JoinContext) -> dict[str, pd.DataFrame]:
    """Join the pairs' candidates, and judge their held-out rows.

    Raises:
        UserError: No pair has its folder.
    """

    def rows_of(pair: str, folder: Path) -> dict[str, list[dict[str, object]]]:
        size = context.zoo_sizes.get(pair)
        answers = pd.read_parquet(folder / "rows.parquet")
        lang = None if size is None else language(size)
        candidates: Any = read_table(folder / "refusal_direction.csv").to_dict("records")
        return {
            "refusal_direction": candidates,
            "refusal_effect": effect_rows(answers, pair=pair, seed=context.seed, lang=lang),
        }

    folders = context.folders["refusal_direction"]
    return join_rows(folders, rows_of, COLUMNS, rule="refusal_direction")


def effect_rows(
    answers: pd.DataFrame, *, pair: str, seed: int, lang: Language | None
) -> list[dict[str, object]]:
    """What the chosen direction and random ones of equal norm do on held-out prompts.

    Rates of a control are means over its draws, prompt by prompt, so that its row is as paired as
    the others; `draws_low` and `draws_high` are its smallest and largest draw.

    Returns:
        Rows of table `refusal_effect`; `change` is edited minus plain rate of refusal, its interval
        a cluster bootstrap, `p_sign_flip` by cluster, `p_mcnemar_independent` as if prompts were
        independent (empty for means over draws).
    """
    judged = answers.assign(
        on_topic=topical(answers["text"], answers["category"], lang),
        kind=answers["lane"].map(_kind),
    )
    rows: list[dict[str, object]] = []
    for condition, part in judged.groupby("condition", sort=False):
        plain = part[part["kind"] == "plain"].set_index("prompt_id")
        for edit in _EDITS:
            for control in (None, "random"):
                kind = edit if control is None else f"{control}_{edit}"
                names = {"pair": pair, "condition": condition, "edit": edit, "control": control}
                rows.append(names | _effect(part[part["kind"] == kind], plain, seed=seed))
    return rows


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
