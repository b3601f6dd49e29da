"""Matrices of cases: by default every value is tried, in the slow run every combination."""

import itertools

import pytest


def covering(*axes):
    """All combinations of the axes, as parameters of a test; those off the diagonal are `slow`.

    The diagonal has as many cases as the longest axis, and goes through the others in turns, so
    that each value of each axis is met.
    """
    axes = [list(axis) for axis in axes]
    turns = range(max(map(len, axes)))
    kept = {tuple(turn % len(axis) for axis in axes) for turn in turns}
    found = []
    for places in itertools.product(*(range(len(axis)) for axis in axes)):
        values = [axis[place] for axis, place in zip(axes, places, strict=True)]
        marks = () if places in kept else (pytest.mark.slow,)
        found.append(pytest.param(*values, marks=marks, id="-".join(map(_label, values))))
    return found


def in_turns(values, every):
    """All values; one of `every` so many by default, the first among them, the others `slow`."""
    return [
        pytest.param(value, marks=() if turn % every == 0 else (pytest.mark.slow,))
        for turn, value in enumerate(values)
    ]


def _label(value):
    """Of a tuple, its first."""
    return str(value[0] if isinstance(value, tuple) else value)
