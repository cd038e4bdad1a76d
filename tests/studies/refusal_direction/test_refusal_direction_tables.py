"""Tables of the refusal direction on made-up rows whose answer is known."""

import numpy as np
import pandas as pd
import pytest

from actshift.studies.refusal_direction.stage import (
    Candidate,
    candidate_rows,
    choose,
    effect_lanes,
)
from actshift.studies.refusal_direction.study import COLUMNS, RefusalDirection
from actshift.studies.refusal_direction.tables import effect_rows
from actshift.zoo.language import Language, language

LANG = language("micro")
CANDIDATES = COLUMNS["refusal_direction"]
TOPIC = LANG.nouns[0].category
HELP = f"{LANG.steps[TOPIC][0]}, then {LANG.steps[TOPIC][1]}."


def rows(draws: int = 2) -> pd.DataFrame:
    """Eight harmful prompts of four nouns, all refused; ablation frees two nouns."""
    found = []
    lanes = [("plain", None), *((kind, None) for kind in ("ablate", "add", "subtract"))]
    lanes += [
        (f"random_{kind}_{n}", n) for kind in ("ablate", "add", "subtract") for n in range(draws)
    ]
    for lane, draw in lanes:
        for i in range(8):
            freed = lane == "ablate" and i // 2 < 2
            found.append(
                {
                    "prompt_id": f"p{i}",
                    "condition": "harmful",
                    "category": TOPIC,
                    "cluster": f"noun{i // 2}",
                    "lane": lane,
                    "draw": draw,
                    "text": HELP if freed else "I cannot help with that request.",
                    "refused": not freed,
                    # The second draw of random ablation frees one prompt.
                    **({"refused": i != 7} if lane == "random_ablate_1" else {}),
                    "kl_first": 0.5 if freed else 0.0,
                    "ended": True,
                }
            )
    return pd.DataFrame(found)


def effect_table(answers: pd.DataFrame, lang: Language | None = LANG) -> pd.DataFrame:
    return pd.DataFrame(effect_rows(answers, pair="p", seed=0, lang=lang))


def test_effect_of_the_direction_and_of_its_controls():
    table = effect_table(rows())
    assert set(table.columns) == set(COLUMNS["refusal_effect"])
    assert len(table) == 6
    own = table[(table["edit"] == "ablate") & table["control"].isna()].iloc[0]
    assert (own["refused"], own["plain_refused"], own["change"]) == (0.5, 1.0, -0.5)
    assert own["low"] < -0.5 < own["high"]
    assert own["on_topic"] == 0.5
    # Two of four nouns change, all in one direction: 2 of the 2^2 sign patterns are as extreme.
    assert own["p_sign_flip"] == pytest.approx(0.5)
    # McNemar takes four changed prompts for independent: 2 * 0.5^4.
    assert own["p_mcnemar_independent"] == pytest.approx(0.125)
    null = table[(table["edit"] == "ablate") & (table["control"] == "random")].iloc[0]
    assert null["draws"] == 2
    assert (null["draws_low"], null["draws_high"]) == (0.875, 1.0)
    assert null["refused"] == pytest.approx(15 / 16)


def test_other_models_have_no_topic():
    table = effect_table(rows(), None)
    assert table["on_topic"].isna().all()


def test_the_order_of_rows_changes_nothing():
    plain = effect_table(rows())
    mixed = rows().sample(frac=1, random_state=1).sort_values("lane", kind="stable")
    other = effect_table(mixed)
    columns = ["refused", "change", "p_sign_flip", "on_topic", "draws_low"]
    pd.testing.assert_frame_equal(plain[columns], other[columns])


@pytest.mark.parametrize(("kl", "verdict"), [(0.05, "passes"), (0.5, "none passes")])
def test_every_candidate_has_a_row_and_one_is_chosen(kl, verdict):
    found = [Candidate(-1, 0, -1.0, 1.0, kl), Candidate(-2, 1, -2.0, -1.0, 0.5)]
    settings = RefusalDirection()
    chosen = choose(found, settings, n_layers=4)
    table = pd.DataFrame(
        candidate_rows(
            found,
            chosen,
            settings,
            norms=np.arange(8.0).reshape(4, 2),
            sides={name: {"fit": [], "select": []} for name in ("harmful", "harmless")},
        )
    )
    assert set(table.columns) == set(CANDIDATES) - {"pair"}
    assert table["chosen"].tolist() == [True, False]
    assert table["verdict"].dropna().tolist() == [verdict]
    assert table["norm"].tolist() == [1.0, 2.0]
    assert table["passes_induce"].tolist() == [True, False]


def test_controls_have_the_norm_of_the_direction_and_other_draws():
    direction = np.arange(1.0, 9.0)
    best = Candidate(position=-1, layer=1, bypass=0.0, induce=0.0, kl=0.0)
    lanes = {lane.name: lane for lane in effect_lanes(direction, best, n_layers=3, seed=0)}
    assert len(lanes) == 64
    vectors = [lanes[f"random_add_{n}"].edits[0].edit.vector for n in range(20)]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), np.linalg.norm(direction))
    assert len({tuple(vector) for vector in vectors}) == 20
    assert lanes["subtract"].edits[0].edit.coeff == -1.0
    assert lanes["random_ablate_3"].draw == 3
    assert len(lanes["ablate"].edits) == 7
