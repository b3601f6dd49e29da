"""Rows that were computed once and stay on disk, for data that are too many for memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import torch
from torch import Tensor

from anylatent.core.support.cache_entries import ABOUT, shrink, summary, touch, use
from anylatent.core.support.columns import Columns
from anylatent.core.support.disk_cache import cache_directory, digest
from anylatent.core.support.shards import Shards


def cached_rows(
    name: str,
    made_by: object,
    size: int,
    rows: int,
    make: Callable[[range], Iterable[Columns]],
    description: str,
    about: object = None,
) -> Shards:
    """Columns of `size` items, `rows` to a file, in the cache directory under a name made of the
    plain values that they were made by; what is not there, `make` makes. See `Shards.fill`.

    They stay as long as the shards are in use. `about` tells a person what made them, where
    `made_by` does not.
    """
    path = cache_directory() / f"{name}-{digest(made_by)}"
    shards = Shards(path, size, rows, use(path))
    if shards.fill(make, description) or not (path / ABOUT).exists():
        with suppress(OSError):
            (path / ABOUT).write_text(summary(about or made_by), encoding="utf-8")
        shrink(path.parent, path)
    touch(path / ABOUT)
    return shards


class Stored:
    """Some rows of a column of fixed size; indexed by a list of numbers, it reads those alone."""

    def __init__(self, shards: Shards, name: str, rows: Tensor | None = None) -> None:
        self._shards, self._name = shards, name
        self._rows = torch.arange(len(shards)) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    def select(self, rows: Sequence[int]) -> Stored:
        """Some of the rows, in that order."""
        chosen = torch.tensor(rows, dtype=torch.long)
        return Stored(self._shards, self._name, self._rows[chosen])

    def __getitem__(self, rows: Sequence[int]) -> Tensor:
        column = self._shards.take(self._name, self._rows[torch.tensor(rows)])
        assert isinstance(column, Tensor)
        return column
