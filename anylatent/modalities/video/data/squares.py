"""Frames as they are learned from: chosen by the time when they are shown, square, and small."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from anylatent.core.support.files import UserError
from anylatent.core.support.packages import MissingPackage
from anylatent.modalities.video.data.probing import PURPOSE, Probe, Unreadable
from anylatent.modalities.video.data.readers import Chunk

if TYPE_CHECKING:
    from anylatent.modalities.video.data.readers import Pixels

FASTEST = 240.0
"""Frames a second, the most that can be asked for."""


@dataclass(frozen=True)
class Wanted:
    """Squares of `size` × `size` pixels with 3 or 1 `channels`, cut out of the short side's length
    at `places` along the long one, from 0 to 1.

    `rate`: frame k is the last that is shown at k / rate seconds; None for all frames as they come.
    Raises UserError for a rate that can't be had.
    """

    size: int
    rate: float | None = None
    channels: int = 3
    places: tuple[float, ...] = (0.5,)

    def __post_init__(self) -> None:
        if self.rate is not None and not 0 < self.rate <= FASTEST:
            raise UserError(
                f"rate={self.rate:g}: a number of frames a second up to {FASTEST:g}, or null for "
                "all of them"
            )

    def count(self, frames: int, seconds: float) -> int:
        """About how many frames there will be of a video with so many in so many seconds."""
        return frames if self.rate is None else round(seconds * self.rate) + 1


class Squares:
    """The wanted squares of frames that come in chunks; `rate` is known when all have come."""

    def __init__(self, probe: Probe, wanted: Wanted) -> None:
        self._probe, self._wanted = probe, wanted
        self._seen, self._first, self._last = 0, 0, 0
        self._told = 0

    @property
    def rate(self) -> float:
        """Frames a second: as was asked for, or on average."""
        if self._wanted.rate is not None:
            return self._wanted.rate
        if self._seen > 1 and self._last > self._first:
            return float((self._seen - 1) / ((self._last - self._first) * self._probe.unit))
        return 1 / self._probe.seconds if self._probe.seconds > 0 else 1.0

    def cut(self, chunks: Iterable[Chunk]) -> Iterator[Pixels]:
        """(n, places, channels, size, size) uint8 of every frame, n for how often it is wanted.

        Raises `Unreadable` where there is no frame, and where there are others than the probe has
        times for and the chunks say nothing of theirs.
        """
        shown: Pixels | None = None
        for frame, time in self._timed(chunks):
            if shown is not None:
                yield self._squares(shown, self._copies(time))
            else:
                self._first = time
            shown, self._last = frame, time
            self._seen += 1
        if shown is None:
            raise Unreadable("no frame of it can be read")
        yield self._squares(shown, self._copies(max(self._probe.end, self._last + 1)))

    def _timed(self, chunks: Iterable[Chunk]) -> Iterator[tuple[Pixels, int]]:
        own, count, told = self._probe.times, 0, True
        for chunk in chunks:
            told = chunk.times is not None
            times = own[count : count + len(chunk.pixels)] if chunk.times is None else chunk.times
            yield from zip(chunk.pixels, times, strict=False)
            count += len(chunk.pixels)
        if count and not told and count != len(own):
            raise Unreadable(f"{count} of {len(own)} frames can be read")

    def _copies(self, end: int) -> int:
        """How often the frame is wanted that is shown until then.

        Times are known to half a unit, as which they are rounded.
        """
        if self._wanted.rate is None:
            return 1
        step = 1 / (Fraction(self._wanted.rate) * self._probe.unit)
        before, self._told = self._told, ceil((end - self._first - Fraction(1, 2)) / step)
        self._told = max(before, self._told)
        return self._told - before

    def _squares(self, frame: Pixels, copies: int) -> Pixels:
        wanted = self._wanted
        shape = (len(wanted.places), wanted.channels, wanted.size, wanted.size)
        if not copies:
            return np.empty((0, *shape), dtype=np.uint8)
        try:
            from PIL import Image, ImageOps
        except ImportError as error:
            raise MissingPackage("pillow", PURPOSE) from error
        whole = Image.fromarray(np.ascontiguousarray(frame))
        if wanted.channels == 1:
            whole = whole.convert("L")
        how = (wanted.size, wanted.size), Image.Resampling.LANCZOS
        cut = [np.asarray(ImageOps.fit(whole, *how, centering=(p, p))) for p in wanted.places]
        squares = np.stack(cut).reshape(len(cut), wanted.size, wanted.size, -1)
        return np.repeat(squares.transpose(0, 3, 1, 2)[None], copies, axis=0)
