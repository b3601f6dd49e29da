"""Whole videos on disk, and what is known of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anylatent.core.support.shards import Shards


@dataclass(frozen=True, eq=False)
class Table:
    """Whole videos on disk and what is known of them.

    `stored` has the ragged columns "frames", uint8 (L, C, H, W) a video, and "motion", float32
    (L,): the mean length of the optical flow to the next frame in pixels at 64 px. `columns` are
    lists with an entry for each video, among them `name` and `rate`, frames a second. `parts` has
    the part of each, "train" or "held_out" ("" for one that is not used), `spans` the frames of it
    that belong there, from the first to before the second. `stored_rows` has the row of `stored`
    of each, which several may share; by default, they are in its order.
    """

    stored: Shards
    columns: Mapping[str, Sequence[Any]]
    parts: Sequence[str]
    spans: Sequence[tuple[int, int]]
    sources: Sequence[int]
    stored_rows: Sequence[int] = ()

    def place(self, row: int) -> int:
        """The row of `stored` that a video is in."""
        return self.stored_rows[row] if self.stored_rows else row

    def rows(self, part: str) -> list[int]:
        """Those of a part."""
        return [row for row, own in enumerate(self.parts) if own == part]
