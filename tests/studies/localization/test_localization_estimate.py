"""Numbers with their resamples: ratios, peaks and differences on both."""

import numpy as np
import pytest

from actshift.studies.localization.tables.effects import (
    Estimate,
    chosen_rows,
    following,
    peak_of,
)


def estimate(*rows: tuple[float, list[float]], clusters: int = 9) -> Estimate:
    return Estimate(
        np.array([value for value, _ in rows]), np.array([drawn for _, drawn in rows]), clusters
    )


CURVE = estimate((1.0, [1.0, 1.0, 3.0]), (2.0, [0.5, 2.0, 2.0]))


def test_the_peak_is_taken_anew_on_each_resample() -> None:
    top, places, place = peak_of(CURVE)
    assert (place, places.tolist()) == (1, [0, 1, 0])
    assert (top.value.tolist(), top.draws.tolist()) == ([2.0], [[1.0, 2.0, 3.0]])
    other = estimate((10.0, [11.0, 12.0, 13.0]), (20.0, [21.0, 22.0, 23.0]))
    there = chosen_rows(other, places, place)
    assert (there.value.tolist(), there.draws.tolist()) == ([20.0], [[11.0, 22.0, 13.0]])


def test_a_ratio_is_resampled_as_a_ratio() -> None:
    ratio = CURVE.over(estimate((4.0, [2.0, 4.0, 8.0])))
    assert ratio.value.tolist() == [0.25, 0.5]
    assert ratio.draws.tolist() == [[0.5, 0.25, 0.375], [0.25, 0.5, 0.25]]


@pytest.mark.parametrize("below", [(1.0, [-1.0, 1.0, 2.0]), (0.0, [0.0, 0.0, 0.0])])
def test_a_ratio_to_what_may_be_nothing_is_none(below: tuple[float, list[float]]) -> None:
    ratio = CURVE.over(estimate(below))
    assert np.isnan(ratio.value).all()
    assert np.isnan(ratio.ends).all()


def test_each_row_minus_the_one_before() -> None:
    steps = following(CURVE)
    assert steps.value.tolist() == [1.0, 1.0]
    assert steps.draws.tolist() == [[1.0, 1.0, 3.0], [-0.5, 1.0, -1.0]]


def test_one_cluster_or_a_missing_resample_has_no_interval() -> None:
    assert np.isnan(estimate((1.0, [1.0, 1.0]), clusters=1).ends).all()
    some = estimate((1.0, [1.0, np.nan]), (2.0, [2.0, 2.0]))
    assert np.isnan(some.ends[0]).all()
    assert some.ends[1].tolist() == [2.0, 2.0]


def test_no_effect_over_a_negative_gap_is_a_plain_zero() -> None:
    (row,) = estimate((0.0, [0.0, 0.0])).over(estimate((-2.0, [-2.0, -1.0]))).columns("share")
    assert [str(end) for end in row.values()] == ["0.0"] * 3
