"""Videos of files on disk, each decoded once, at the size that is wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from anylatent.core.support.columns import Columns, Ragged
from anylatent.core.support.disk_cache import cached
from anylatent.core.support.packages import package_version
from anylatent.core.support.progress import track
from anylatent.core.support.shards import SHARD, Shards, rows_of
from anylatent.core.support.stored import cached_rows
from anylatent.modalities.image.data.choice import copy_key
from anylatent.modalities.shared.report import Report
from anylatent.modalities.shared.strings import text_tensor
from anylatent.modalities.video.data.decoding import Decoder, Length
from anylatent.modalities.video.data.probing import Unreadable
from anylatent.modalities.video.data.readers import Decord, Reader
from anylatent.modalities.video.data.squares import Wanted

_MADE_BY = [*(f"{name} {package_version(name)}" for name in ("av", "pillow")), "1"]
_MOST = 4 * SHARD  # bytes of a shard with long videos in it, unless one alone has more


@dataclass(frozen=True)
class Source:
    """A square of a file: its path, the digest of its content, and where it lies along the long
    side, from 0 to 1."""

    path: Path
    digest: str
    place: float = 0.5


@dataclass(frozen=True)
class How:
    """How files are read: `rate` frames a second or all (None), `motion` measured or 0, by
    `reader`, which may be silent for `seconds`."""

    size: int
    rate: float | None = None
    motion: bool = True
    reader: Reader = field(default_factory=Decord)
    seconds: float = 60.0

    def __post_init__(self) -> None:
        Wanted(self.size, self.rate)
        Decoder(self.reader, self.seconds)

    @property
    def key(self) -> dict[str, object]:
        """All that decides what is read of files that can be read."""
        flow = package_version("opencv-python-headless") if self.motion else ""
        made_by = [*_MADE_BY, *self.reader.made_by]
        return {"size": self.size, "rate": self.rate, "motion": flow, "made by": made_by}


def stored_videos(name: str, sources: Sequence[Source], how: How) -> Shards:
    """A row for each source, in files named `name`: "frames", uint8 (L, 3, size, size), "motion",
    float32 (L,), see `VideoData`; "rate"; "good", and the "reason" where it can't be read, L being
    0 then; and "copy", equal for equal frames."""
    names = [[source.digest, source.place] for source in sources]
    with Decoder(how.reader, how.seconds) as decoder:
        lengths = _lengths(sources, decoder)
        reading = _Reading(sources, how, decoder, lengths)
        made_by = {**how.key, "seconds": how.seconds, "sources": names}
        path, rows = f"{name}-{how.size}", reading.rows
        return cached_rows(path, made_by, len(sources), rows, reading.make, "reading videos")


def _lengths(sources: Sequence[Source], decoder: Decoder) -> list[Length]:
    """What the files say of themselves, kept on disk; 0 frames where they can't be read."""
    paths = {source.digest: source.path for source in sources}

    def build() -> dict[str, Tensor]:
        shown = track(paths.values(), "looking at videos", len(paths))
        found = [_length(path, decoder) for path in shown]
        return {"lengths": torch.tensor(found, dtype=torch.float64).reshape(-1, 2)}

    found = cached("video-lengths", {"made by": _MADE_BY, "files": list(paths)}, build)["lengths"]
    every = dict(zip(paths, found.tolist(), strict=True))
    return [Length(int(every[source.digest][0]), every[source.digest][1]) for source in sources]


def _length(path: Path, decoder: Decoder) -> Length:
    try:
        return decoder.length(path)
    except Unreadable:
        return Length(0, 0.0)


class _Reading:
    """Makes rows out of files: the squares of a file at once, for it is decoded once."""

    def __init__(
        self, sources: Sequence[Source], how: How, decoder: Decoder, lengths: Sequence[Length]
    ) -> None:
        self._sources, self._how, self._decoder = sources, how, decoder
        wanted = Wanted(how.size, how.rate)
        self._bytes = [3 * how.size**2 * max(1, wanted.count(*length)) for length in lengths]

    @property
    def rows(self) -> int:
        """To a shard: as many as fill one on average, fewer where long ones lie together."""
        sizes = self._bytes
        rows = min(len(sizes), rows_of(sum(sizes) / len(sizes)))
        while rows > 1 and self._largest(rows) > _MOST:
            rows //= 2
        return rows

    def _largest(self, rows: int) -> int:
        """The bytes of the largest shard with so many rows."""
        starts = range(0, len(self._bytes), rows)
        return max(sum(self._bytes[start : start + rows]) for start in starts)

    def make(self, items: range) -> Iterator[Columns]:
        """The rows of some sources; while motion is measured in one file, the next is decoded."""
        paths = [
            (path, tuple(self._sources[item].place for item in some))
            for path, some in groupby(items, lambda item: self._sources[item].path)
        ]
        with ThreadPoolExecutor(1) as pool:
            for frames, rate, why in pool.map(self._read, paths):
                yield from self._rows(frames, rate, why)

    def _read(self, source: tuple[Path, tuple[float, ...]]) -> tuple[Tensor, float, str]:
        """The frames (T, places, 3, size, size) of a file, their rate, and why there are none."""
        (path, places), size = source, self._how.size
        try:
            return *self._decoder.read(path, Wanted(size, self._how.rate, places=places)), ""
        except Unreadable as error:
            return torch.empty(0, len(places), 3, size, size).byte(), 0.0, str(error)

    def _rows(self, frames: Tensor, rate: float, why: str) -> Iterator[Columns]:
        reason = text_tensor(why)
        for own in frames.unbind(1):
            yield {
                "frames": Ragged(own.contiguous(), torch.tensor([len(own)])),
                "motion": Ragged(self._motion(own), torch.tensor([len(own)])),
                "rate": torch.tensor([[rate]], dtype=torch.float64),
                "good": torch.tensor([[not why]]),
                "reason": Ragged(reason, torch.tensor([len(reason)])),
                "copy": copy_key(own)[None],
            }

    def _motion(self, frames: Tensor) -> Tensor:
        if not self._how.motion or len(frames) < 2:
            return torch.zeros(len(frames))
        from anylatent.modalities.video.flow import motion

        return motion(frames).float().cpu()


def leave_short(names: Sequence[Path], stored: Shards, frames: int, report: Report) -> list[int]:
    """The rows with enough frames for a window, of those that could be read; tells the report of
    the others."""
    lengths = stored.lengths("frames").tolist()
    for name, length in zip(names, lengths, strict=True):
        if 0 < length < frames:
            told = f"{length} frame{'s' * (length > 1)}, {frames} are wanted"
            report.leave("are too short", name, told)
    return [row for row, length in enumerate(lengths) if length >= frames]
