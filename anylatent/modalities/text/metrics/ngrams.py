"""Figures of tokens alone: distributions of n-grams, lengths, and distances between two texts.

An n-gram is n neighbouring tokens of one text. Nothing marks where a text begins or ends, so a text
of fewer than n tokens has none.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

Grams: TypeAlias = Counter[tuple[int, ...]]
"""How often each n-gram occurs."""


def grams(texts: Iterable[Sequence[int]], n: int) -> Grams:
    """The n-grams of some texts, given as token ids."""
    if n < 1:
        raise ValueError(f"n-grams have one token at least, got n = {n}")
    shifted = ((text[place:] for place in range(n)) for text in texts)
    return Counter(gram for pieces in shifted for gram in zip(*pieces, strict=False))


def divergence(a: Grams, b: Grams) -> float:
    """The Jensen-Shannon divergence of two empirical distributions, in bits.

    H((p + q)/2) − (H(p) + H(q))/2 (Lin 1991): 0 for equal ones, 1 where no n-gram is in both. NaN
    where one is empty. It is biased: two finite samples of one law are at a positive distance,
    which falls as they grow, so only figures of equal numbers of texts compare.
    """
    if not a or not b:
        return math.nan
    return (_against_mixture(a, b) + _against_mixture(b, a)) / 2


def _against_mixture(a: Grams, b: Grams) -> float:
    """KL(p ‖ (p + q)/2) in bits."""
    total, other = a.total(), b.total()
    shares = ((count / total, b[gram] / other) for gram, count in a.items())
    return math.fsum(p * math.log2(2 * p / (p + q)) for p, q in shares)


def distinct(counts: Grams) -> float:
    """Different n-grams as a share of all (1510.03055); NaN where there are none.

    It falls as texts are added, so only figures of equal numbers of texts compare.
    """
    return len(counts) / counts.total() if counts else math.nan


def length_distance(a: Tensor, b: Tensor) -> float:
    """The Wasserstein-1 distance of two sets of lengths (N,) and (M,), in tokens.

    In one dimension ∫ |F(x) − G(x)| dx of the distribution functions; lengths are whole numbers.
    """
    size = int(torch.cat([a, b]).max()) + 1
    rise = [torch.bincount(x, minlength=size).double().cumsum(0) / len(x) for x in (a, b)]
    return float((rise[0] - rise[1]).abs().sum())


def edit_distance(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens must be put in, taken out or replaced to make `b` of `a` (Levenshtein 1966).

    Row by row; within a row the least over tokens put in is a running minimum, taken at once.
    """
    target, places = np.asarray(b, dtype=np.int64), np.arange(len(b) + 1)
    row = places.copy()
    for count, token in enumerate(a, start=1):
        kept = row[:-1] + (target != token)
        least = np.concatenate([[count], np.minimum(row[1:] + 1, kept)])
        row = np.minimum.accumulate(least - places) + places
    return int(row[-1])
