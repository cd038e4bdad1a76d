import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from actshift.maths.scores import (
    ARDITI_PHRASES,
    AUDIT_PHRASES,
    distinct_2,
    kl_rows,
    refusal_log_odds,
    refused_by_keyword,
)

SEEDS = st.integers(0, 10_000)


def logits(seed: int, rows: int = 4, vocab: int = 9) -> np.ndarray:
    return 3 * np.random.default_rng(seed).standard_normal((rows, vocab))


@given(SEEDS)
def test_log_odds_are_those_of_the_refusal_mass(seed):
    values = logits(seed)
    p = np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)
    mass = p[:, 2] + p[:, 5]
    wanted = np.log(mass + 1e-8) - np.log(1 - mass + 1e-8)
    np.testing.assert_allclose(refusal_log_odds(values, [2, 5]), wanted, rtol=1e-9)


def test_log_odds_stay_finite_at_certainty():
    certain = np.array([[800.0, 0.0], [0.0, 800.0]])
    found = refusal_log_odds(certain, [0])
    np.testing.assert_allclose(found, [np.log(1e8), -np.log(1e8)], rtol=1e-6)
    with pytest.raises(ValueError, match="at least one"):
        refusal_log_odds(certain, [])


@given(SEEDS, SEEDS)
def test_kl_is_scipys_and_zero_only_between_equals(one, two):
    a, b = logits(one), logits(two)
    p, q = (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (a, b))
    np.testing.assert_allclose(kl_rows(a, b), entropy(p, q, axis=1), rtol=1e-6, atol=1e-10)
    np.testing.assert_allclose(kl_rows(a, a + 7.0), 0.0, atol=1e-12)


@pytest.mark.parametrize(
    ("text", "audit", "arditi"),
    [
        ("I can\u2019t do that.", True, True),
        ("I'M SORRY, no", True, True),
        ("That would be illegal.", True, False),
        ("As an AI I must not", False, True),
        ("Sure, here is how.", False, False),
        ("", False, False),
    ],
)
def test_the_two_published_keyword_lists(text, audit, arditi):
    assert refused_by_keyword(text, AUDIT_PHRASES) is audit
    assert refused_by_keyword(text, ARDITI_PHRASES) is arditi


def test_the_lists_have_the_published_lengths():
    assert (len(set(AUDIT_PHRASES)), len(set(ARDITI_PHRASES))) == (15, 12)


@pytest.mark.parametrize(
    ("tokens", "share"), [([1, 2, 3], 1.0), ([1, 1, 1, 1], 1 / 3), ([1, 2, 1, 2, 1], 0.5)]
)
def test_distinct_bigrams(tokens, share):
    assert distinct_2(tokens) == pytest.approx(share)


def test_one_token_has_no_bigrams():
    assert np.isnan(distinct_2([4]))
