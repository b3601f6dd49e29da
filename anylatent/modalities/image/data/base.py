"""What all data sets of pictures share: pictures in memory, and a split that leaks nothing.

The split is by *group*: near copies (skin tones of one emoji) form one group and stay together.
Within each *stratum* (class) the groups are put in the order of a hash of the seed and the group's
name, and the first ones are held out. So the split depends on neither the platform nor the order
of the files, and adding a picture moves few others across.
"""

from __future__ import annotations

import hashlib
import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from anylatent.core.modality import Data, Item
from anylatent.core.support.disk_cache import digest

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Table:
    """All pictures of a data set, (N, C, H, W) uint8, and their N-long columns.

    `groups` tells which pictures are near copies of one another, `strata` what the held-out part
    should have in the same proportions as the whole.
    """

    pixels: Tensor
    columns: Mapping[str, Sequence[Any]]
    groups: Sequence[str]
    strata: Sequence[int]


class Pictures(Dataset[Item]):
    """Some rows of a table. An item has `image`, (C, H, W) float in [-1, 1], and the columns."""

    def __init__(self, table: Table, rows: Sequence[int]) -> None:
        self.pixels = table.pixels[torch.tensor(rows, dtype=torch.long)]
        self.columns = {name: [c[row] for row in rows] for name, c in table.columns.items()}

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Item:
        if not -len(self) <= index < len(self):
            raise IndexError(f"picture {index} of {len(self)}")
        image = self.pixels[index].float() / 127.5 - 1
        return {"image": image, **{name: column[index] for name, column in self.columns.items()}}


class PictureData(Data):
    """Pictures split into a training and a held-out part; subclasses say where they come from.

    `key` is everything but the split that determines the items, as plain values. `table()` is
    called once, when the first part is asked for.
    """

    def __init__(
        self,
        key: Mapping[str, object],
        shape: tuple[int, int, int],
        classes: Mapping[str, Sequence[str]],
        held_out: float,
        seed: int,
    ) -> None:
        if shape[1] < 4:
            raise ValueError(f"size must be at least 4 pixels, got {shape[1]}")
        if not 0 <= held_out < 1:
            raise ValueError(
                f"held_out is a fraction between 0 and 1, or 0 for none, got {held_out}"
            )
        self.shape = shape
        self.classes = {name: tuple(values) for name, values in classes.items()}
        self._key = {"kind": type(self).__name__, **key}
        self._fraction, self._seed = held_out, seed

    @property
    def fingerprint(self) -> str:
        return digest([self._key, self._fraction, self._seed])

    def train(self) -> Pictures:
        return self._parts[0]

    def held_out(self) -> Pictures:
        return self._parts[1]

    @abstractmethod
    def table(self) -> Table:
        """All the pictures."""

    @cached_property
    def _parts(self) -> tuple[Pictures, Pictures]:
        table = self.table()
        train, held_out = split(table.groups, table.strata, self._fraction, self._seed)
        return Pictures(table, train), Pictures(table, held_out)


def split(
    groups: Sequence[str], strata: Sequence[int], fraction: float, seed: int
) -> tuple[list[int], list[int]]:
    """Rows to learn from and rows to hold out: whole groups, the same fraction of each stratum.

    A group's stratum is that of its first row. A fraction of 0 holds nothing out; of any other,
    raises ValueError where either part is empty.
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
        gone.update(sorted(names, key=lambda name: _rank(seed, name))[: quotas[stratum]])
    train = [row for row, group in enumerate(groups) if group not in gone]
    held_out = [row for row, group in enumerate(groups) if group in gone]
    if not train or not held_out:
        raise ValueError(
            f"a data set of {len(groups)} pictures ({len(stratum_of)} that are no near copies of "
            f"one another) is too small to hold out {fraction:g} of it: give more pictures or "
            "another held_out"
        )
    return train, held_out


def _quotas(sizes: Mapping[int, int], fraction: float) -> dict[int, int]:
    """How many of each stratum to hold out: rounded so that the total is right, never all."""
    wanted = {stratum: size * fraction for stratum, size in sizes.items()}
    quotas = {stratum: math.floor(count) for stratum, count in wanted.items()}
    missing = round(sum(wanted.values())) - sum(quotas.values())
    by_remainder = sorted(wanted, key=lambda s: (quotas[s] - wanted[s], s))
    for stratum in by_remainder[: max(missing, 0)]:
        quotas[stratum] += 1
    return {stratum: min(count, sizes[stratum] - 1) for stratum, count in quotas.items()}


def _rank(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()


def progress(steps: Iterable[T], description: str, total: int) -> Iterable[T]:
    """The steps, counted by a bar on the standard error where that is a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(steps, description, total, console=console, disable=not console.is_terminal)
