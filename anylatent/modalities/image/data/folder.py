"""Any pictures in a folder, with captions from files beside them or from folder names."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import torch

from anylatent.core.support.columns import Columns, Ragged
from anylatent.core.support.packages import package_version
from anylatent.core.support.shards import Shards
from anylatent.core.support.stored import Stored
from anylatent.modalities.image.data.base import PictureData, Table
from anylatent.modalities.image.data.choice import copy_key, first_copies, leave_unread
from anylatent.modalities.image.data.decoding import SUFFIXES, Read, opens, read_picture
from anylatent.modalities.image.data.depth import (
    SHALLOW,
    Levels,
    check_levels,
    depths,
    levels_of,
)
from anylatent.modalities.image.data.described import Described
from anylatent.modalities.shared.folder import DOCUMENTS, Files, Kinds
from anylatent.modalities.shared.reading import check_encoding
from anylatent.modalities.shared.report import Report, shown
from anylatent.modalities.shared.strings import text_tensor

_MADE_BY = [f"pillow {package_version('pillow')}", "3"]
_DARK = 25  # of 255: nothing in a picture can be seen that is darker throughout


class Folder(PictureData):
    """The pictures below `path`, cropped to their central square, `size` × `size` pixels.

    Read recursively in the order of their paths, through links, hidden files left out: whatever
    Pillow opens (of several frames the first); turned as their EXIF says, transparency on white.

    Columns: `image` (3, size, size) in [-1, 1], `caption`, `name` (path below the folder) and,
    where there are sub-folders, `category`: the first folder on the way to the picture, "other"
    for pictures that lie beside the folders. The caption is that of a file beside the picture or
    of a table (`Captions`), else the name of the innermost sub-folder, else empty. `encoding` is
    that of such files that are not in UTF-8 and have no mark.

    Folders `train` and `test` (or `val`, `valid`, `validation`) on top are the split, and no
    classes; `held_out` and `seed` do not count then, and copies of what is learned from are not
    held out. Else copies, whose pixels are equal, stay in one part.

    Pictures of more than 8 bits are scaled by all of them: integers by the bits that are used (10,
    12, 14, 16, ...), floats by their range, or both from black to white as `levels` say, [0,4095].

    What is not used, and why, is in `report`; one warning counts and names it. Raises UserError
    for the path, where no picture is found, and where none is left to hold out, unless `held_out`
    is 0.
    """

    def __init__(
        self,
        path: str = "",
        size: int = 64,
        held_out: float = 0.1,
        seed: int = 0,
        encoding: str = "",
        levels: tuple[float, ...] = (),
    ) -> None:
        check_encoding(encoding)
        self._given = check_levels(levels)
        self.files = Files(
            path,
            Kinds(SUFFIXES, DOCUMENTS, opens),
            purpose="the data set 'folder'",
            wanted="a folder of pictures",
            what="pictures",
        )
        self._told = Described(self.files, encoding)
        key = {
            "files": self.files.stamps,
            "captions": self._told.captions,
            "size": size,
            "levels": self._given,
            "made by": _MADE_BY,
        }
        super().__init__(key, (3, size, size), self._told.classes, held_out, seed)

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
        columns: dict[str, list[object]] = {
            "caption": [self._told.captions[i] for i in rows],
            "name": [shown(self.files.names[i]) for i in rows],
        }
        labels, layout = self._told.labels, self._told.layout
        strata = [labels[i] for i in rows]
        if self.classes:
            columns["category"] = list(strata)
        parts = [str(layout.parts[i]) for i in rows] if layout.given else []
        first = first_copies(stored, [shown(name) for name in self.files.names])
        groups = [first[i] for i in rows]
        sources = Stored(stored, "source")[rows][:, 0].tolist()
        pixels = Stored(stored, "pixels").select(rows)
        return Table(pixels, columns, groups, strata, sources, parts)

    # ---- pixels -------------------------------------------------------------------------------
    @cached_property
    def _read_all(self) -> tuple[Shards, Report, list[int]]:
        """The pictures on disk, what became of the files, and which are used."""
        key = {name: value for name, value in self._key.items() if name != "captions"}
        key |= {"root": self.files.place, "levels": asdict(self._levels)}
        count, report = len(self.files.names), self._told.report.extended()
        stored = self.stored("folder", key, count, self._read, "reading pictures")
        good = Stored(stored, "good")[range(count)][:, 0].tolist()
        rows = [i for i in range(count) if good[i]]
        leave_unread(self.files.names, stored, report)
        rows = self._told.used(stored, rows, report)
        _warn_of_night(self.files.root, int(Stored(stored, "brightest")[rows].max()))
        return stored, report, rows

    def _read(self, items: range) -> Iterator[Columns]:
        """The pixels of some pictures, black where they can't be read, and which ones can."""
        black = torch.zeros(self.shape, dtype=torch.uint8)
        with ThreadPoolExecutor() as pool:
            for found in pool.map(lambda i: self._picture(i), items):
                why = found if isinstance(found, str) else ""
                pixels, source = (black, 0) if isinstance(found, str) else found
                reason = text_tensor(why)
                yield {
                    "pixels": pixels[None],
                    "good": torch.tensor([[not why]]),
                    "reason": Ragged(reason, torch.tensor([len(reason)])),
                    "copy": copy_key(pixels)[None],
                    "source": torch.tensor([[source]]),
                    "brightest": pixels.amax().reshape(1, 1),
                }

    def _picture(self, item: int) -> Read | str:
        return read_picture(self.files.paths[item], self.shape[1], self._levels)

    @cached_property
    def _levels(self) -> Levels:
        """Black and white of those of more than 8 bits, which are said."""
        if all(path.suffix.lower() in SHALLOW for path in self.files.paths):
            return Levels()
        key = {"made by": _MADE_BY}
        found = self.files.read("depths", key, lambda: depths(self.files.paths))
        levels, said = levels_of(found, self._given)
        for line in said:
            print(f"{self.files.root}: {line}", flush=True)
        return levels


def _warn_of_night(root: Path, brightest: int) -> None:
    if brightest < _DARK:
        warnings.warn(
            f"all pictures in {root} are nearly black: the brightest of their pixels is "
            f"{brightest} of 255. If they have more than 8 bits, data.levels=[BLACK,WHITE] says "
            "their range; of colours with 16 bits the upper 8 are read, so scale them first",
            stacklevel=3,
        )
