"""Many strings in one tensor; and parts of them by hash, as a table of groups would have it."""

import hashlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anylatent.core.support.files import load_weights, save_weights
from anylatent.modalities.shared.splits import Share, by_shares
from anylatent.modalities.shared.strings import Lines, Picked, tensor_lines

LINES = st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=("Cs",))))


@given(LINES)
def test_lines_are_those_that_came(lines):
    found = Lines.of(iter(lines))
    assert len(found) == len(lines) and list(found) == lines and found == lines
    assert tensor_lines(found.tensor) == lines == list(Lines(found.tensor))
    assert found[1:] == lines[1:] and found[::-2] == lines[::-2]
    if lines:
        assert found[-1] == lines[-1]
    with pytest.raises(IndexError):
        found[len(lines)]


def test_picked_ones_are_asked_for_one_by_one():
    picked = Picked(["a", "b", "c", "d"], [3, 0, 2])
    assert picked == ["d", "a", "c"] and len(picked) == 3 and picked[1:] == ["a", "c"]


@given(st.lists(st.sampled_from("abcdefghijk"), min_size=12))
def test_shares_are_those_of_groups_in_the_order_of_their_hashes(groups):
    rows = {}
    for row, group in enumerate(groups):
        rows.setdefault(group, []).append(row)
    shares = {"a": Share(0.3), "b": Share(0.2, most=2)}
    if len(rows) < 3:
        return
    ordered = sorted(rows, key=lambda group: hashlib.sha256(group.encode()).digest())
    first, second = shares["a"](len(rows)), shares["b"](len(rows))
    cuts = {"a": (0, first), "b": (first, first + second), "c": (first + second, None)}
    wanted = {k: [r for g in ordered[i:j] for r in rows[g]] for k, (i, j) in cuts.items()}
    found = by_shares(groups, shares, "c", "it", "texts")
    assert {name: list(rows) for name, rows in found.items()} == wanted


def test_tensors_that_share_memory_are_saved_apart(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    shared = {"a": base, "b": base, "c": base[1:], "d": base.T, "e": base[0].expand(5, 4)}
    save_weights(tmp_path / "x.safetensors", {**shared, "f": torch.empty(0)}, {})
    found, _ = load_weights(tmp_path / "x.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in shared.items())
    assert found["f"].shape == (0,)
