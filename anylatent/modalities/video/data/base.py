"""What all data sets of clips share: whole videos on disk, windows of them, and their motion."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from anylatent.core.modality import Data, Item
from anylatent.core.registry import facts
from anylatent.core.support.columns import Ragged, Window
from anylatent.core.support.digests import number_of
from anylatent.core.support.disk_cache import digest
from anylatent.core.support.files import UserError
from anylatent.modalities.video.data.curation import Curation, Motion
from anylatent.modalities.video.data.table import Table

facts(rate=float, frames=int, motion=tuple[float, ...])


class Videos(Dataset[Item]):
    """Spans of whole videos. An item has `video` (T, C, H, W) float in [-1, 1], `first`, its
    first frame, `frames` T, `motion` (T,), and the columns. Indexed by a `Window`, it reads no
    more than that.

    `lengths` (N,) are those of the items, `sources` (N,) tell them apart.
    """

    def __init__(self, table: Table, spans: Sequence[tuple[int, int, int]]) -> None:
        """`spans`: the row of the table, the first frame, and the one after the last."""
        rows = [row for row, _, _ in spans]
        self._stored = table.stored
        self._rows = torch.tensor([table.place(row) for row in rows], dtype=torch.long)
        self._first = torch.tensor([first for _, first, _ in spans], dtype=torch.long)
        self.lengths = torch.tensor([end - first for _, first, end in spans], dtype=torch.long)
        numbers = [source_of(table.sources[row], first) for row, first, _ in spans]
        self.sources = torch.tensor(numbers, dtype=torch.int64)
        self.columns = {name: [c[row] for row in rows] for name, c in table.columns.items()}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int | Window) -> Item:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int | Window]) -> list[Item]:
        cuts = [window_of(index, self.lengths) for index in indices]
        items = torch.tensor([cut.item for cut in cuts])
        starts = self._first[items] + torch.tensor([cut.start for cut in cuts])
        spans = (starts, starts + torch.tensor([cut.stop - cut.start for cut in cuts]))
        rows = self._rows[items]
        frames, motion = (_split(self._stored.take(n, rows, spans)) for n in ("frames", "motion"))
        return [
            {
                "video": pixels.float() / 127.5 - 1,
                "first": pixels[0].float() / 127.5 - 1,
                "frames": len(pixels),
                "motion": moved,
                **{name: column[cut.item] for name, column in self.columns.items()},
            }
            for cut, pixels, moved in zip(cuts, frames, motion, strict=True)
        ]


class VideoData(Data):
    """Videos split into a training and a held-out part; subclasses say where they come from.

    `key` is everything but the split that determines the items, as plain values. The items to learn
    from are whole videos, of which stages draw windows of `frames` frames; the held-out ones are
    cut into such windows, one after the other, `most` at most, evenly spread. `motion` may have
    bounds, by which all of them are chosen, see `Curation`.
    """

    window: int

    def __init__(
        self,
        key: Mapping[str, object],
        shape: tuple[int, int, int],
        classes: Mapping[str, Sequence[str]],
        frames: int,
        most: int,
        motion: Motion = True,
    ) -> None:
        if shape[1] < 8:
            raise ValueError(f"size must be at least 8 pixels, got {shape[1]}")
        if frames < 1 or most < 1:
            raise UserError(f"data.frames={frames}, data.most={most}: at least one of each")
        self.shape, self.window, self.frames, self.most = shape, frames, frames, most
        self.classes = {name: tuple(values) for name, values in classes.items()}
        self._curation = Curation.of(motion, frames)
        self._key = {"kind": type(self).__name__, **key}
        if self._curation is not None:
            self._key["between"] = list(motion) if isinstance(motion, tuple) else motion

    @property
    def facts(self) -> dict[str, Any]:
        """`rate`: frames a second, the median; `frames`: of a window; `motion`: its tenth, half
        and nine tenths over the training part, in pixels a frame at 64 px."""
        return {**super().facts, "rate": self.rate, "frames": self.frames, "motion": self.strength}

    @property
    def fingerprint(self) -> str:
        return digest([self._key, self.frames, self.most])

    @abstractmethod
    def table(self) -> Table:
        """All the videos."""

    @property
    def rate(self) -> float:
        rates = [self._table.columns["rate"][row] for row in self._table.rows("train")]
        return float(torch.tensor(rates, dtype=torch.float64).median())

    @cached_property
    def strength(self) -> list[float]:
        """Quantiles of the mean motion of windows, rounded."""
        found = [
            piece.mean()
            for row in self._table.rows("train")
            for piece in torch.split(moved(self._table, row), self.frames)
        ]
        levels = torch.tensor([0.1, 0.5, 0.9])
        return [round(float(q), 4) for q in torch.stack(found).quantile(levels)]

    def train(self) -> Dataset[Item]:
        return Videos(self._table, self._spans("train"))

    def held_out(self) -> Dataset[Item]:
        return Videos(self._table, self._windows())

    # ---- parts --------------------------------------------------------------------------------
    @cached_property
    def _table(self) -> Table:
        table = self.table()
        if not table.rows("train"):
            raise UserError(f"{type(self).__name__} has no video to learn from")
        return table if self._curation is None else self._curation(table, partial(moved, table))

    def _spans(self, part: str) -> list[tuple[int, int, int]]:
        return [(row, *self._table.spans[row]) for row in self._table.rows(part)]

    def _windows(self) -> list[tuple[int, int, int]]:
        """Of the held-out part. Raises UserError where it is too short for one."""
        size = self.frames
        spans, every = self._spans("held_out"), list[tuple[int, int, int]]()
        for row, first, end in spans:
            places = range(first, end - size + 1, size)
            every += [(row, place, place + size) for place in places]
        if spans and not every:
            longest = max(end - first for _, first, end in spans)
            raise UserError(
                f"the held-out part is too short: its longest video has {longest} frames, and "
                f"data.frames={size} are wanted. Give fewer, longer videos, or hold out more"
            )
        step = max(1, -(-len(every) // self.most))
        return every[::step]


def moved(table: Table, row: int) -> Tensor:
    """The motion of each frame of a row's span."""
    first, end = table.spans[row]
    cut = (torch.tensor([first]), torch.tensor([end]))
    return _split(table.stored.take("motion", torch.tensor([table.place(row)]), cut))[0]


def source_of(source: int, first: int) -> int:
    """A number for what of a video begins at a frame."""
    return source if first == 0 else number_of(f"{source} {first}".encode())


def window_of(index: int | Window, lengths: Tensor) -> Window:
    """A window, or the whole item. Raises IndexError for an item that is not there."""
    item = index.item if isinstance(index, Window) else index
    if not -len(lengths) <= item < len(lengths):
        raise IndexError(f"video {item} of {len(lengths)}")
    item %= len(lengths)
    if isinstance(index, Window):
        return Window(item, index.start, index.stop)
    return Window(item, 0, int(lengths[item]))


def _split(column: object) -> list[Tensor]:
    assert isinstance(column, Ragged)
    return list(torch.split(column.values, column.lengths.tolist()))
