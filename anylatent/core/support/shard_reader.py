"""Rows out of shards, by number, without loading a file."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from anylatent.core.support.columns import Column, Ragged
from anylatent.core.support.files import UserError
from anylatent.core.support.shard_file import ENDS, Place, memory, read_head, read_places

_OPEN_FILES = 128
_SMALL = 16  # bytes of a row, up to which a column is read once and kept, as the lengths are

Spans: TypeAlias = tuple[Tensor, Tensor]
"""First entries and ends, (N,) each."""


class ShardReader:
    """Reads items that lie in shards, `rows` to each; shard k has those from k · rows on.

    Several processes may read, also such as were forked from this one; pickled, it opens its files
    anew.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._sources: dict[int, Path | bytes] = {}
        self._places: dict[int, dict[str, Place]] = {}
        self._small: dict[str, Tensor] = {}
        self._opened()

    def _opened(self) -> None:
        self._files: dict[int, int] = {}
        weakref.finalize(self, _close, self._files)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._opened()

    def __contains__(self, number: int) -> bool:
        return number in self._places

    def add(self, number: int, source: Path | bytes) -> None:
        """A shard's file, or what would be in it; raises UserError or OSError for a damaged one."""
        if isinstance(source, bytes):
            self._places[number] = read_places(source, len(source))
        else:
            with open(source, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                self._places[number] = read_places(read_head(file), size)
        self._sources[number] = source

    # ---- rows ---------------------------------------------------------------------------------
    def names(self) -> list[str]:
        """The columns."""
        return [name for name in next(iter(self._places.values())) if not name.endswith(ENDS)]

    def take(self, name: str, items: Tensor, cut: Spans | None = None) -> Column:
        """A column's rows of some items (N,), in their order; `cut` says which entries of the rows
        of a ragged one are wanted."""
        first = next(iter(self._places.values()))
        ragged = name + ENDS in first
        if not ragged and first[name].entry <= _SMALL:
            return self._whole(name)[items]
        numbers, rows = items // self.rows, items % self.rows
        starts, ends = self._ends(name, numbers, rows) if ragged else (rows, rows + 1)
        if cut is not None and ragged:
            if bool((cut[0] < 0).any() | (cut[1] < cut[0]).any() | (starts + cut[1] > ends).any()):
                raise IndexError(f"entries {cut[0].tolist()} to {cut[1].tolist()} of '{name}'")
            starts, ends = starts + cut[0], starts + cut[1]
        found = self._gather(name, numbers, starts, ends)
        return found if ragged else found.values

    def lengths(self, name: str) -> Tensor:
        """The length of every row of a ragged column, int64."""
        return torch.cat([ends.diff() for ends in self._columns(name + ENDS)])

    def _whole(self, name: str) -> Tensor:
        """All rows of a column of few bytes."""
        if name not in self._small:
            self._small[name] = torch.cat(self._columns(name))
        return self._small[name]

    def _columns(self, name: str) -> list[Tensor]:
        """What each shard has of a tensor."""
        found = []
        for number in sorted(self._places):
            count = self._places[number][name].shape[0]
            spans = torch.tensor([0]), torch.tensor([count])
            found.append(self._read(name, torch.tensor([number]), *spans))
        return found

    def _ends(self, name: str, numbers: Tensor, rows: Tensor) -> Spans:
        starts, ends = self._read(name + ENDS, numbers, rows, rows + 2).view(-1, 2).unbind(1)
        return starts, ends

    def _gather(self, name: str, numbers: Tensor, starts: Tensor, ends: Tensor) -> Ragged:
        """Spans of entries; where shards differ in dtype, in the one that all fit into."""
        kinds = {number: self._places[number][name].dtype for number in set(numbers.tolist())}
        found, order = [], []
        for kind in dict.fromkeys(kinds.values()):
            alike = torch.tensor([number for number, own in kinds.items() if own == kind])
            mine = torch.isin(numbers, alike).nonzero()[:, 0]
            spans = numbers[mine], starts[mine], ends[mine]
            found.append(Ragged(self._read(name, *spans), spans[2] - spans[1]))
            order.append(mine)
        if len(found) == 1:
            return found[0]
        values = torch.cat([part.values for part in found])
        both = Ragged(values, torch.cat([part.lengths for part in found]))
        return both.select(torch.cat(order).argsort())

    # ---- bytes --------------------------------------------------------------------------------
    def _read(self, name: str, numbers: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
        """Entries of one dtype, one span after another; neighbours are read at once."""
        one = self._places[int(numbers[0])][name]
        entry, begins = one.entry, {n: self._places[n][name].start for n in set(numbers.tolist())}
        out = torch.empty(int((ends - starts).sum()) * entry, dtype=torch.uint8)
        view, done = memory(out), 0
        for number, start, end in _merged(numbers.tolist(), starts.tolist(), ends.tolist()):
            after = done + (end - start) * entry
            view[done:after] = self._bytes(number, begins[number] + start * entry, after - done)
            done = after
        return out.view(one.dtype).view(-1, *one.shape[1:])

    def _bytes(self, number: int, first: int, count: int) -> bytes:
        source = self._sources[number]
        if isinstance(source, bytes):
            return source[first : first + count]
        file = self._files.get(number)
        found = os.pread(self._open(number, source) if file is None else file, count, first)
        if len(found) != count:
            raise UserError(f"{source} was cut short while it was read: run the command again")
        return found

    def _open(self, number: int, source: Path) -> int:
        if len(self._files) >= _OPEN_FILES:
            _close(self._files)
        try:
            self._files[number] = os.open(source, os.O_RDONLY)
        except OSError as error:
            raise UserError(f"{source} is gone ({error}): run the command again") from error
        return self._files[number]


def _merged(
    numbers: Sequence[int], starts: Sequence[int], ends: Sequence[int]
) -> list[tuple[int, int, int]]:
    """Spans (shard, start, end) without those that begin where the one before ends."""
    found: list[tuple[int, int, int]] = []
    for number, start, end in zip(numbers, starts, ends, strict=True):
        if found and found[-1][0] == number and found[-1][2] == start:
            found[-1] = number, found[-1][1], end
        elif end > start:
            found.append((number, start, end))
    return found


def _close(files: dict[int, int]) -> None:
    while files:
        os.close(files.popitem()[1])
