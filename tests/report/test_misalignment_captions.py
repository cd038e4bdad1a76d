"""Captions of the figures of misalignment, and which rows figures and sentences speak of."""

import re

import numpy as np
import pandas as pd
import pytest
from report.drawn import plain_caption
from report.synthetic_misalignment import CHOSEN, misalignment_tables

from actshift.stages.figures import caption
from actshift.studies.misalignment.figures.panels import (
    ADAPTERS,
    NULL_STROKES,
    chosen_coeff,
    judged,
    near,
    whole,
)
from actshift.studies.misalignment.kinds import KINDS, MAPPED_NULLS, NULLS, UNSEEN, UNTUNED
from actshift.studies.registry import CATALOGUE

KIN = "same_architecture"
NAMES = CATALOGUE.names(["misalignment"])


@pytest.fixture
def tables() -> dict[str, pd.DataFrame]:
    return misalignment_tables(("a", "b"))


def test_the_coefficient_is_the_one_that_the_verdict_rests_on(
    tables: dict[str, pd.DataFrame],
) -> None:
    table = tables["specificity"]
    code = table.assign(fit_on="with_code", coeff=1.5)
    across = code[code["donor"] != code["receiver"]]
    table = pd.concat([across, table])
    assert chosen_coeff(table, "a", donor="b") == CHOSEN
    assert len(judged(table, "a", donor="b")) == 1
    assert chosen_coeff(table, "a") == CHOSEN
    assert np.isnan(chosen_coeff(None, "a"))
    rows = pd.DataFrame({"coeff": [0.25, 1.0, 0.25]})
    assert near(rows, 0.3)["coeff"].tolist() == [0.25, 0.25]
    assert near(rows, float("nan"))["coeff"].tolist() == [1.0]


def test_rows_over_all_kinds_are_never_mistaken_for_one_kind() -> None:
    rows = pd.DataFrame({"kind": ["all", "howto"], "code": [0.1, 0.9]})
    assert whole(rows)["code"].tolist() == [0.1]
    assert whole(rows[rows["kind"] == "howto"])["code"].tolist() == [0.9]
    assert whole(pd.DataFrame({"kind": ["chat", "howto"]})).empty


def test_adapters_and_nulls_differ_by_more_than_colour() -> None:
    assert {UNTUNED, *KINDS, *UNSEEN} == set(ADAPTERS)
    assert {*NULLS, *MAPPED_NULLS} == set(NULL_STROKES)
    for strokes in (ADAPTERS, NULL_STROKES):
        looks = [(stroke.marker, stroke.linestyle) for stroke in strokes.values()]
        colours = [(*stroke[:3],) for stroke in strokes.values()]
        assert len(set(colours)) == len(colours)
        assert strokes is NULL_STROKES or len(set(looks)) == len(looks)


@pytest.mark.parametrize("name", NAMES)
def test_a_caption_opens_with_what_is_seen(name: str, tables: dict[str, pd.DataFrame]) -> None:
    text = caption(name, tables)
    seen = text.removesuffix(plain_caption(name))
    assert seen.endswith(". ")
    assert re.search(r"\d", seen)
    assert "n/a" not in seen
    assert "misalign" not in text
    assert caption(name, {}) == plain_caption(name)


def test_what_is_seen_follows_the_tables(tables: dict[str, pd.DataFrame]) -> None:
    assert "2 of 2 within, 0 of 2 across" in caption("topology", tables)
    table = tables["specificity"]
    own = (table["donor"] == "b") & (table["receiver"] == "b")
    table.loc[own, "verdict"] = "inconclusive"
    assert "1 of 2 within" in caption("topology", tables)
    assert "; after chat's own first token 0." in caption("steering_dose", tables)
    assert "6 of 8 nulls reach v's KL, at 3 times" in caption("steering_equal_kl", tables)
    tables["ridge_maps"]["cosine_null_high"] = 0.9
    assert "beyond its null in 0 of 2 ordered pairs of arch" in caption("ridge_maps", tables)


def test_models_of_one_architecture_are_a_sentence_of_their_own(
    tables: dict[str, pd.DataFrame],
) -> None:
    tables["ridge_maps"]["same_architecture"] = tables["ridge_maps"]["donor"] == "a"
    text = caption("ridge_maps", tables)
    assert "in 1 of 1 ordered pairs of architectures and 1 of 1 between models of one" in text
    for name in ("specificity", "topology"):
        table = tables[name]
        table.loc[(table["donor"] == "a") & (table["receiver"] == "b"), "scope"] = KIN
    text = caption("topology", tables)
    assert "0 of 1 across, 0 of 1 within an architecture" in text
    assert "another architecture's removes 0.3 of its spillover, that of another model" in text
    assert "over 3 seeds" not in text
    tables["topology"] = tables["topology"].assign(seeds=3, asymmetry=0.08, asymmetry_p=0.74)
    assert "over 3 seeds, exchanging donor and receiver changes the share by 0.08" in caption(
        "topology", tables
    )
