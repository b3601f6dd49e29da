"""Splits: groups whole, sizes right, nobody moved by others; and the same for good."""

import hashlib
import json
import random
from collections import Counter

import pytest

from anylatent.core.support.files import UserError
from anylatent.modalities.shared.splits import Share, by_quota, by_shares, by_threshold, joined
from anylatent.modalities.text.data.documents import PARTS
from anylatent.modalities.text.data.documents import split as split_texts


def quota(groups, strata, fraction, seed):
    return by_quota(groups, strata, fraction, seed, "pictures")


def threshold(groups, fraction, seed):
    return by_threshold(groups, fraction, seed, "it", "molecules")


# ---- the same for good ------------------------------------------------------------------------
NAMES = [f"item {k // 3}" for k in range(700)]


def digest(value):
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def test_splits_never_change():
    """A model must never be judged on what it learned from, whenever that was."""
    strata = [k // 3 % 7 for k in range(700)]
    assert digest(quota(NAMES, strata, 0.1, 0)) == "90bf6d74dd96439f"
    assert digest(quota(NAMES, strata, 0.25, 5)) == "b79880acc1f64d54"
    assert digest(threshold(NAMES, 0.1, 0)) == "16a7b921429d4ff1"
    assert digest(threshold(NAMES, 0.25, 5)) == "5c4a72833ec1fc24"
    parts = [(name, list(rows)) for name, rows in split_texts(NAMES, "it").items()]
    assert digest(parts) == "0dbc58f3ebcbe5a3"


# ---- by quota ---------------------------------------------------------------------------------
def test_a_quota_keeps_groups_whole_and_proportions():
    groups = [f"g{i // 2}" for i in range(400)]
    strata = [0] * 200 + [1] * 120 + [2] * 80
    train, held_out = quota(groups, strata, 0.1, seed=0)
    assert sorted(train + held_out) == list(range(400))
    assert not {groups[i] for i in train} & {groups[i] for i in held_out}
    assert Counter(strata[i] for i in held_out) == {0: 20, 1: 12, 2: 8}


def test_the_total_is_right_for_many_small_strata_and_none_is_emptied():
    strata = [i // 3 for i in range(120)] + [40]  # 40 classes of three pictures, one of one
    train, held_out = quota([str(i) for i in range(121)], strata, 0.2, seed=3)
    assert len(held_out) == round(121 * 0.2)
    assert set(strata) == {strata[i] for i in train}


def test_a_quota_follows_the_seed_and_hardly_the_other_groups():
    names = [str(i) for i in range(300)]
    held = set(quota(names, [0] * 300, 0.1, seed=0)[1])
    assert held == set(quota(names, [0] * 300, 0.1, seed=0)[1])
    assert held != set(quota(names, [0] * 300, 0.1, seed=1)[1])
    more = set(quota([*names, "new"], [0] * 301, 0.1, seed=0)[1])
    assert len(held - more) <= 1


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_quota_of_too_few_says_so(count):
    with pytest.raises(UserError, match=f"{count} pictures .* too small to hold out 0.1"):
        quota([str(i) for i in range(count)], [0] * count, 0.1, seed=0)


def test_a_quota_of_nothing():
    assert quota(["a", "b", "a"], [0, 1, 0], 0, seed=0) == ([0, 1, 2], [])


# ---- by threshold -----------------------------------------------------------------------------
def test_a_threshold_keeps_groups_whole_and_the_rest_in_place():
    groups = [str(k // 3) for k in range(3000)]
    train, held_out = threshold(groups, 0.1, 0)
    assert sorted(train + held_out) == list(range(3000))
    assert not {groups[i] for i in train} & {groups[i] for i in held_out}
    assert len(held_out) == pytest.approx(300, abs=60)
    more = threshold([*groups, "new"], 0.1, 0)[1]
    assert set(held_out) == set(more) - {3000}
    assert held_out != threshold(groups, 0.1, 1)[1]


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_a_threshold_leaves_no_part_empty(count, fraction):
    train, held_out = threshold([str(k) for k in range(count)], fraction, 0)
    assert len(train) >= 1 and len(held_out) >= 1 and len(train) + len(held_out) == count


def test_a_threshold_of_one_group_or_a_wrong_fraction_is_an_error():
    with pytest.raises(UserError, match="it: 2 molecules, of which 1 different"):
        threshold(["a", "a"], 0.1, 0)
    with pytest.raises(UserError, match="held_out=1: a fraction between 0 and 1"):
        threshold(["a", "b"], 1.0, 0)


def test_a_threshold_of_nothing():
    assert threshold(["a", "b", "a"], 0, 0) == ([0, 1, 2], [])
    with pytest.raises(UserError, match="it: 0 molecules"):
        threshold([], 0, 0)


# ---- by shares --------------------------------------------------------------------------------
def test_shares_keep_copies_together_and_the_rest_in_place():
    texts = [str(k // 3) for k in range(3000)]
    parts = split_texts(texts, "it")
    assert sorted(row for rows in parts.values() for row in rows) == list(range(3000))
    sets = [{texts[row] for row in rows} for rows in parts.values()]
    assert [len(found) for found in sets] == [100, 200, 700]
    assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
    backwards = split_texts(texts[::-1], "it")
    for name, rows in backwards.items():
        assert {texts[::-1][row] for row in rows} == {texts[row] for row in parts[name]}


def test_shares_of_few_leave_no_part_empty():
    for count in (3, 4, 10):
        parts = split_texts([str(k) for k in range(count)], "it")
        assert all(parts.values()) and sum(map(len, parts.values())) == count


def test_at_most_five_thousand_are_held_out():
    parts = split_texts([str(k) for k in range(60_000)], "it")
    assert list(parts) == list(PARTS) == ["held_out", "judged_by", "train"]
    assert [len(parts[name]) for name in PARTS] == [5_000, 12_000, 43_000]


def test_any_number_of_parts_and_too_few_groups_for_them():
    shares = {"test": Share(0.25), "choose": Share(0.25, most=2)}
    parts = by_shares([str(k) for k in range(40)], shares, "train", "it", "clips")
    assert [len(rows) for rows in parts.values()] == [10, 2, 28]
    message = "it: 3 clips, of which 2 different ones, are too few: at least 3 are needed, for test"
    with pytest.raises(UserError, match=message):
        by_shares(["a", "b", "a"], shares, "train", "it", "clips")


@pytest.mark.parametrize("seed", range(20))
def test_joined_groups_are_the_components_of_both_names(seed):
    """In any order of rows, against the closure of "shares a name with" by hand."""
    rng = random.Random(seed)
    rows = [(f"g{rng.randrange(12)}", f"o{rng.randrange(12)}") for _ in range(15)]
    found = dict(zip(rows, joined(*zip(*rows, strict=True)), strict=True))
    for start in rows:
        reached = {start}
        while more := {r for r in rows for q in reached if r[0] == q[0] or r[1] == q[1]} - reached:
            reached |= more
        assert {found[row] for row in reached} == {min(group for group, _ in reached)}
    rng.shuffle(rows)
    assert dict(zip(rows, joined(*zip(*rows, strict=True)), strict=True)) == found
