"""Readers: what decodes the frames of a video file.

A reader runs in a process of its own (see `child`), for a decoder may hang or crash at a broken
file, and hands out frames as they are in the file. The two here give the same bytes: decord is left
alone with what it is known to read otherwise, or not at all, and PyAV takes over.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from anylatent.core.registry import group, register
from anylatent.core.support.packages import MissingPackage, package_version
from anylatent.modalities.video.data.probing import (
    PURPOSE,
    Probe,
    Unreadable,
    ffmpeg_reason,
    pillow_reason,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels: TypeAlias = NDArray[np.uint8]

_CHUNK = 2**24  # bytes of frames that are handed out at once
_WIDTHS = (8, 16, 24, 48, 72)  # at which decord fails with an internal error
_LAYOUTS = (
    *("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "yuva420p"),
    *("nv12", "gray", "bgr0", "gbrp", "rgb24", "bgr24"),
)  # others, as those of 10 bits, decord turns into other colours


class Chunk(NamedTuple):
    """Some frames in a row, (n, H, W, 3) uint8, and when they are shown, in the probe's units; None
    where each is shown at the time that the probe has for it."""

    pixels: Pixels
    times: Sequence[int] | None = None


class Reader(ABC):
    """Decodes all frames of a file in the order in which they are shown, a few at a time.

    Readers are pickled, to be used in another process, and so must be in a module that can be
    imported there. One that gives no sign for long, by a chunk, is killed with its process.
    """

    def reads(self, probe: Probe) -> bool:
        """Whether it is for such files; where it isn't, its `backup` reads them."""
        return True

    def backup(self) -> Reader | None:
        """What reads a file in its place when it fails."""
        return None

    @property
    def made_by(self) -> list[str]:
        """All that decides what it reads, for the key of what is kept on disk."""
        settings = [f"{name}={value}" for name, value in sorted(vars(self).items())]
        return [f"{type(self).__module__}.{type(self).__qualname__}", *settings]

    @abstractmethod
    def chunks(self, path: Path, probe: Probe) -> Iterator[Chunk]:
        """The frames. Raises `Unreadable`, or whatever its decoder raises."""


group("reader", Reader)


@register("reader", "decord")
class Decord(Reader):
    """decord, the reader that is used unless another is named.

    PyAV reads what it can't: AV1, frames that are turned, with odd sides or some widths below 80,
    colours of more than 8 bits, and what it fails at."""

    def reads(self, probe: Probe) -> bool:
        plain = probe.alone and not probe.rotation and "av1" not in probe.codec
        even = probe.width % 2 == 0 and probe.height % 2 == 0
        return plain and even and probe.width not in _WIDTHS and probe.layout in _LAYOUTS

    def backup(self) -> Reader:
        return PyAV()

    @property
    def made_by(self) -> list[str]:
        return [*super().made_by, package_version("decord"), *PyAV().made_by]

    def chunks(self, path: Path, probe: Probe) -> Iterator[Chunk]:
        try:
            import decord  # type: ignore[import-untyped]
        except ImportError as error:
            raise MissingPackage("decord", PURPOSE) from error
        decord.logging.set_level(decord.logging.QUIET)
        video = decord.VideoReader(str(path))
        if len(video) != len(probe.times):
            raise Unreadable(f"decord finds {len(video)} of {len(probe.times)} frames")
        step = _at_once(probe.height, probe.width)
        for first in range(0, len(video), step):
            places = range(first, min(first + step, len(video)))
            yield Chunk(video.get_batch(list(places)).asnumpy())


@register("reader", "pyav")
class PyAV(Reader):
    """PyAV, FFmpeg with all its codecs. Frames are turned as the file says."""

    @property
    def made_by(self) -> list[str]:
        return [*super().made_by, package_version("av")]

    def chunks(self, path: Path, probe: Probe) -> Iterator[Chunk]:
        try:
            import av
        except ImportError as error:
            raise MissingPackage("av", PURPOSE) from error
        with av.open(str(path)) as file:
            stream: Any = file.streams[probe.stream]
            stream.thread_type = "AUTO"
            try:
                yield from _timed(file.decode(stream), probe)
            except av.FFmpegError as error:
                raise Unreadable(ffmpeg_reason(error)) from error


class Animations(Reader):
    """Pillow, for animated GIF and WebP, with what is transparent on white."""

    def chunks(self, path: Path, probe: Probe) -> Iterator[Chunk]:
        from PIL import Image

        try:
            with Image.open(path) as image:
                for frame in range(len(probe.times)):
                    image.seek(frame)
                    layer = image.convert("RGBA")
                    white = Image.new("RGBA", layer.size, "white")
                    shown = Image.alpha_composite(white, layer).convert("RGB")
                    yield Chunk(np.asarray(shown)[None])
        except Exception as error:  # Pillow raises whatever it likes at broken files
            raise Unreadable(pillow_reason(error)) from error


def _at_once(height: int, width: int) -> int:
    """How many frames of a size are handed out at once."""
    return max(1, _CHUNK // (3 * height * width))


def _timed(frames: Iterator[Any], probe: Probe) -> Iterator[Chunk]:
    """Frames of PyAV as they are to be shown, with their times, which rise."""
    last: int | None = None
    for place, frame in enumerate(frames):
        time = frame.pts if probe.sure else None
        if time is None or (last is not None and time <= last):
            time = probe.times[min(place, len(probe.times) - 1)]
        last = time if last is None else max(time, last)
        pixels = frame.to_ndarray(format="rgb24")
        turned = np.rot90(pixels, round(frame.rotation / 90)) if frame.rotation else pixels
        yield Chunk(turned[None], [last])
