"""Clips of the data that others are judged by, and what is measured of them.

Distances are to the *held-out* clips, as they are of pictures, and depend on how many clips are
compared: either side has as many, and a row tells how many, of how many frames and of what size. A
held-out clip can't be compared with itself: rows made of held-out clips are compared with as many
training clips instead. Restored clips are compared with the very clips that they were made of, cut
into windows as all others are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor
from torch.utils.data import Dataset

from anylatent.core.modality import Data, Item, Outputs, fetch
from anylatent.core.support.columns import Window
from anylatent.core.support.disk_cache import cached
from anylatent.core.support.packages import package_version
from anylatent.core.support.progress import track
from anylatent.modalities.image.metrics.references import chosen
from anylatent.modalities.video.clips import Clips
from anylatent.modalities.video.metrics.temporal import WORSE, Measured, and_worse, measure

_LEAST = 4


@dataclass(frozen=True)
class Judged:
    """What is measured of some clips `size` pixels wide, and of as many that they are compared
    with."""

    own: Measured
    real: Measured
    size: int


@lru_cache(maxsize=2)
def references_of(data: Data, limit: int, middle: int) -> References:
    """Those of a data set, which all metrics share."""
    return References(data, limit, middle)


class References:
    """At most `limit` training and held-out clips of a data set, and what is measured of them, with
    the features of `middle` frames in the middle. It is measured once, at first use, and kept on
    disk.
    """

    def __init__(self, data: Data, limit: int, middle: int) -> None:
        self.data, self.limit, self.middle = data, limit, middle
        self._lately: list[tuple[Clips, list[Window], Measured]] = []

    def judged(self, outputs: Outputs) -> Judged:
        """Samples, to be compared with the held-out clips. Raises ValueError for fewer than four,
        and for what are no clips."""
        some, real = clips_of(outputs), self.measured["held_out"]
        whole = self._of(some, cuts(some.lengths.tolist(), None), len(real))
        return _judged(whole, real, _width(some))

    def restored(self, originals: Outputs, outputs: Outputs) -> Judged:
        """Restored clips, to be compared with the originals, which are cut alike. Raises ValueError
        as `judged` does, and for other lengths than the originals'."""
        before, after = clips_of(originals), clips_of(outputs)
        if before.lengths.tolist() != after.lengths.tolist():
            got = f"{after.lengths.tolist()[:8]} of {before.lengths.tolist()[:8]}"
            raise ValueError(f"restored clips must be as long as the originals, got frames {got}")
        return _judged(self._cut(after), self._cut(before), _width(after))

    def unrestored(self, originals: Outputs) -> Judged:
        """The originals themselves, to be compared with as many training clips."""
        some = clips_of(originals)
        return _judged(self._cut(some), self.measured["train"], _width(some))

    def _cut(self, clips: Clips) -> Measured:
        """Of windows of clips, as many as all rows of restored clips have."""
        most = min(self.limit, len(self.measured["train"]))
        return self._of(clips, cuts(clips.lengths.tolist(), self.data.window), most)

    def _of(self, clips: Clips, windows: Sequence[Window], most: int) -> Measured:
        """What is measured of some of these windows, `most` of them; kept for a while, as several
        metrics ask in turn."""
        if len(windows) < _LEAST:
            got = f"{len(windows)} of {tuple(clips.frames.shape)}"
            raise ValueError(f"figures need {_LEAST} clips (B, T, C, H, W) or more, got {got}")
        some = [windows[row] for row in chosen(len(windows), most).tolist()]
        known = (own for whose, what, own in self._lately if whose is clips and what == some)
        found = next(known, None)
        if found is None:
            told = track(
                (clips[w.item][w.start : w.stop] for w in some), "features of clips", len(some)
            )
            found = Measured.join([measure(clip, self.middle)[0] for clip in told])
            self._lately = [*self._lately[-1:], (clips, some, found)]
        return found

    @cached_property
    def rows(self) -> dict[str, Judged]:
        """Held-out and training clips; held-out ones frozen, shuffled and blurred."""
        found, size = self.measured, self.data.shape[-1]
        rows = {
            "held-out": _judged(found["held_out"], found["train"], size),
            "training": _judged(found["train"], found["held_out"], size),
        }
        return rows | {name: _judged(found[name], found["train"], size) for name in WORSE}

    @cached_property
    def measured(self) -> dict[str, Measured]:
        """Of the training and held-out clips, and of held-out ones made worse."""
        versions = [package_version("opencv-python-headless"), "lite0 224 px", "1"]
        key = {**self._key, "middle": self.middle, "made by": versions}
        found = cached("clips", key, self._measure)
        parts: dict[str, dict[str, Tensor]] = {}
        for name, x in found.items():
            part, _, measured = name.partition("/")
            parts.setdefault(part, {})[measured] = x
        return {part: Measured(**tensors) for part, tensors in parts.items()}

    @cached_property
    def mean_frame(self) -> Tensor:
        """The mean of all frames of the training clips, (C, H, W)."""
        return cached("mean-frame", self._key, lambda: {"frame": mean_frame(self.train)})["frame"]

    @property
    def train(self) -> Part:
        return Part(self.data.train(), self.data.window, self.limit)

    @property
    def held_out(self) -> Part:
        return Part(self.data.held_out(), self.data.window, self.limit)

    @property
    def _key(self) -> dict[str, object]:
        return {"data": self.data.fingerprint, "limit": self.limit}

    def _measure(self) -> dict[str, Tensor]:
        train, held_out = self.train, self.held_out
        for name, part in (("train", train), ("held_out", held_out)):
            if len(part) < _LEAST:
                raise ValueError(
                    f"the figures need {_LEAST} clips or more in each part of the data, got "
                    f"{len(part)} ({name})"
                )
        found: dict[str, list[Measured]] = {"train": []}
        for clip in track(train, "features of training clips", len(train)):
            found["train"] += measure(clip, self.middle)
        for seed, clip in enumerate(track(held_out, "features of held-out clips", len(held_out))):
            for name, own in and_worse(clip, self.middle, seed).items():
                found.setdefault(name, []).append(own)
        joined = {name: Measured.join(pieces).tensors for name, pieces in found.items()}
        return {f"{name}/{key}": x for name, each in joined.items() for key, x in each.items()}


class Part:
    """At most `limit` clips (T, C, H, W) of a part of a data set, always the same ones, read one at
    a time: windows of `window` frames of long videos, which follow one another, and shorter videos
    as a whole. Where `window` is None, items are clips as they are."""

    def __init__(self, dataset: Dataset[Item], window: int | None, limit: int) -> None:
        size = len(dataset)  # type: ignore[arg-type]
        every: Sequence[int | Window] = range(size)
        if window is not None:
            every = cuts(dataset.lengths.tolist(), window)  # type: ignore[attr-defined]
        self._dataset = dataset
        self.windows = [every[int(row)] for row in chosen(len(every), limit)]

    def __len__(self) -> int:
        return len(self.windows)

    def __iter__(self) -> Iterator[Tensor]:
        return (fetch(self._dataset, [window])[0]["video"] for window in self.windows)


def cuts(lengths: Iterable[int], window: int | None) -> list[Window]:
    """Windows of `window` frames of clips of these lengths, one after another, what is left over
    not; shorter clips as a whole, and all of them without a window."""
    sizes = ((item, length, min(window or length, length)) for item, length in enumerate(lengths))
    return [
        Window(item, start, start + cut)
        for item, length, cut in sizes
        for start in range(0, length - cut + 1, cut)
    ]


def mean_frame(clips: Iterable[Tensor]) -> Tensor:
    """The mean of all frames of some clips, (C, H, W)."""
    total, count = torch.zeros(()), 0
    for clip in clips:
        total = total + clip.sum(0)
        count += len(clip)
    return total / count


def clips_of(outputs: Outputs) -> Clips:
    """Outputs as clips; raises ValueError for what are none."""
    if not isinstance(outputs, Clips):
        raise ValueError(f"the figures are of Clips, got {type(outputs).__name__}")
    return outputs


def _width(clips: Clips) -> int:
    """In pixels."""
    return clips.frames.shape[-1]


def _judged(own: Measured, real: Measured, size: int) -> Judged:
    count = min(len(own), len(real))
    some, others = (x.select(chosen(len(x), count)) for x in (own, real))
    return Judged(some, others, size)
