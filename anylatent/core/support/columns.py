"""Columns: tensors with a common first axis, one row for each item.

A row has the same size in each item, or a length of its own; then the rows lie one after another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Ragged:
    """N rows of different lengths: `values` (L, ...) and `lengths` (N,) int64, whose sum is L."""

    values: Tensor
    lengths: Tensor

    def __post_init__(self) -> None:
        if len(self.values) != int(self.lengths.sum()):
            raise ValueError(
                f"{len(self.values)} values for rows of {int(self.lengths.sum())} altogether"
            )

    @classmethod
    def of(cls, padded: Tensor, mask: Tensor) -> Ragged:
        """The rows of `padded` (N, M, ...) where `mask` (N, M) is true."""
        return cls(padded[mask], mask.sum(1))

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def even(self) -> bool:
        """Whether all rows are of one length."""
        return int(self.lengths.min()) == int(self.lengths.max())

    def select(self, rows: Tensor) -> Ragged:
        """Some of the rows, in the order of `rows`."""
        lengths = self.lengths[rows]
        starts = (self.lengths.cumsum(0) - self.lengths)[rows]
        return Ragged(self.values[places(starts, lengths)], lengths)

    def padded(self) -> tuple[Tensor, Tensor]:
        """The rows as (N, longest, ...), zero after their end, and the mask (N, longest)."""
        mask = torch.arange(int(self.lengths.max())) < self.lengths[:, None]
        padded = self.values.new_zeros(*mask.shape, *self.values.shape[1:])
        padded[mask] = self.values
        return padded, mask


Column: TypeAlias = Tensor | Ragged
"""One row for each item: a tensor (N, ...), or rows of different lengths."""

Columns: TypeAlias = Mapping[str, Column]
"""Columns of the same items, by name."""


class Window(NamedTuple):
    """The entries `start` to before `stop` of an item of variable length."""

    item: int
    start: int
    stop: int


def places(starts: Tensor, lengths: Tensor) -> Tensor:
    """start, start + 1, ... of each row, one row after another: (Σ lengths,)."""
    shift = starts - (lengths.cumsum(0) - lengths)
    return torch.arange(int(lengths.sum())) + shift.repeat_interleave(lengths)
