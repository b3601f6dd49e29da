"""What a video file says of itself before it is decoded: its kind, and when its frames are shown.

Containers are read by PyAV, packet by packet; animated GIF and WebP by their blocks and by Pillow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

from anylatent.core.support.packages import MissingPackage
from anylatent.modalities.shared.report import reason_of

PURPOSE = "reading videos"
_SHORT = 0.9  # of the time that a file promises: with less, its end is missing
_QUICKEST, _USUAL = 10, 100  # ms; shorter ones are shown so long by every browser
_MILLISECOND = Fraction(1, 1000)


class Unreadable(Exception):
    """A video can't be read; the message is the reason, in a few words and without its path."""


@dataclass(frozen=True)
class Probe:
    """A file's only or best video. Frames are shown at `times`, rising, in units of `unit` seconds,
    the last until `end`; `sure` tells whether the file has those times for each frame, or only
    their order. `rotation`: by how many degrees frames are turned counterclockwise to be shown.

    `kind` is "video", or "animation" for GIF and WebP. `stream` is its number in the file, and
    `alone` tells whether no other is in it.
    """

    kind: str
    codec: str
    layout: str
    width: int
    height: int
    times: tuple[int, ...]
    end: int
    unit: Fraction
    rotation: int = 0
    stream: int = 0
    alone: bool = True
    sure: bool = True

    @property
    def seconds(self) -> float:
        return float((self.end - self.times[0]) * self.unit)


def probe(path: Path, alive: Callable[[], None]) -> Probe:
    """Looks at a file, and calls `alive` as it gets on.

    Raises `Unreadable` for what has no video, or not all of it, and `MissingPackage`.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(12)
            if not head:
                raise Unreadable("the file is empty")
            if head[:4] == b"RIFF" and head[8:] == b"WEBP":
                return _animation("webp", path, webp_durations(file))
    except OSError as error:
        raise Unreadable(reason_of(error)) from error
    if head[:4] == b"GIF8":
        return _animation("gif", path, _gif_durations(path, alive))
    return _container(path, alive)


# ---- animations -------------------------------------------------------------------------------
def webp_durations(file: BinaryIO) -> list[int]:
    """How long each frame of a WebP is shown, in ms, from its blocks; [0] for a still picture.

    Raises `Unreadable` for another file, and for one that is cut short.
    """
    file.seek(0)
    head = file.read(12)
    if head[:4] != b"RIFF" or head[8:] != b"WEBP":
        raise Unreadable("the file is empty" if not head else "it is no WebP")
    promised, size = 8 + int.from_bytes(head[4:8], "little"), file.seek(0, 2)
    place, durations = 12, list[int]()
    while place + 8 <= min(promised, size):
        file.seek(place)
        head = file.read(24)
        length = int.from_bytes(head[4:8], "little")
        place += 8 + length + length % 2
        if head[:4] == b"ANMF" and place <= size:
            durations.append(int.from_bytes(head[20:23], "little"))
    if size < promised:
        raise Unreadable(f"the file is cut short after {len(durations)} frames")
    return durations or [0]


def _gif_durations(path: Path, alive: Callable[[], None]) -> list[int]:
    pillow, durations = _pillow(), list[int]()
    try:
        with pillow.open(path) as image:
            for frame in range(image.n_frames):
                image.seek(frame)
                durations.append(int(image.info.get("duration", 0)))
                alive()
    except Exception as error:  # Pillow raises whatever it likes at broken files
        raise Unreadable(pillow_reason(error)) from error
    return durations


def _animation(kind: str, path: Path, durations: list[int]) -> Probe:
    try:
        with _pillow().open(path) as image:
            width, height = image.size
    except Exception as error:
        raise Unreadable(pillow_reason(error)) from error
    shown = (ms if ms > _QUICKEST else _USUAL for ms in durations)
    *times, end = accumulate(shown, initial=0)
    return Probe("animation", kind, "rgba", width, height, tuple(times), end, _MILLISECOND)


def pillow_reason(error: Exception) -> str:
    """What Pillow says of a file, in a few words."""
    return f"damaged or cut short ({reason_of(error)})"


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingPackage("pillow", PURPOSE) from error
    return Image


# ---- containers -------------------------------------------------------------------------------
def _container(path: Path, alive: Callable[[], None]) -> Probe:
    try:
        import av
    except ImportError as error:
        raise MissingPackage("av", PURPOSE) from error
    try:
        with av.open(str(path)) as file:
            return _Packets(file).read(alive)
    except av.FFmpegError as error:
        raise Unreadable(ffmpeg_reason(error)) from error


def ffmpeg_reason(error: Any) -> str:
    """What FFmpeg says of a file, in a few words."""
    told = error.log[2].strip() if error.log else ""
    if type(error).__name__ == "InvalidDataError":
        return f"no video that FFmpeg knows, or damaged{f' ({told})' if told else ''}"
    return told or reason_of(error)


class _Packets:
    """The packets of an open container, of which nothing is decoded but the first frame."""

    def __init__(self, file: Any) -> None:
        videos = [stream for stream in file.streams.video if not _is_cover(stream)]
        if not videos:
            sound = ", only sound" if file.streams.audio else ""
            raise Unreadable(f"it has no video{sound}")
        best = file.streams.best("video")
        self.file, self.stream = file, best if best in videos else videos[0]
        self.alone = len(file.streams.video) == 1
        self.shown: list[tuple[int, int]] = []  # when, how long
        self.last, self.whole = 0.0, True  # when anything in the file ends, in seconds
        self.first: Any = None

    def read(self, alive: Callable[[], None]) -> Probe:
        for packet in self.file.demux():
            alive()
            if packet.stream is self.stream:
                self._look(packet)
            if packet.dts is not None or packet.pts is not None:
                self._take(packet)
        if not self.shown:
            raise Unreadable("it has no frames")
        self.shown.sort()
        self._check_end()
        times = tuple(time for time, _ in self.shown)
        stream, usual = self.stream, (times[-1] - times[0]) / max(1, len(times) - 1)
        context = stream.codec_context
        return Probe(
            "video",
            context.name,
            context.pix_fmt or "",
            context.width,
            context.height,
            times,
            times[-1] + (self.shown[-1][1] or max(1, round(usual))),
            Fraction(stream.time_base),
            self.first.rotation if self.first is not None else 0,
            stream.index,
            self.alone,
            "avi" not in self.file.format.name,
        )

    def _look(self, packet: Any) -> None:
        """The first frame, which alone tells how it is turned; faults are the reader's business."""
        import av

        if self.first is None:
            try:
                self.first = next(iter(packet.decode()), None)
            except av.FFmpegError:
                self.first = None

    def _take(self, packet: Any) -> None:
        time = packet.dts if packet.pts is None else packet.pts
        self.last = max(self.last, float((time + (packet.duration or 0)) * packet.time_base))
        if packet.stream is self.stream and not packet.is_discard:
            self.shown.append((time, packet.duration or 0))
            self.whole = self.whole and not packet.is_corrupt

    def _check_end(self) -> None:
        """Raises `Unreadable` where frames are missing that the file promises."""
        stream, unit, count = self.stream, float(self.stream.time_base), len(self.shown)
        if not self.whole:
            promised = f" of {stream.frames}" if stream.frames > count else ""
            raise Unreadable(f"the file is cut short after {count}{promised} frames")
        first = min(0.0, self.shown[0][0] * unit)
        seconds, own = (self.file.duration or 0) / 1e6, self.shown[-1][0] + self.shown[-1][1]
        covered = self.last - first
        if stream.duration:
            seconds, covered = stream.duration * unit, own * unit - first
        if covered < _SHORT * seconds:
            raise Unreadable(f"the file is cut short after {covered:.3g} of {seconds:.3g} s")


def _is_cover(stream: Any) -> bool:
    """Whether it is a picture that belongs to a piece of music."""
    return bool(stream.disposition & type(stream.disposition).attached_pic)
