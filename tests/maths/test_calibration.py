from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import calibration as slow

from actshift.maths.calibration import (
    Network,
    accuracy,
    compliance,
    orthogonality,
    project_out,
)
from actshift.maths.frames import random_frame
from actshift.maths.spectrum import spectrum

shapes = st.tuples(st.integers(2, 30), st.integers(1, 12))


def rows_of(shape: tuple[int, int], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape) * np.exp(rng.normal(size=shape[1]))


def random_network(seed: int, bias: float) -> Network:
    rng = np.random.default_rng(seed)
    sizes = [5, 8, 8, 1]
    weights = tuple(rng.normal(size=(out, inp)) for inp, out in pairwise(sizes))
    biases = (rng.normal(size=8), rng.normal(size=8), np.array([bias]))
    return Network(weights, biases)


@given(shapes, st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_orthogonality_equals_the_definition(shape: tuple[int, int], seed: int) -> None:
    rows = rows_of(shape, seed)
    assert orthogonality(rows) == pytest.approx(slow.orthogonality(rows), rel=1e-9, abs=1e-12)


def test_orthogonality_at_its_ends() -> None:
    n, d = 12, 4
    frame = np.linalg.qr(np.random.default_rng(0).normal(size=(n, d)))[0]
    assert orthogonality(frame) == pytest.approx(1 / d - 1 / n)
    assert orthogonality(np.ones((n, d))) == pytest.approx(1 - 1 / n)
    assert orthogonality(np.zeros((n, d))) == 0.0


@given(st.integers(0, 999), st.integers(0, 8))
@settings(max_examples=40, deadline=None)
def test_projection_is_idempotent_and_leaves_nothing_in_the_span(seed: int, rank: int) -> None:
    rows = rows_of((10, 8), seed)
    basis = random_frame(8, rank, np.random.default_rng(seed))
    once = project_out(rows, basis)
    np.testing.assert_allclose(basis.T @ basis, np.eye(rank), atol=1e-12)
    np.testing.assert_allclose(once @ basis, 0.0, atol=1e-9)
    np.testing.assert_allclose(project_out(once, basis), once, atol=1e-9)


@pytest.mark.parametrize("bias", [-0.3, 0.3])
def test_no_projection_changes_nothing_and_a_full_one_leaves_the_bias(bias: float) -> None:
    net = random_network(1, bias)
    last = net.hidden(rows_of((40, 5), 2))[-1]
    full = spectrum(rows_of((40, 8), 3), k=8).left
    none = full[:, :0]
    np.testing.assert_array_equal(net.logits(project_out(last, none)), net.logits(last))
    limit = net.logits(project_out(last, full))
    np.testing.assert_allclose(limit, bias, atol=1e-9)
    assert compliance(limit) == float(bias <= 0)
    assert net.bias == bias


def test_hidden_layers_are_relu_layers_in_turn() -> None:
    net = random_network(4, 0.0)
    x = rows_of((3, 5), 5)
    expected = x
    for i, layer in enumerate(net.hidden(x)):
        units = list(zip(net.weights[i], net.biases[i], strict=True))
        expected = np.array([[max(0.0, float(w @ r + b)) for w, b in units] for r in expected])
        np.testing.assert_allclose(layer, expected, atol=1e-12)
    assert len(net.hidden(x)) == 2


def test_a_logit_of_zero_complies() -> None:
    logits = np.array([-1.0, 0.0, 2.0, 3.0])
    assert compliance(logits) == 0.5
    assert accuracy(logits, np.array([False, True, True, True])) == 0.75
