"""Videos out of files, by a process that may crash, and by another reader where one fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from anylatent.core.support.files import UserError, place_of
from anylatent.modalities.video.data.child import Child, Job
from anylatent.modalities.video.data.probing import Unreadable
from anylatent.modalities.video.data.readers import Decord, Reader
from anylatent.modalities.video.data.squares import Wanted


class Length(NamedTuple):
    """How many frames a file has, and for how many seconds they are shown."""

    frames: int
    seconds: float


class Decoded(NamedTuple):
    """Squares of a video, (T, places, channels, size, size) uint8, and their frames a second."""

    frames: Tensor
    rate: float


class Decoder:
    """Reads files by `reader`, or its backup, in a process that ends with the block.

    `seconds`: a reader that gives no sign for so long is ended, and the file is not read by it.
    Raises UserError for a limit that is none.
    """

    def __init__(self, reader: Reader | None = None, seconds: float = 60.0) -> None:
        if not seconds > 0:
            raise UserError(f"seconds={seconds:g}: for how long a reader may give no sign, above 0")
        self.reader, self._child = reader or Decord(), Child(seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.close()

    def length(self, path: Path) -> Length:
        """What a file says of itself. Raises `Unreadable`."""
        ((_, (frames, seconds, _)),) = self._child.ask(Job(path))
        return Length(frames, seconds)

    def read(self, path: Path, wanted: Wanted) -> Decoded:
        """The whole of a video, small. Raises `Unreadable` where no reader can read it."""
        found = _Found()
        try:
            return self._read(path, wanted, self.reader, found)
        except Unreadable:
            if found.backup is None:
                raise
        return self._read(path, wanted, found.backup, _Found())

    def _read(self, path: Path, wanted: Wanted, reader: Reader, found: _Found) -> Decoded:
        for kind, value in self._child.ask(Job(path, wanted, reader)):
            found.take(kind, value)
        return Decoded(torch.cat(found.frames), found.rate)


class _Found:
    """What has come of a file."""

    def __init__(self) -> None:
        self.backup: Reader | None = None
        self.frames: list[Tensor] = []
        self.rate = 0.0

    def take(self, kind: str, value: Any) -> None:
        if kind == "probe":
            self.backup = value[-1]
        elif kind == "frames":
            self.frames.append(torch.from_numpy(value))
        else:
            self.rate = value


def read_clip(
    path: str,
    size: int,
    channels: int,
    rate: float | None,
    reader: Reader | None = None,
    seconds: float = 60.0,
) -> Tensor:
    """The central squares of the frames of a video, (T, channels, size, size) in [-1, 1].

    `rate` frames a second, chosen by the time at which they are shown; None for all of them.
    Raises UserError where the file can't be read.
    """
    place = place_of(path)
    if not place.is_file():
        raise UserError(f"{path}: there is no such file to read a video from")
    try:
        with Decoder(reader, seconds) as decoder:
            found = decoder.read(place, Wanted(size, rate, channels))
    except Unreadable as error:
        raise UserError(f"{path} can't be read as a video: {error}") from error
    return found.frames[:, 0].float() / 127.5 - 1
