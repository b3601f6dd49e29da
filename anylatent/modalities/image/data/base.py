"""What all data sets of pictures share: pictures on disk, and a split that leaks nothing."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from anylatent.core.modality import Data, Item
from anylatent.core.support.columns import Columns
from anylatent.core.support.digests import number_of
from anylatent.core.support.disk_cache import digest
from anylatent.core.support.shards import Shards, rows_of
from anylatent.core.support.stored import Stored, cached_rows
from anylatent.modalities.shared.layout import HELD_OUT, TRAIN
from anylatent.modalities.shared.splits import by_quota, check_fraction


@dataclass(frozen=True, eq=False)
class Table:
    """All pictures of a data set, (N, C, H, W) uint8, and their N-long columns.

    The pictures stay on disk, once for all processes of a machine. `groups` tells which pictures
    are near copies of one another, `strata` what the held-out part should have in the same
    proportions as the whole. `sources` has a number of 64 bits for each picture, the same in
    whatever size it is here. `parts` names each picture's part where the data have a split of
    their own, "train" or "held_out".
    """

    pixels: Stored
    columns: Mapping[str, Sequence[Any]]
    groups: Sequence[str]
    strata: Sequence[int]
    sources: Sequence[int]
    parts: Sequence[str] = ()

    def rows(self, part: str) -> list[int]:
        """Those of a part of the data's own split."""
        return [row for row, own in enumerate(self.parts) if own == part]


class Pictures(Dataset[Item]):
    """Some rows of a table. An item has `image`, (C, H, W) float in [-1, 1], and the columns.
    `sources` tells items apart, in whatever size they are."""

    def __init__(self, table: Table, rows: Sequence[int]) -> None:
        self._stored = table.pixels.select(rows)
        self.sources = torch.tensor([table.sources[row] for row in rows], dtype=torch.int64)
        self.columns = {name: [c[row] for row in rows] for name, c in table.columns.items()}

    def __len__(self) -> int:
        return len(self._stored)

    @property
    def pixels(self) -> Tensor:
        """All of them in memory, (N, C, H, W) uint8."""
        return self._stored[range(len(self))]

    def __getitem__(self, index: int) -> Item:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        for index in indices:
            if not -len(self) <= index < len(self):
                raise IndexError(f"picture {index} of {len(self)}")
        images = self._stored[indices].float() / 127.5 - 1
        columns = self.columns.items()
        return [
            {"image": image, **{name: column[index] for name, column in columns}}
            for index, image in zip(indices, images, strict=True)
        ]


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
        check_fraction(held_out)
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

    def stored(
        self,
        name: str,
        made_by: object,
        size: int,
        make: Callable[[range], Iterable[Columns]],
        description: str,
    ) -> Shards:
        """The columns of all pictures, on disk; those of a range are made where they are not there,
        a few at a time."""
        rows = rows_of(math.prod(self.shape))
        return cached_rows(f"{name}-{self.shape[1]}", made_by, size, rows, make, description)

    @cached_property
    def _parts(self) -> tuple[Pictures, Pictures]:
        table = self.table()
        if table.parts:
            return Pictures(table, table.rows(TRAIN)), Pictures(table, table.rows(HELD_OUT))
        how = (self._fraction, self._seed, "pictures")
        train, held_out = by_quota(table.groups, table.strata, *how)
        return Pictures(table, train), Pictures(table, held_out)


def numbers(data: PictureData, names: Iterable[str]) -> list[int]:
    """The sources of pictures that have names in a data set which never changes."""
    return [number_of(f"{type(data).__name__} {name}".encode()) for name in names]
