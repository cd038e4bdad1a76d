"""The norm of the shift against a shift that is known."""

import numpy as np
import pytest

from actshift.studies.example.stage import shift_norm


def test_a_shift_of_known_norm_is_recovered() -> None:
    base = np.full((6, 4), 2.0, dtype=np.float32)
    tuned = base + np.array([3.0, 0.0, 4.0, 0.0], dtype=np.float32)
    measured = shift_norm(base, tuned)
    assert measured["norm"] == pytest.approx(5.0)
    assert measured["relative"] == pytest.approx(5.0 / 4.0)
    assert measured["norm_low"] == pytest.approx(5.0)


def test_equal_models_have_no_shift() -> None:
    base = np.ones((3, 4), dtype=np.float32)
    assert shift_norm(base, base)["norm"] == 0.0
