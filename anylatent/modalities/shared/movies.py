"""Films as files: what every viewer plays, or what loses nothing."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from anylatent.core.support.packages import MissingPackage

QUALITY = "16"
"""Of x264: its "constant rate factor", where 18 is said to be visually lossless."""


def write_movie(path: Path, frames: Tensor, rate: float, lossless: bool = False) -> None:
    """Writes frames (T, H, W, C) uint8, C 1 or 3, that are shown `rate` a second.

    H.264 in mp4, colours at half the resolution as players want them; sides are made even by
    repeating the last row or column. `lossless`: FFV1 in Matroska, every pixel as it is. Raises
    `MissingPackage` without PyAV, ValueError without a frame.
    """
    try:
        import av
    except ImportError as error:
        raise MissingPackage("av", "writing films") from error
    if not len(frames):
        raise ValueError("a film needs at least one frame")
    pixels = frames.expand(*frames.shape[:-1], 3) if frames.shape[-1] == 1 else frames
    pixels = pixels if lossless else _even(pixels)
    kind, codec, layout = ("matroska", "ffv1", "bgr0") if lossless else ("mp4", "h264", "yuv420p")
    same = {"fflags": "+bitexact"}  # no random numbers, no versions: equal frames, equal files
    with av.open(str(path), "w", format=kind, options=same) as file:
        stream = file.add_stream(codec, Fraction(rate).limit_denominator(1001))
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = *pixels.shape[1:3], layout
        stream.thread_count = 1  # else the bytes depend on the machine
        if not lossless:
            # without x264's macroblock tree, which makes other bytes of equal frames now and then
            stream.options = {"crf": QUALITY, "preset": "medium", "x264-params": "mbtree=0"}
        for pixel in pixels:
            frame = av.VideoFrame.from_ndarray(pixel.contiguous().numpy(), format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def _even(pixels: Tensor) -> Tensor:
    """(T, H, W, 3) with even H and W."""
    for axis in (1, 2):
        if pixels.shape[axis] % 2:
            last = pixels.narrow(axis, pixels.shape[axis] - 1, 1)
            pixels = torch.cat((pixels, last), axis)
    return pixels
