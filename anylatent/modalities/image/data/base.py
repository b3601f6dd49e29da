"""What all data sets of pictures share: pictures in memory, and a split that leaks nothing."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from anylatent.core.modality import Data, Item
from anylatent.core.support.disk_cache import digest
from anylatent.modalities.shared.splits import by_quota, check_fraction


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

    @cached_property
    def _parts(self) -> tuple[Pictures, Pictures]:
        table = self.table()
        how = (self._fraction, self._seed, "pictures")
        train, held_out = by_quota(table.groups, table.strata, *how)
        return Pictures(table, train), Pictures(table, held_out)
