"""n-grams, lengths and edits by hand."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anylatent.modalities.text.metrics import (
    distinct,
    divergence,
    edit_distance,
    grams,
    length_distance,
)

IDS = st.lists(st.integers(0, 3), max_size=8)
EVERY = settings(deadline=None, derandomize=True, max_examples=60)
SETS = st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=8), min_size=1, max_size=6)


# ---- n-grams ----------------------------------------------------------------------------------
def test_ngrams_stay_within_a_text() -> None:
    texts = [[1, 2, 1, 2], [7], [], [2, 7]]
    assert grams(texts, 1) == {(1,): 2, (2,): 3, (7,): 2}
    assert grams(texts, 2) == {(1, 2): 2, (2, 1): 1, (2, 7): 1}
    assert grams(texts, 4) == {(1, 2, 1, 2): 1}
    assert not grams(texts, 5)
    with pytest.raises(ValueError, match="got n = 0"):
        grams(texts, 0)


def test_divergence_in_closed_form() -> None:
    """p = (1/2, 1/2, 0), q = (1/2, 0, 1/2): half of either is in the other, so 1/2 bit.

    p = (1), q = (1/4, 3/4): H(5/8, 3/8) − H(1/4, 3/4)/2.
    """
    assert divergence(grams([[0, 1]], 1), grams([[0, 2]], 1)) == pytest.approx(0.5, abs=1e-12)
    a, b = grams([[0]], 1), grams([[0, 1, 1, 1]], 1)
    expected = _entropy(5 / 8, 3 / 8) - _entropy(1 / 4, 3 / 4) / 2
    assert divergence(a, b) == pytest.approx(expected, abs=1e-12)
    assert divergence(grams([[0, 0]], 2), grams([[0, 1]], 2)) == 1


def _entropy(*shares):
    return -sum(p * math.log2(p) for p in shares)


@EVERY
@given(SETS, SETS, st.integers(1, 2))
def test_divergence_is_a_symmetric_distance_in_bits(a, b, n) -> None:
    p, q = grams(a, n), grams(b, n)
    assert divergence(p, q) == pytest.approx(divergence(q, p), abs=1e-12)
    assert -1e-12 < divergence(p, q) < 1 + 1e-12
    assert divergence(p, p) == 0
    assert divergence(p, grams(3 * a, n)) == pytest.approx(0, abs=1e-12)  # shares, not counts
    mixture = _entropy(*[(p[g] / p.total() + q[g] / q.total()) / 2 for g in {*p, *q}])
    own = [_entropy(*[count / c.total() for count in c.values()]) for c in (p, q)]
    assert divergence(p, q) == pytest.approx(mixture - sum(own) / 2, abs=1e-9)


def test_what_has_no_ngrams_has_no_figure() -> None:
    some, none = grams([[1, 2]], 2), grams([[1]], 2)
    assert math.isnan(divergence(some, none)) and math.isnan(divergence(none, some))
    assert math.isnan(distinct(none))


def test_distinct() -> None:
    assert distinct(grams([[1, 1, 1, 2]], 1)) == 1 / 2
    assert distinct(grams([[1, 1, 1, 2]], 2)) == 2 / 3
    assert distinct(grams([[1, 2], [1, 2], [3, 4]], 2)) == 2 / 3  # over the set, not per text


# ---- lengths ----------------------------------------------------------------------------------
def test_length_distance_in_closed_form() -> None:
    a = torch.tensor([3, 5, 9])
    assert length_distance(a, a) == 0
    assert length_distance(a, a + 4) == pytest.approx(4)
    assert length_distance(torch.tensor([0, 0]), torch.tensor([1, 4])) == pytest.approx(2.5)
    # of 0 once and of 6 twice, against 6 alone: a third moves by 6
    assert length_distance(torch.tensor([0, 6, 6]), torch.tensor([6])) == pytest.approx(2)


@EVERY
@given(st.lists(st.integers(0, 9), min_size=1), st.lists(st.integers(0, 9), min_size=1))
def test_length_distance_is_scipys(a, b) -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    found = length_distance(torch.tensor(a), torch.tensor(b))
    assert found == pytest.approx(stats.wasserstein_distance(a, b), abs=1e-9)


# ---- edits ------------------------------------------------------------------------------------
def test_edit_distance_by_hand() -> None:
    assert edit_distance([*map(ord, "kitten")], [*map(ord, "sitting")]) == 3
    assert edit_distance([], [1, 2, 3]) == edit_distance([1, 2, 3], []) == 3
    assert edit_distance([], []) == 0
    assert edit_distance([1, 2, 3, 4], [2, 3, 4, 5]) == 2  # a shift is two edits


@EVERY
@given(IDS, IDS)
def test_edit_distance_is_the_recursion(a, b) -> None:
    @cache
    def least(i, j):
        if not i or not j:
            return i + j
        replaced = least(i - 1, j - 1) + (a[i - 1] != b[j - 1])
        return min(replaced, least(i - 1, j) + 1, least(i, j - 1) + 1)

    assert edit_distance(a, b) == least(len(a), len(b))
