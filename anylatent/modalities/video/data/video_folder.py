"""Any videos in a folder, with captions from files beside them or from folder names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from anylatent.core.support.digests import number_of
from anylatent.core.support.shards import Shards
from anylatent.core.support.stored import Stored
from anylatent.modalities.image.data.choice import first_copies, leave_unread
from anylatent.modalities.image.data.described import Described
from anylatent.modalities.shared.folder import DOCUMENTS, Files, Kinds
from anylatent.modalities.shared.layout import HELD_OUT, TRAIN
from anylatent.modalities.shared.reading import check_encoding
from anylatent.modalities.shared.report import Report, shown
from anylatent.modalities.shared.splits import by_quota, check_fraction
from anylatent.modalities.video.data.base import VideoData
from anylatent.modalities.video.data.curation import Motion
from anylatent.modalities.video.data.files import How, Source, leave_short, stored_videos
from anylatent.modalities.video.data.readers import Decord, Reader
from anylatent.modalities.video.data.table import Table

SUFFIXES = (".mp4", ".webm", ".avi", ".mov", ".mkv", ".gif", ".webp")


class VideoFolder(VideoData):
    """The videos below `path`, cropped to their central square, `size` × `size` pixels.

    Read recursively in the order of their paths, through links, hidden files left out: mp4, webm,
    avi, mov, mkv, and animated gif and webp, transparency on white. `rate` frames a second are
    taken by the times at which they are shown, or all frames as they come, each file at its own
    mean rate. Files with fewer than `frames` are left out, as are those that can't be read:
    `reader` decodes them, and is ended where it gives no sign for `seconds`. `motion`: the optical
    flow is measured, else it is 0; two bounds of it choose clips, see `Curation`.

    Columns: those of all videos, `caption`, `name` (path below the folder), `rate` and, where there
    are sub-folders, `category`, the first folder on the way, "other" beside the folders. The
    caption is that of a file beside the video or of a table (`Captions`), else the name of the
    innermost sub-folder, else empty. `encoding` is that of such files that are not in UTF-8 and
    have no mark.

    Folders `train` and `test` (or `val`, `valid`, `validation`) on top are the split, and no
    classes; `held_out`, a fraction, and `seed` do not count then. Copies, whose frames are equal,
    are in one part. At most `most` windows are held out.

    What is not used, and why, is in `report`; one warning counts and names it. Raises UserError
    for the path, where no video is found or can be used, and where none is left to hold out.
    """

    def __init__(
        self,
        path: str = "",
        size: int = 64,
        frames: int = 16,
        rate: float | None = None,
        held_out: float = 0.1,
        seed: int = 0,
        most: int = 256,
        motion: Motion = True,
        seconds: float = 60.0,
        encoding: str = "",
        reader: Reader | None = None,
    ) -> None:
        check_encoding(encoding)
        check_fraction(held_out)
        self._how = How(size, rate, bool(motion), reader or Decord(), seconds)
        self._fraction, self._seed = held_out, seed
        self.files = Files(
            path,
            Kinds(SUFFIXES, DOCUMENTS),
            purpose="the data set 'video_folder'",
            wanted="a folder of videos",
            what="videos",
        )
        self._told = Described(self.files, encoding)
        key = {"files": self.files.stamps, "captions": self._told.captions, **self._how.key}
        key |= {"held_out": held_out, "seed": seed}
        super().__init__(key, (3, size, size), self._told.classes, frames, most, motion)

    @property
    def report(self) -> Report:
        """What became of the entries of the folder."""
        return self._read_all[1]

    @property
    def empty(self) -> Sequence[str]:
        return self._told.empty

    def table(self) -> Table:
        stored, report, rows = self._read_all
        report.tell()
        columns: dict[str, Sequence[object]] = {
            "caption": self._told.captions,
            "name": [shown(name) for name in self.files.names],
            "rate": Stored(stored, "rate")[range(len(stored))][:, 0].tolist(),
        }
        if self.classes:
            columns["category"] = self._told.labels
        parts = [""] * len(stored)
        for row, part in zip(rows, self._parts(stored, rows), strict=True):
            parts[row] = part
        spans = [(0, length) for length in stored.lengths("frames").tolist()]
        sources = [number_of(content.encode()) for _, content in self.files.stamps]
        return Table(stored, columns, parts, spans, sources)

    # ---- parts --------------------------------------------------------------------------------
    def _parts(self, stored: Shards, rows: Sequence[int]) -> list[str]:
        """The part of each of the rows that are used."""
        layout, labels = self._told.layout, self._told.labels
        if layout.given:
            return [str(layout.parts[row]) for row in rows]
        first = first_copies(stored, [shown(name) for name in self.files.names])
        groups, strata = [first[row] for row in rows], [labels[row] for row in rows]
        _, gone = by_quota(groups, strata, self._fraction, self._seed, "videos")
        held_out = set(gone)
        return [HELD_OUT if place in held_out else TRAIN for place in range(len(rows))]

    @cached_property
    def _read_all(self) -> tuple[Shards, Report, list[int]]:
        """The videos on disk, what became of the files, and which are used."""
        names, report = self.files.names, self._told.report.extended()
        pairs = zip(self.files.paths, self.files.stamps, strict=True)
        sources = [Source(path, content) for path, (_, content) in pairs]
        stored = stored_videos("videos", sources, self._how)
        leave_unread(names, stored, report)
        rows = leave_short(names, stored, self.window, report)
        return stored, report, self._told.used(stored, rows, report)
