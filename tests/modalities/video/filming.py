"""Films for tests, and readers that fail in all ways."""

import os
import struct
from fractions import Fraction

import numpy as np

from anylatent.modalities.video.data.readers import PyAV, Reader


def moving(count, height=64, width=64, start=0):
    """Frames (count, height, width, 3) of a smooth pattern that moves."""
    y, x = np.mgrid[:height, :width]
    waves = [
        np.stack([np.sin((x + 2 * t) / 9), np.sin((y - t) / 7), np.sin((x + y + 3 * t) / 11)], -1)
        for t in range(start, start + count)
    ]
    return (127.5 + 100 * np.stack(waves)).astype(np.uint8)


def flat(levels, height=16, width=16):
    """Frames of one grey level each."""
    return np.stack([np.full((height, width, 3), level, np.uint8) for level in levels])


def film(path, frames, codec="libx264", layout="yuv420p", rate=10, times=None, container=None):
    """Writes a video; `times` in ms are those of the frames, else they come at a rate."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], layout
        if codec == "libsvtav1":
            stream.options = {"preset": "12"}
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for place, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[place], Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def lossless(path, frames, **settings):
    return film(path, frames, codec="ffv1", layout="bgr0", **settings)


def sound(path):
    """Writes a file with a second of silence and no video."""
    import av

    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=8000)
        stream.layout = "mono"
        quiet = np.zeros((1, 8000), np.float32)
        frame = av.AudioFrame.from_ndarray(quiet, format="fltp", layout="mono")
        frame.sample_rate = 8000
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def turned(path, target):
    """A copy of an mp4 that says it is to be shown turned clockwise by 90 degrees."""
    content = bytearray(path.read_bytes())
    place = content.find(b"tkhd") + 4 + 40
    content[place : place + 36] = struct.pack(
        ">9i", 0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000
    )
    target.write_bytes(content)
    return target


def cut(path, target, share=0.6):
    """The beginning of a file."""
    content = path.read_bytes()
    target.write_bytes(content[: int(len(content) * share)])
    return target


def animation(path, pictures, durations, **settings):
    """Writes an animated gif or webp, without loss where there is a choice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = pictures
    if path.suffix == ".webp":
        settings = {"lossless": True, "kmin": 1, "kmax": 1, **settings}  # whole frames
    first.save(path, save_all=True, append_images=rest, duration=durations, loop=0, **settings)
    return path


class Failing(Reader):
    """Raises after its first frames."""

    def chunks(self, path, probe):
        yield next(PyAV().chunks(path, probe))
        raise RuntimeError("an error of its own")

    def backup(self):
        return PyAV()


class Crashing(Reader):
    """Ends its process."""

    def chunks(self, path, probe):
        os._exit(9)
        yield
