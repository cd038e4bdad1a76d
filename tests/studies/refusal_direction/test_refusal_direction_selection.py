from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actshift.studies.refusal_direction.stage import Candidate, choose, missed_filters
from actshift.studies.refusal_direction.study import RefusalDirection

GOOD = Candidate(position=-1, layer=2, bypass=-3.0, induce=1.0, kl=0.05)
SETTINGS = RefusalDirection()


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        ({}, ()),
        ({"kl": 0.1}, ()),
        ({"kl": 0.1001}, ("kl",)),
        ({"induce": 0.0}, ()),
        ({"induce": -0.01}, ("induce",)),
        ({"layer": 7}, ()),
        ({"layer": 8}, ("layer",)),
        ({"kl": 1.0, "induce": -1.0, "layer": 9}, ("kl", "induce", "layer")),
    ],
)
def test_each_filter_at_its_limit(change, missed):
    assert missed_filters(replace(GOOD, **change), SETTINGS, n_layers=10) == missed


def test_the_last_fifth_is_cut_as_published():
    # int(0.8 * 6) = 4: layers 0 to 3 remain.
    candidates = [replace(GOOD, layer=n) for n in range(6)]
    kept = [c.layer for c in candidates if not missed_filters(c, SETTINGS, n_layers=6)]
    assert kept == [0, 1, 2, 3]


def test_a_better_score_does_not_buy_off_a_filter():
    tempting = replace(GOOD, bypass=-50.0, kl=0.2)
    choice = choose([tempting, GOOD], SETTINGS, n_layers=10)
    assert (choice.index, choice.missed) == (1, ())


def test_without_a_survivor_the_least_violating_is_shown_with_what_it_misses():
    worst = replace(GOOD, bypass=-50.0, kl=1.0, induce=-1.0)
    near = replace(GOOD, bypass=-1.0, induce=-1.0)
    nearer = replace(GOOD, bypass=-2.0, kl=0.2)
    choice = choose([worst, near, nearer], SETTINGS, n_layers=10)
    assert (choice.index, choice.missed) == (2, ("kl",))


def test_nothing_to_choose_from():
    with pytest.raises(ValueError, match="no candidates"):
        choose([], SETTINGS, n_layers=4)


SCORES = st.floats(-5, 5, allow_nan=False)


@given(
    st.lists(
        st.builds(
            Candidate,
            position=st.integers(-5, -1),
            layer=st.integers(0, 9),
            bypass=SCORES,
            induce=SCORES,
            kl=st.floats(0, 1),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_no_survivor_has_a_lower_bypass_score(candidates):
    choice = choose(candidates, SETTINGS, n_layers=10)
    alive = [c for c in candidates if not missed_filters(c, SETTINGS, n_layers=10)]
    assert bool(alive) == (choice.missed == ())
    if alive:
        assert candidates[choice.index].bypass == min(c.bypass for c in alive)
