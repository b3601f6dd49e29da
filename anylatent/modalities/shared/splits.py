"""Splits that leak nothing: near copies form a group, and a group stays on one side.

Who is held out hangs on the names of the groups and the seed alone, neither on the platform nor on
the order of files. There are three rules, and data never change theirs, since a model must never be
judged on what it learned from:

- `by_quota`: the same number of groups in the same proportion of every class;
- `by_threshold`: each group by its own hash, so that adding some moves no other across;
- `by_shares`: any number of parts of a given size.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from anylatent.core.support.files import UserError

Rows = list[int]


def check_fraction(fraction: float) -> None:
    """Raises UserError unless 0 <= fraction < 1."""
    if not 0 <= fraction < 1:
        raise UserError(f"held_out={fraction:g}: a fraction between 0 and 1, or 0 for none")


def joined(groups: Sequence[str], others: Sequence[str]) -> list[str]:
    """Groups for rows that belong together by either of two names: what shares one of them, also by
    way of third rows, has one group, of its groups the first by name in any order of rows."""
    first: dict[str, str] = {}
    into: dict[str, str] = {}

    def root(group: str) -> str:
        while group in into:
            group = into[group]
        return group

    for group, other in zip(groups, others, strict=True):
        known, own = root(first.setdefault(other, group)), root(group)
        if known != own:
            into[max(known, own)] = min(known, own)
    return [root(group) for group in groups]


def by_quota(
    groups: Sequence[str], strata: Sequence[int], fraction: float, seed: int, what: str
) -> tuple[Rows, Rows]:
    """Rows to learn from and rows to hold out: whole groups, the same fraction of each stratum.

    A group's stratum is that of its first row. A fraction of 0 holds nothing out; of any other,
    raises UserError where either part is empty. `what` the rows are is for its message.
    """
    if fraction == 0:
        return list(range(len(groups))), []
    stratum_of: dict[str, int] = {}
    for group, stratum in zip(groups, strata, strict=True):
        stratum_of.setdefault(group, stratum)
    members: dict[int, list[str]] = {}
    for group, stratum in stratum_of.items():
        members.setdefault(stratum, []).append(group)
    quotas = _quotas({stratum: len(names) for stratum, names in members.items()}, fraction)
    gone: set[str] = set()
    for stratum, names in members.items():
        gone.update(_ordered(names, f"{seed}/")[: quotas[stratum]])
    train, held_out = _apart(groups, gone)
    if not train or not held_out:
        raise UserError(
            f"a data set of {len(groups)} {what} ({len(stratum_of)} that are no near copies of "
            f"one another) is too small to hold out {fraction:g} of it: give more {what} or "
            "another held_out"
        )
    return train, held_out


def by_threshold(
    groups: Sequence[str], fraction: float, seed: int, where: str, what: str
) -> tuple[Rows, Rows]:
    """Rows to learn from and rows to hold out; a group is in the second by a hash of its name.

    Where the hash leaves a part of a small set empty, the group nearest to it is moved. A fraction
    of 0 holds nothing out; of any other, raises UserError for a single group.
    """
    check_fraction(fraction)
    if fraction == 0 and groups:
        return list(range(len(groups))), []
    ranks = {group: _number(f"{seed}/{group}") for group in dict.fromkeys(groups)}
    if len(ranks) < 2:
        wanted = "at least one is needed to learn from and another to hold out"
        raise _too_few(where, groups, what, wanted)
    ordered = sorted(ranks.values())
    limit = min(max(fraction, ordered[1]), ordered[-1])
    return _apart(groups, {group for group, rank in ranks.items() if rank < limit})


@dataclass(frozen=True)
class Share:
    """A part of the different groups: `fraction` of them, one at least, `most` at most."""

    fraction: float
    most: int | None = None

    def __call__(self, count: int) -> int:
        wanted = max(1, round(self.fraction * count))
        return wanted if self.most is None else min(wanted, self.most)


def by_shares(
    groups: Sequence[str], shares: Mapping[str, Share], rest: str, where: str, what: str
) -> dict[str, Sequence[int]]:
    """Rows by part: those of `shares` in their order, then the rest, which has the name `rest`.

    Groups are ordered by a hash of their names and cut there; rows come in the order of the hash,
    so that the first of a part are a fair choice. Raises UserError where there are fewer groups
    than parts.
    """
    order, starts = _by_hash(groups)
    if len(starts) <= len(shares):
        wanted = f"at least {len(shares) + 1} are needed, for {', '.join([*shares, rest])}"
        raise _too_few(where, groups, what, wanted)
    sizes = [*((name, share(len(starts))) for name, share in shares.items()), (rest, len(starts))]
    start, parts = 0, dict[str, Sequence[int]]()
    for part, size in sizes:
        first, last = (starts[k] if k < len(starts) else len(order) for k in (start, start + size))
        parts[part] = array("q", order[first:last].astype("=i8").tobytes())
        start += size
    return parts


def _by_hash(groups: Sequence[str]) -> tuple[Any, Any]:
    """The rows in the order of the hashes of their groups, and where each group begins: arrays,
    as there may be millions, of which the first 64 bits of a hash tell one from another."""
    content = bytearray()
    for group in groups:
        content += hashlib.sha256(group.encode()).digest()[:8]
    hashes = np.frombuffer(content, dtype=">u8") if content else np.empty(0, dtype=">u8")
    order = np.argsort(hashes, kind="stable")
    new = np.ones(len(order), dtype=bool)
    new[1:] = hashes[order[1:]] != hashes[order[:-1]]
    return order, np.flatnonzero(new)


def _quotas(sizes: Mapping[int, int], fraction: float) -> dict[int, int]:
    """How many of each stratum to hold out: rounded so that the total is right, never all."""
    wanted = {stratum: size * fraction for stratum, size in sizes.items()}
    quotas = {stratum: math.floor(count) for stratum, count in wanted.items()}
    missing = round(sum(wanted.values())) - sum(quotas.values())
    by_remainder = sorted(wanted, key=lambda s: (quotas[s] - wanted[s], s))
    for stratum in by_remainder[: max(missing, 0)]:
        quotas[stratum] += 1
    return {stratum: min(count, sizes[stratum] - 1) for stratum, count in quotas.items()}


def _apart(groups: Sequence[str], gone: Collection[str]) -> tuple[Rows, Rows]:
    """The rows of all other groups, and those of `gone`."""
    train = [row for row, group in enumerate(groups) if group not in gone]
    return train, [row for row, group in enumerate(groups) if group in gone]


def _ordered(names: Iterable[str], before: str = "") -> list[str]:
    return sorted(names, key=lambda name: _hash(f"{before}{name}"))


def _number(name: str) -> float:
    """A number in [0, 1) from a name."""
    return int.from_bytes(_hash(name)[:6], "big") / 2**48


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _too_few(where: str, groups: Sequence[str], what: str, wanted: str) -> UserError:
    different = len(set(groups))
    return UserError(
        f"{where}: {len(groups)} {what}, of which {different} different ones, are too few: {wanted}"
    )
